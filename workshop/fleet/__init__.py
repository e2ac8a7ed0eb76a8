"""Practice hosts: real hosts on one machine, each a container with sshd and an engine of its own, a
registry and a PostgreSQL beside them, to rehearse deploys, rollbacks and outages on."""
