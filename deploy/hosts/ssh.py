"""A host over SSH: one verified transport for any number of threads."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, cast
from weakref import WeakSet

import fabric
import paramiko
from paramiko.pkey import UnknownKeyType

from deploy.errors import CommandFailed, DeployError, HostKeyMismatch, HostUnreachable, UsageError
from deploy.hosts.channel import ChannelSocket, Transport
from deploy.hosts.docker_engine import DockerEngine
from deploy.hosts.host import DEFAULT_TIMEOUTS, CommandResult, Endpoint, HostTimeouts

# Without a handler of its own, Paramiko's log goes to standard error, with tracebacks.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

ENGINE_SOCKET = "/var/run/docker.sock"

SESSIONS = 8
"""sshd's MaxSessions is 10. Two are reserved for sessions that are being closed."""

KEEPALIVE = 5.0
SILENCE = 15.0
"""Every KEEPALIVE seconds the server is sent a request that it must answer within SILENCE seconds.
"""

_PROHIBITED = 1
"""The server's answer if forwarding is disabled (RFC 4254, section 5.1)."""

_KILL_AFTER = 2.0
_GRACE = 10.0

# $1 path, $2 mode, $3 size. The size is compared because a broken connection looks like the end of
# standard input: an incomplete file must not replace the complete one.
_WRITE = """
set -eu; umask 077
folder=$(dirname -- "$1"); mkdir -p -- "$folder"
temporary=$(mktemp -- "$folder/.write.XXXXXXXX"); trap 'rm -f -- "$temporary"' EXIT
cat >"$temporary"
test "$(stat -c %s -- "$temporary")" = "$3" || { echo "incomplete content" >&2; exit 74; }
chmod -- "$2" "$temporary"; sync -- "$temporary"
mv -fT -- "$temporary" "$1"; sync -- "$folder"
trap - EXIT
"""


class _PinnedKeys(paramiko.MissingHostKeyPolicy):
    """Refuses every key except the pinned ones. The client gets no known hosts of its own, so that
    it always calls this policy: its own table holds one key of a kind, but a key rotation needs the
    old and the new key."""

    def __init__(self, keys: Sequence[paramiko.PKey]) -> None:
        self._keys = keys

    def missing_host_key(self, client: object, hostname: str, key: paramiko.PKey) -> None:
        if key not in self._keys:
            alike = [known for known in self._keys if known.get_name() == key.get_name()]
            raise paramiko.BadHostKeyException(hostname, key, (alike or list(self._keys))[0])


