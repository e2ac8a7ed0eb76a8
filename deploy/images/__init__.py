"""Images: base images, the build, and registries."""
