"""The state of an environment: facts, journal, lock, releases and containers."""
