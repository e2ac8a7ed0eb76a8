"""The SSH transport: host keys, identities, lost connections, silence and limits."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.errors import DeployError, HostKeyMismatch, HostUnreachable, UsageError
from deploy.hosts import ssh
from deploy.hosts.connect import connect, connect_all
from deploy.hosts.host import DefaultTimeouts, Host
from tests.integration.deploy.hosts.conftest import Server, make_key, public
from tests.support.waiting import eventually

StartSshd = Callable[..., Server]


def opened(results: dict[str, Host | DeployError]) -> dict[str, Host]:
    """All of them, after making sure that each is a host."""
    hosts = {name: host for name, host in results.items() if not isinstance(host, DeployError)}
    assert len(hosts) == len(results), results
    return hosts


# -- host keys ---


def test_a_host_without_a_pinned_key_is_refused(sshd: Server) -> None:
    with pytest.raises(UsageError) as caught:
        connect(replace(sshd.config, host_keys=()))
    assert "no host key is pinned for 127.0.0.1" in caught.value.message
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in caught.value.hint
    assert caught.value.exit_code == 2


def test_a_host_key_that_differs_from_the_pinned_one_is_refused(
    new_sshd: StartSshd, tmp_path: Path
) -> None:
    sshd = new_sshd()
    other = make_key(tmp_path / "other")
    with pytest.raises(HostKeyMismatch) as caught:
        connect(replace(sshd.config, host_keys=(public(other),)))
    for key in (other, sshd.host_key):
        said = subprocess.run(["ssh-keygen", "-lf", key], capture_output=True, text=True)
        assert said.stdout.split()[1] in caught.value.message
    assert caught.value.exit_code == 7
    eventually(lambda: "[preauth]" in sshd.log())
    assert "Accepted" not in sshd.log()


def test_a_pinned_key_of_a_type_that_the_host_lacks_is_a_mismatch(
    sshd: Server, tmp_path: Path
) -> None:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "ecdsa"], check=True
    )
    with pytest.raises(HostKeyMismatch):
        connect(replace(sshd.config, host_keys=(public(tmp_path / "ecdsa"),)))


@pytest.mark.parametrize("kind", ["rsa", "ecdsa", "ed25519"])
def test_one_matching_key_of_several_pinned_ones_is_accepted(
    kind: str, new_sshd: StartSshd, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", key], check=True)
    server = new_sshd(f"HostKey {key}")
    kinds = [public(key), public(server.host_key)]
    for keys in (kinds, kinds[::-1]):
        host = connect(replace(server.config, host_keys=tuple(keys)))
        assert host.run(["echo", "hello"]).text == "hello\n"
        host.close()


def test_an_invalid_pinned_key_is_refused(sshd: Server) -> None:
    with pytest.raises(UsageError, match="not a public key"):
        connect(replace(sshd.config, host_keys=("ssh-ed25519 AAAA",)))


def test_connecting_does_not_change_the_known_hosts(
    sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    connect(sshd.config).close()
    assert os.listdir(tmp_path) == []


# -- identity ---


def test_a_user_key_that_the_host_rejects_is_reported(sshd: Server, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")
    with pytest.raises(HostUnreachable, match="accepts none of the offered keys") as caught:
        connect(replace(sshd.config, identity_file=str(stranger)))
    assert str(stranger) in caught.value.hint


@pytest.mark.parametrize("content", [None, "no key at all"])
def test_a_missing_or_invalid_identity_file_is_refused(
    sshd: Server, tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "identity"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UsageError, match="cannot use the identity file"):
        connect(replace(sshd.config, identity_file=str(path)))


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """An SSH agent without keys, for this test alone."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", path], stdout=subprocess.DEVNULL)
    eventually(path.exists)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    yield path
    process.kill()
    process.wait()


def test_without_an_identity_file_the_keys_of_the_agent_are_used(
    sshd: Server, agent: object
) -> None:
    config = replace(sshd.config, identity_file=None)
    with pytest.raises(HostUnreachable, match="accepts none of the offered keys"):
        connect(config)
    subprocess.run(["ssh-add", "-q", sshd.user_key], check=True)
    connect(config).close()


def test_a_key_with_a_passphrase_is_used_through_the_agent(
    new_sshd: StartSshd, agent: object, tmp_path: Path
) -> None:
    server = new_sshd()
    subprocess.run(["ssh-add", "-q", server.user_key], check=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-p", "-P", "", "-N", "secret", "-f", server.user_key], check=True
    )
    connect(server.config).close()
    subprocess.run(["ssh-add", "-q", "-D"], check=True)
    with pytest.raises(HostUnreachable) as caught:
        connect(server.config)
    assert "agent" in caught.value.hint


