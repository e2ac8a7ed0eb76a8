"""The schema: its revisions, what each may do to a running release, and what a rollback meets."""
