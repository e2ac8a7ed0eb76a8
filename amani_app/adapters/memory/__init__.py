"""Twins that live in memory: for tests, and for the rules they share with the real ones."""
