"""Shared by all use cases: actors and the audit trail, leases, the lifecycle of a process."""