# -- reaching the host ---


def test_a_refused_connection_is_reported_as_unreachable(sshd: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(HostUnreachable, match=f"127.0.0.1:{port}: .*refused"):
            connect(replace(sshd.config, port=port))


@pytest.mark.timeout(30)
def test_a_silent_server_is_reported_as_unreachable_after_the_timeout(sshd: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        with pytest.raises(HostUnreachable, match="no SSH connection"):
            connect(replace(sshd.config, port=mute.getsockname()[1]), DefaultTimeouts(connect=0.5))


def test_a_server_of_another_protocol_is_reported_as_unreachable(sshd: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" * 100)

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(HostUnreachable, match="no SSH connection"):
            connect(replace(sshd.config, port=other.getsockname()[1]))
        thread.join()


@pytest.mark.engine
def test_a_host_is_reached_through_a_jump_host(sshd: Server, new_sshd: StartSshd) -> None:
    jump = new_sshd()
    host = connect(replace(sshd.config, jump=jump.config))
    assert host.run(["echo", "hello"]).text == "hello\n"
    assert host.engine.version()["ApiVersion"]
    host.close()
    eventually(lambda: not jump.connections())


def test_the_key_of_a_jump_host_is_verified(
    sshd: Server, new_sshd: StartSshd, tmp_path: Path
) -> None:
    jump = new_sshd().config
    with pytest.raises(HostKeyMismatch, match=f"127.0.0.1:{jump.port}"):
        other = replace(jump, host_keys=(public(make_key(tmp_path / "other")),))
        connect(replace(sshd.config, jump=other))
    with pytest.raises(UsageError, match="no host key is pinned"):
        connect(replace(sshd.config, jump=replace(jump, host_keys=())))


def test_hosts_behind_one_jump_host_share_its_connection(sshd: Server, new_sshd: StartSshd) -> None:
    jump = new_sshd()
    configs = [replace(sshd.config, name=f"web{n}", jump=jump.config) for n in range(4)]
    hosts = opened(connect_all(configs))
    assert jump.log().count("Accepted publickey") == 1
    first, *others = hosts.values()
    for host in others:
        host.close()
        host.close()
    assert first.run(["echo", "still here"]).text == "still here\n"
    first.close()
    eventually(lambda: not jump.connections())


def test_an_unreachable_target_behind_a_jump_host_leaves_nothing_open(
    sshd: Server, new_sshd: StartSshd
) -> None:
    jump = new_sshd()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(HostUnreachable):
            connect(replace(sshd.config, port=unused.getsockname()[1], jump=jump.config))
    eventually(lambda: not jump.connections())


def test_hosts_are_connected_in_parallel_and_fail_independently(
    sshd: Server, tmp_path: Path
) -> None:
    wrong = replace(sshd.config, name="wrong", host_keys=(public(make_key(tmp_path / "other")),))
    configs = [replace(sshd.config, name="good"), wrong, replace(wrong, name="bare", host_keys=())]
    found = connect_all([*configs, replace(sshd.config, name="here", connection="local")])
    assert {name: type(host).__name__ for name, host in found.items()} == {
        "good": "SSHHost",
        "wrong": "HostKeyMismatch",
        "bare": "UsageError",
        "here": "LocalHost",
    }
    for host in found.values():
        if not isinstance(host, DeployError):
            host.close()


# -- limits, drops and silence ---


@pytest.mark.engine
def test_calls_beyond_the_session_limit_wait(ssh_host: Host) -> None:
    assert ssh_host.engine.version()
    with ThreadPoolExecutor(32) as pool:
        texts = pool.map(
            lambda n: ssh_host.run(["sh", "-c", f"sleep 0.1; echo {n}"]).text, range(32)
        )
        counts = pool.map(lambda _: len(ssh_host.engine.images()), range(32))
        assert list(texts) == [f"{n}\n" for n in range(32)]
        assert len(set(counts)) == 1


@pytest.mark.engine
def test_commands_and_engine_calls_share_one_connection(new_sshd: StartSshd) -> None:
    server = new_sshd()
    host = connect(server.config)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: (host.run(["true"]), host.engine.info()), range(8)))
    assert server.log().count("Accepted publickey") == 1
    host.close()


@pytest.mark.engine
@pytest.mark.timeout(30)
def test_after_a_lost_connection_every_call_fails_at_once_without_reconnecting(
    new_sshd: StartSshd,
) -> None:
    server = new_sshd()
    host = connect(server.config)
    assert host.engine.images() is not None
    ended: list[DeployError] = []

    def wait_long(call: Callable[[], object]) -> None:
        with pytest.raises(HostUnreachable) as caught:
            call()
        ended.append(caught.value)

    calls: list[Callable[[], object]] = [
        lambda: host.run(["sleep", "300"], timeout=300),
        lambda: host.run(["cat"], stdin=bytes(64 << 20), timeout=300),
    ]
    threads = [threading.Thread(target=wait_long, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    eventually(lambda: server.log().count("Starting session") >= 2)
    server.signal_connections(signal.SIGKILL)
    for thread in threads:
        thread.join()
    assert len(ended) == 2
    for call in (
        lambda: host.run(["true"]),
        lambda: host.write_file("/dev/null/never", b""),
        lambda: host.read_file("/etc/hostname"),
        host.engine.images,
        host.engine.info,
    ):
        with pytest.raises(HostUnreachable):
            call()
    assert server.log().count("Accepted publickey") == 1
    host.close()


@pytest.mark.engine
@pytest.mark.timeout(60)
def test_calls_to_a_host_that_stops_answering_fail(
    new_sshd: StartSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "KEEPALIVE", 0.2)
    monkeypatch.setattr(ssh, "SILENCE", 1.0)
    server = new_sshd()
    host = connect(server.config)
    assert host.engine.images() is not None
    # Like a paused machine: the kernel still acknowledges, and no process answers.
    server.signal_connections(signal.SIGSTOP)
    with ThreadPoolExecutor() as pool:
        calls = [
            pool.submit(lambda: host.run(["true"], timeout=600)),
            pool.submit(host.engine.images),
            pool.submit(lambda: host.write_file("/tmp/never", bytes(64 << 20))),
        ]
        for call in calls:
            with pytest.raises(HostUnreachable, match="silent"):
                call.result()
    with pytest.raises(HostUnreachable, match="it was silent for 1 s"):
        host.run(["true"])
    host.close()


@pytest.mark.timeout(60)
def test_channels_closed_by_the_host_do_not_end_the_connection(
    sshd: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "hasty.sock"
    monkeypatch.setattr(ssh, "ENGINE_SOCKET", str(path))
    host = connect(sshd.config)
    assert isinstance(host, ssh.SSHHost)

    def send_too_much() -> None:
        for _ in range(60):
            stream = host._dial_engine(5)
            with contextlib.suppress(OSError):
                for _ in range(50):
                    stream.sendall(bytes(30_000))
            stream.close()

    with socket.socket(socket.AF_UNIX) as listener, ThreadPoolExecutor(7) as pool:
        listener.bind(str(path))
        listener.listen(64)

        def hang_up() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        pool.submit(hang_up)
        calls = [pool.submit(send_too_much) for _ in range(6)]
        for call in calls:
            call.result()
        listener.shutdown(socket.SHUT_RDWR)
    assert host.run(["echo", "still here"]).text == "still here\n"
    host.close()


@pytest.mark.timeout(60)
def test_a_busy_connection_is_not_treated_as_silent(
    new_sshd: StartSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "KEEPALIVE", 0.05)
    monkeypatch.setattr(ssh, "SILENCE", 2.0)
    host = connect(new_sshd().config)
    data = bytes(32 << 20)
    assert host.run(["cat"], stdin=data).stdout == data
    assert host.run(["sh", "-c", "sleep 3; echo done"]).text == "done\n"
    host.close()


def test_a_truncated_upload_does_not_replace_the_file(ssh_host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"whole")
    cut = ["sh", "-c", ssh._WRITE, "write", str(path), "600", "1000"]
    result = ssh_host.run(cut, stdin=b"only a part", check=False)
    assert result.status == 74
    assert path.read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["file"]


def test_no_secret_appears_in_the_process_list(ssh_host: Host, tmp_path: Path) -> None:
    secret = "s3cret-" + os.urandom(8).hex()
    seen: list[str] = []
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    seen.append(path.read_text(errors="replace"))
                except OSError:
                    continue

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        for _ in range(3):
            ssh_host.write_file(str(tmp_path / "secret"), secret.encode())
    finally:
        done.set()
        watcher.join()
    assert any(re.search("write.*secret", line) for line in seen)
    assert not any(secret in line for line in seen)


def test_a_call_on_a_closed_host_is_reported(sshd: Server) -> None:
    host = connect(sshd.config)
    host.close()
    host.close()
    with pytest.raises(HostUnreachable, match="was closed"):
        host.run(["true"])
