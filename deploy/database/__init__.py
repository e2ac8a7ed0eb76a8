"""The schema: its revisions, and their effect on running releases and on rollbacks."""
