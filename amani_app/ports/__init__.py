"""Interfaces that the use cases need, as protocols, with the errors that they raise."""
