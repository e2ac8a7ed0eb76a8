"""The compatibility trial: the previous release and this checkout on each other's schema."""
