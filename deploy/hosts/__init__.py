"""Hosts: one transport each for commands as argv, files written atomically and the engine."""