class SSHHost:
    """A `Host` behind sshd.

    The constructor connects. Raises `UsageError` if no host key is pinned or the identity file is
    unusable, `HostKeyMismatch` if the host has another key, `HostUnreachable` otherwise.
    `timeouts.connect` holds for each phase: TCP, banner, authentication, opening a channel.
    `opened` is an existing TCP connection, `gateway` an open host to connect through. Both are
    closed with this host.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        *,
        gateway: SSHHost | None = None,
        opened: socket.socket | None = None,
        timeouts: HostTimeouts = DEFAULT_TIMEOUTS,
    ) -> None:
        self.name = name
        self.address = endpoint.address
        self._timeout, self._command_timeout = timeouts.connect, timeouts.command
        self._gateway = gateway
        self._sessions = threading.BoundedSemaphore(SESSIONS)
        self._streams: WeakSet[ChannelSocket] = WeakSet()
        self._closed = threading.Event()
        self._users, self._counting = 1, threading.Lock()
        self._why = "the connection was lost"
        self._engine_by_socket: bool | None = None
        self._connection = self._connect(endpoint, gateway, opened)
        self._transport = cast(Transport, self._connection.transport)
        threading.Thread(target=self._watch, name=f"keepalive {name}", daemon=True).start()

    # -- connecting ------------------------------------------------------------------------------

    def _connect(
        self, endpoint: Endpoint, gateway: SSHHost | None, opened: socket.socket | None
    ) -> fabric.Connection:
        pinned = self._pinned(endpoint)
        options: dict[str, Any] = {
            "banner_timeout": self._timeout,
            "auth_timeout": self._timeout,
            "channel_timeout": self._timeout,
            "transport_factory": partial(Transport, host_keys=pinned),
            **self._identity(endpoint),
        }
        if gateway is not None:
            options["sock"] = gateway.open_tcp(endpoint.address, endpoint.port)
        elif opened is not None:
            options["sock"] = opened
        # No ~/.ssh/config or fabric.yml: only the environment's file configures the connection.
        connection = fabric.Connection(
            endpoint.address,
            user=endpoint.user,
            port=endpoint.port,
            config=fabric.Config(overrides={"load_ssh_configs": False}, lazy=True),
            connect_timeout=self._timeout,
            connect_kwargs=options,
        )
        # Fabric accepts any key by default (fabric#2071).
        connection.client.set_missing_host_key_policy(_PinnedKeys(pinned))
        try:
            connection.open()
        except (paramiko.SSHException, OSError, EOFError) as error:
            transport = connection.client.get_transport()
            greeted = transport is not None and transport.is_active()
            connection.client.close()
            raise self._not_opened(endpoint, error, greeted) from error
        return connection

    def _not_opened(self, endpoint: Endpoint, error: Exception, greeted: bool) -> DeployError:
        where = f"{endpoint.user}@{endpoint.address}:{endpoint.port}"
        if isinstance(error, paramiko.BadHostKeyException):
            found, expected = error.key, error.expected_key
            return HostKeyMismatch(
                f"{self.name}: the host key of {where} is not the pinned one\nexpected "
                f"{expected.get_name()} {expected.fingerprint}\nfound    {found.get_name()} "
                f"{found.fingerprint}",
                hint="If the host was reinstalled, compare the found fingerprint with the output "
                "of `ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub` on its console, and pin the "
                "new key. If not, do not connect: another machine may intercept the "
                "connection.",
                host=self.name,
            )
        if isinstance(error, paramiko.AuthenticationException) or greeted:
            offered = "the keys of the SSH agent (`ssh-add -l` lists them) and of ~/.ssh"
            if endpoint.identity_file is not None:
                offered = (
                    f"{endpoint.identity_file} (if it has a passphrase: only if the SSH agent "
                    "holds it)"
                )
            return HostUnreachable(
                f"{self.name}: {where} accepts none of the offered keys: {_words(error)}",
                hint=f"Offered: {offered}.",
                host=self.name,
            )
        return HostUnreachable(
            f"{self.name}: no SSH connection to {where}: {_words(error)}",
            hint="Check that the host is up, that the address is right, and that no firewall "
            "blocks the port.",
            host=self.name,
        )

    def _pinned(self, endpoint: Endpoint) -> list[paramiko.PKey]:
        if not endpoint.host_keys:
            raise UsageError(
                f"{self.name}: no host key is pinned for {endpoint.address}",
                hint=f"Run `ssh-keyscan -p {endpoint.port} {endpoint.address}`, compare the keys "
                "with the output of `ssh-keygen -lf` on the host itself, and put them under "
                "`host_keys` in the environment's file.",
                host=self.name,
            )
        return [self._public_key(line) for line in endpoint.host_keys]

    def _public_key(self, line: str) -> paramiko.PKey:
        try:
            kind, blob = line.split()[:2]
            return paramiko.PKey.from_type_string(kind, base64.b64decode(blob, validate=True))
        except (ValueError, paramiko.SSHException, UnknownKeyType) as error:
            raise UsageError(
                f"{self.name}: a pinned host key is not a public key: {line!r}",
                hint='It looks like "ssh-ed25519 AAAA...", as ssh-keyscan prints it.',
                host=self.name,
            ) from error

    def _identity(self, endpoint: Endpoint) -> dict[str, Any]:
        path = endpoint.identity_file
        if path is None:
            return {"allow_agent": True, "look_for_keys": True}
        path = os.path.expanduser(path)
        try:
            key = paramiko.PKey.from_path(path)
        except (TypeError, paramiko.PasswordRequiredException):
            # The key has a passphrase: the agent may hold it unlocked.
            return {"allow_agent": True, "look_for_keys": False}
        except (OSError, ValueError, paramiko.SSHException, UnknownKeyType) as error:
            raise UsageError(
                f"{self.name}: cannot use the identity file {path}: {_words(error)}",
                hint="Name a private key in OpenSSH's or PEM format under `identity_file`.",
                host=self.name,
            ) from error
        return {"pkey": key, "allow_agent": False, "look_for_keys": False}

    # -- the life of the transport ---------------------------------------------------------------

    def _watch(self) -> None:
        # Paramiko's own keep-alive does not check the answer. TCP does not help either: the kernel
        # of a frozen machine still acknowledges data.
        while not self._closed.wait(KEEPALIVE) and self._transport.is_active():
            late = threading.Timer(SILENCE, self._drop, (f"it was silent for {SILENCE:.0f} s",))
            late.daemon = True
            late.start()
            with contextlib.suppress(paramiko.SSHException, OSError, EOFError):
                self._transport.global_request("keepalive@openssh.com", wait=True)
            late.cancel()

    def _drop(self, why: str) -> None:
        self._why = why
        self._transport.close()

    def _lost(self, cause: object = None) -> HostUnreachable:
        why = self._why_lost() or (_words(cause) if cause is not None else self._why)
        return HostUnreachable(
            f"{self.name}: {why}",
            hint="Run the command again when the host answers.",
            host=self.name,
        )

    def _why_lost(self) -> str | None:
        return None if self._transport.is_active() else self._why

    @contextlib.contextmanager
    def _transport_errors(self) -> Iterator[None]:
        if not self._transport.is_active():
            raise self._lost()
        try:
            yield
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(error) from error

    @contextlib.contextmanager
    def _session(self, timeout: float) -> Iterator[paramiko.Channel]:
        with self._transport_errors():
            self._take_session(timeout + self._timeout)
            try:
                channel = self._transport.open_session(timeout=self._timeout)
                try:
                    yield channel
                finally:
                    channel.close()
            finally:
                self._sessions.release()

    def _take_session(self, timeout: float) -> None:
        # The user of a stream notices only at its next use that the other side has closed it.
        with self._counting:
            streams = list(self._streams)
        for stream in streams:
            if stream.closed:
                stream.close()
        if not self._sessions.acquire(timeout=timeout):
            raise self._lost("all of its sessions are in use")

    def open_tcp(self, address: str, port: int) -> paramiko.Channel:
        """Open a connection from this host to the port of another. Raises `HostUnreachable` if it
        fails."""
        with self._transport_errors():
            return self._transport.open_channel(
                "direct-tcpip", (address, port), ("", 0), timeout=self._timeout
            )

    def refusal(self, address: str, port: int) -> str:
        try:
            self._transport.open_channel(
                "direct-tcpip", (address, port), ("", 0), timeout=self._timeout
            ).close()
        except paramiko.ChannelException as error:
            return "" if error.code == _PROHIBITED else error.text
        except (paramiko.SSHException, OSError, EOFError) as error:
            raise self._lost(error) from error
        return ""

    def share(self) -> SSHHost:
        """The same host for one more user. Every user closes it."""
        with self._counting:
            self._users += 1
        return self

    def close(self) -> None:
        """Close the transport when the last user closes it. Safe to call twice."""
        with self._counting:
            self._users -= 1
            if self._users > 0 or self._closed.is_set():
                return
            self._closed.set()
        self._why = "the connection was closed"
        self._connection.client.close()
        if self._gateway is not None:
            self._gateway.close()

    # -- commands and files ----------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> CommandResult:
        """As `Host.run`. Status 124: killed after `timeout`. Status 255: ended by a signal."""
        timeout = self._command_timeout if timeout is None else timeout
        # Closing a channel does not end its process; the `timeout` of coreutils does.
        limited = ["timeout", "-k", str(_KILL_AFTER), str(timeout), *argv]
        command = shlex.join(limited) + ("" if stdin else " </dev/null")
        with self._session(timeout) as channel:
            began = time.monotonic()
            channel.exec_command(command)  # nosec B601 - quoted
            if stdin:
                threading.Thread(target=self._feed, args=(channel, stdin), daemon=True).start()
            stdout, stderr, ended = _collect(channel, timeout + _KILL_AFTER + _GRACE)
            # A lost connection closes its channels without an end-of-file message.
            whole = channel.eof_received and self._transport.is_active()
            status = channel.exit_status
        if not ended or (status == -1 and not whole):
            raise self._lost(f"no answer within {timeout:g} s" if not ended else None)
        # SIGKILL also ends the `timeout` of coreutils: the server then reports a signal.
        if status in (124, 137, -1) and time.monotonic() - began >= timeout:
            status, stderr = 124, stderr + f"\nnot ended within {timeout:g} s".encode()
        status = 255 if status == -1 else status
        result = CommandResult(tuple(argv), status, stdout, stderr)
        if check and status != 0:
            output = (stderr or stdout).decode(errors="replace")
            raise CommandFailed(self.name, result.argv, status, output)
        return result

    def _feed(self, channel: paramiko.Channel, data: bytes) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            with self._transport.sending(channel):
                channel.sendall(data)
                channel.shutdown_write()

    def write_file(self, path: str, data: bytes, *, mode: int = 0o600) -> None:
        """As `Host.write_file`, in one round trip."""
        self.run(["sh", "-c", _WRITE, "write", path, f"{mode:o}", str(len(data))], stdin=data)

    def read_file(self, path: str) -> bytes | None:
        argv = ["env", "LC_ALL=C", "cat", "--", path]
        result = self.run(argv, check=False)
        if result.status == 0:
            return result.stdout
        complaint = result.stderr.decode(errors="replace")
        if complaint.rstrip().endswith("No such file or directory"):
            return None
        raise CommandFailed(self.name, ("cat", path), result.status, complaint)

    # -- the engine ------------------------------------------------------------------------------

    @cached_property
    def engine(self) -> DockerEngine:
        return DockerEngine(self.name, self._dial_engine, self._why_lost)

    def _dial_engine(self, timeout: float) -> ChannelSocket:
        if self._engine_by_socket is not False:
            with self._transport_errors():
                try:
                    channel = self._transport.open_unix(ENGINE_SOCKET, self._timeout)
                except paramiko.SSHException:
                    if self._engine_by_socket or not self._transport.is_active():
                        raise
                else:
                    self._engine_by_socket = True
                    channel.settimeout(timeout)
                    return ChannelSocket(channel)
            # The server may forbid such channels, or the engine may listen elsewhere. The engine's
            # own client knows its address and reports errors precisely.
            self._probe_engine()
            self._engine_by_socket = False
        return self._dial_stdio(timeout)

    def _probe_engine(self) -> None:
        ping = b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"
        argv = ["docker", "system", "dial-stdio"]
        answer = self.run(argv, stdin=ping, timeout=self._timeout, check=False)
        if not answer.stdout.startswith(b"HTTP/1.1 200"):
            words = (answer.stderr or answer.stdout).decode(errors="replace").strip()
            raise HostUnreachable(
                f"{self.name}: its Docker Engine does not answer: {words}",
                hint=f"Check that it is installed and running, and that {self._connection.user} "
                "may use it. `invoke host.bootstrap` prepares a new host.",
                host=self.name,
            )

    def _dial_stdio(self, timeout: float) -> ChannelSocket:
        with self._transport_errors():
            self._take_session(self._timeout)
            try:
                channel = self._transport.open_session(timeout=self._timeout)
                channel.exec_command("docker system dial-stdio")  # nosec B601 - constant
            except BaseException:
                self._sessions.release()
                raise
            channel.settimeout(timeout)
            stream = ChannelSocket(channel, self._sessions.release)
            with self._counting:
                self._streams.add(stream)
            return stream


def _collect(channel: paramiko.Channel, timeout: float) -> tuple[bytes, bytes, bool]:
    """Read both outputs to their end. Returns whether the process ended within `timeout` seconds,
    too."""
    deadline = time.monotonic() + timeout
    stdout, stderr = bytearray(), bytearray()
    # Polling `channel.fileno()` is not possible: with data on both outputs its pipe loses wake-ups.
    errors = threading.Thread(
        target=_drain, args=(channel, channel.recv_stderr, stderr, deadline), daemon=True
    )
    errors.start()
    _drain(channel, channel.recv, stdout, deadline)
    errors.join()
    ended = channel.status_event.wait(max(0.0, deadline - time.monotonic()))
    return bytes(stdout), bytes(stderr), ended


def _drain(
    channel: paramiko.Channel, read: Callable[[int], bytes], into: bytearray, deadline: float
) -> None:
    with contextlib.suppress(OSError, EOFError):
        while (left := deadline - time.monotonic()) > 0:
            channel.settimeout(left)
            if not (data := read(1 << 18)):
                return
            into += data


def _words(error: object) -> str:
    return str(error) or type(error).__name__
