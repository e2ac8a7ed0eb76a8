"""A TCP socket for many short questions and answers."""

from __future__ import annotations

import socket


class PromptSocket(socket.socket):
    """A TCP connection on which nothing is held back.

    sshd leaves Nagle's algorithm on for sessions without a terminal: it holds the second part of
    an answer back until the first is acknowledged, which the kernel here delays by 40 ms. Both
    sides' waits are avoided: TCP_NODELAY for what is sent, and for what comes TCP_QUICKACK, which
    Linux forgets after a while and so is set anew at every read.
    """

    @classmethod
    def connected(cls, address: str, port: int, timeout: float) -> PromptSocket:
        """Connect within `timeout` seconds; raises OSError."""
        plain = socket.create_connection((address, port), timeout)
        prompt = cls(fileno=plain.detach())
        prompt.settimeout(timeout)
        prompt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return prompt

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`, acknowledged at once."""
        data = super().recv(size, flags)
        if hasattr(socket, "TCP_QUICKACK"):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data
