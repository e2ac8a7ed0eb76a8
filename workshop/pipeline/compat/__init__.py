"""Whether the release before and this one run on each other's schema: real images, real server."""
