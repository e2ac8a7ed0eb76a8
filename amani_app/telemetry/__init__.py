"""Logs, metrics, traces and error reports, and the scrubbing of what leaves the process."""
