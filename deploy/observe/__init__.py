"""Questions to hosts and services."""
