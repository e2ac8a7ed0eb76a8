"""Use cases that call the payment provider; no call is inside a unit of work."""
