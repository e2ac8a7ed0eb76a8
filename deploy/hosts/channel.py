"""What Paramiko lacks: a transport that reaches Unix sockets, and channels that are sockets."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import paramiko

_STREAMLOCAL = "direct-streamlocal@openssh.com"


class Transport(paramiko.Transport):
    """An SSH transport with two things that Paramiko's lacks.

    It can open a channel to a Unix socket of the remote machine (paramiko#544): OpenSSH's extension
    `direct-streamlocal@openssh.com` (its PROTOCOL file, section 2.4). Such a channel costs one
    round trip, no process on the other side, and none of the server's MaxSessions.

    And it sends nothing more for a channel that is closed. Paramiko looks first and sends then;
    where the server closes the channel in between, sshd takes what comes late for a breach of the
    protocol and ends the whole connection.

    Of the server's keys, those of the same kind as `host_keys` are asked for first.
    """

    def __init__(self, *args: Any, host_keys: Sequence[paramiko.PKey], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        kinds = {key.get_name() for key in host_keys}
        options = self.get_security_options()
        options.key_types = sorted(options.key_types, key=lambda kind: _key_kind(kind) not in kinds)
        self._thread = threading.local()
        self._order = threading.Lock()

    def open_unix(self, path: str, timeout: float) -> paramiko.Channel:
        """A channel to the Unix socket at `path`.

        Raises `paramiko.SSHException` where the server forbids it or nothing listens there.
        """
        self._thread.path = path
        try:
            return self.open_channel(_STREAMLOCAL, timeout=timeout)
        finally:
            self._thread.path = None

    @contextlib.contextmanager
    def sending(self, channel: paramiko.Channel) -> Iterator[None]:
        """What this thread sends meanwhile is for `channel`."""
        self._thread.channel = channel
        try:
            yield
        finally:
            self._thread.channel = None

    def _send_user_message(self, data: paramiko.Message) -> None:
        # `open_channel` sends exactly one message, from this thread, and knows of no such kind:
        # what the kind adds (path, reserved string, reserved number) goes to the message's end.
        path, self._thread.path = getattr(self._thread, "path", None), None
        if path is not None:
            data.add_string(path)
            data.add_string("")
            data.add_int(0)
        channel = getattr(self._thread, "channel", None)
        # A channel is marked as closed before its closing is sent, which needs the same lock.
        with self._order:
            if channel is None or not channel.closed:
                super()._send_user_message(data)  # type: ignore[misc]


def _key_kind(algorithm: str) -> str:
    """The kind of key that a signature algorithm belongs to (RFC 8332 gave RSA several)."""
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
    """A channel with the methods of a socket that HTTP clients use."""

    def __init__(
        self, channel: paramiko.Channel, released: Callable[[], None] = lambda: None
    ) -> None:
        self._channel = channel
        self._transport = cast(Transport, channel.get_transport())
        self._released = released
        self._closing = threading.Lock()

    def recv(self, size: int) -> bytes:
        """What has come, at most `size` bytes; none when the other side has ended."""
        return self._channel.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send all of `data`; OSError where the channel is closed."""
        with self._transport.sending(self._channel):
            self._channel.sendall(data)

    def settimeout(self, timeout: float | None) -> None:
        """Seconds that a single read or write may take."""
        self._channel.settimeout(timeout)

    def shutdown(self, how: int) -> None:
        """As `socket.shutdown`."""
        with self._transport.sending(self._channel):
            self._channel.shutdown(how)

    def makefile(self, mode: str = "rb", *_: Any, **__: Any) -> io.BufferedReader:
        """A buffered reader; closing it leaves the channel open."""
        return io.BufferedReader(_ChannelReader(self._channel))

    def is_idle(self) -> bool:
        """Whether it is open and nothing has come that was not read."""
        channel = self._channel
        return not (channel.closed or channel.eof_received or channel.recv_ready())

    @property
    def closed(self) -> bool:
        """Whether either side has closed it."""
        return self._channel.closed

    def close(self) -> None:
        """Close the channel; safe to call twice, and from another thread than the reader's."""
        with self._closing:
            released, self._released = self._released, lambda: None
        self._channel.close()
        released()
