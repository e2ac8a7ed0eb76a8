"""Plans as values, and the executor that applies them."""
