"""Use cases that a client or an operator requests: each runs inside one unit of work."""
