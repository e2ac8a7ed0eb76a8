"""Practice hosts for rehearsals of deploys, rollbacks and outages on one machine.

A fleet has several hosts, each a container with its own sshd and Docker Engine, a registry and a
PostgreSQL server.
"""
