"""A server with the HTTP API of Fincra, for development, tests and practice hosts.

It keeps everything in memory, moves no money, and can simulate faults (`Switches`).
"""

from amani_app.adapters.fincra.sandbox.server import create_sandbox

__all__ = ["create_sandbox"]
