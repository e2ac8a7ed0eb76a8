"""The background worker and the jobs that only it runs."""
