"""Images: the bases they stand on, their build, and the registries that hold them."""
