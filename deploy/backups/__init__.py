"""Backups of the database: made, listed, proved by restoring them, and thinned out."""
