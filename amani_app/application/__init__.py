"""The use cases, one module a capability."""
