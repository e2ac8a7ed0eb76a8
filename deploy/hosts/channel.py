"""SSH channels to Unix sockets, and channels with the methods of a socket."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import paramiko

_STREAMLOCAL = "direct-streamlocal@openssh.com"


class Transport(paramiko.Transport):
    """An SSH transport with two features that Paramiko lacks.

    It can open a channel to a Unix socket of the remote machine (paramiko#544): OpenSSH's extension
    `direct-streamlocal@openssh.com` (its PROTOCOL file, section 2.4). Such a channel costs one
    round trip, no process on the remote machine, and none of the server's MaxSessions.

    It sends no message for a closed channel. Paramiko checks first and sends later. If the server
    closes the channel in between, sshd treats the late message as a protocol violation and ends the
    connection.

    Server keys of the same kind as `host_keys` are requested first.
    """

    def __init__(self, *args: Any, host_keys: Sequence[paramiko.PKey], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kinds = {key.get_name() for key in host_keys}
        options = self.get_security_options()
        options.key_types = sorted(options.key_types, key=lambda kind: _key_kind(kind) not in kinds)
        self._thread = threading.local()
        self._order = threading.Lock()

    def open_unix(self, path: str, timeout: float) -> paramiko.Channel:
        """Open a channel to the Unix socket at `path`.

        Raises `paramiko.SSHException` if the server forbids it or no process listens there.
        """
        self._thread.path = path
        try:
            return self.open_channel(_STREAMLOCAL, timeout=timeout)
        finally:
            self._thread.path = None

    @contextlib.contextmanager
    def sending(self, channel: paramiko.Channel) -> Iterator[None]:
        """Attribute the messages that this thread sends during the block to `channel`."""
        self._thread.channel = channel
        try:
            yield
        finally:
            self._thread.channel = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        # `open_channel` sends exactly one message, from this thread, and does not support this
        # kind: the additional fields (path, reserved string, reserved number) are appended to that
        # message.
        path, self._thread.path = getattr(self._thread, "path", None), None
        if path is not None:
            data.add_string(path)
            data.add_string("")
            data.add_int(0)
        channel = getattr(self._thread, "channel", None)
        # Paramiko marks a channel as closed before it sends the close message, which needs the same
        # lock.
        with self._order:
            if channel is None or not channel.closed:
                super()._send_user_message(data)  # type: ignore[misc]


def _key_kind(algorithm: str) -> str:
    """The kind of key of a signature algorithm (RFC 8332 defines several for RSA)."""
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


class _ChannelReader(io.RawIOBase):
    def __init__(self, channel: paramiko.Channel) -> None:
        self._channel = channel

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._channel.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class ChannelSocket:
    """A channel with those methods of a socket that HTTP clients use."""

    def __init__(
        self, channel: paramiko.Channel, released: Callable[[], None] = lambda: None
    ) -> None:
        self._channel = channel
        self._transport = cast(Transport, channel.get_transport())
        self._released = released
        self._closing = threading.Lock()

    def recv(self, size: int) -> bytes:
        """The received data, at most `size` bytes. Empty at the end of the stream."""
        return self._channel.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`. Raises `OSError` if the channel is closed."""
        with self._transport.sending(self._channel):
            self._channel.sendall(data)

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that a single read or write may take."""
        self._channel.settimeout(timeout)

    def shutdown(self, how: int) -> None:
        with self._transport.sending(self._channel):
            self._channel.shutdown(how)

    def makefile(self, mode: str = "rb", *_: Any, **__: Any) -> io.BufferedReader:
        """A buffered reader. Closing it leaves the channel open."""
        return io.BufferedReader(_ChannelReader(self._channel))

    def is_idle(self) -> bool:
        """Whether the channel is open and has no unread data."""
        channel = self._channel
        return not (channel.closed or channel.eof_received or channel.recv_ready())

    @property
    def closed(self) -> bool:
        return self._channel.closed

    def close(self) -> None:
        """Close the channel. Safe to call twice, and from a thread other than the reader's."""
        with self._closing:
            released, self._released = self._released, lambda: None
        self._channel.close()
        released()
