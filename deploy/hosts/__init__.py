"""Hosts: one transport each; commands as argv, files written atomically, the engine over the same transport."""
