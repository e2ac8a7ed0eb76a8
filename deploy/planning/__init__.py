"""Strategies: pure functions from facts to a plan."""
