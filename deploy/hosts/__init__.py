"""Hosts: one transport each for commands, atomic file writes and the Docker Engine."""
