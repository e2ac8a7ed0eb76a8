"""The conversation with the payment provider; every call to it is outside a unit of work."""
