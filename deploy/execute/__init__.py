"""Plans as values, and their execution."""
