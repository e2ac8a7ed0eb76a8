"""Requests to hosts and to the service: I/O without decisions."""
