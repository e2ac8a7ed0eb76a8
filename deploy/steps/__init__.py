"""The steps of a plan: each applies one change to one host, and reverts it."""
