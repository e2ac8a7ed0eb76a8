"""The steps of a plan. Each applies one change to one host, and reverts it."""
