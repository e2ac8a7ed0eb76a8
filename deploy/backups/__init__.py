"""Backups of the database: make, verify, restore and prune them."""
