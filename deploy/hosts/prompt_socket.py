"""A TCP socket for many short requests."""

from __future__ import annotations

import socket


class PromptSocket(socket.socket):
    """A TCP connection without delays.

    sshd keeps Nagle's algorithm for sessions without a terminal: it delays the second part of an
    answer until the first is acknowledged, which the kernel delays by 40 ms. TCP_NODELAY avoids the
    delay of sent data, TCP_QUICKACK that of received data. Linux resets TCP_QUICKACK after a while,
    so it is set before every read.
    """

    @classmethod
    def connected(cls, address: str, port: int, timeout: float) -> PromptSocket:
        """Connect within `timeout` seconds. Raises `OSError`."""
        plain = socket.create_connection((address, port), timeout)
        prompt = cls(fileno=plain.detach())
        prompt.settimeout(timeout)
        prompt.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return prompt

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """As `socket.recv`, with an immediate acknowledgement."""
        data = super().recv(size, flags)
        if hasattr(socket, "TCP_QUICKACK"):
            self.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return data
