"""Calls to this machine's engine over each kind of connection."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import tarfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.errors import EngineError, HostUnreachable, UsageError
from deploy.hosts.connect import connect
from deploy.hosts.docker_engine import DockerEngine, _lines
from deploy.hosts.engine import ContainerSpec, Engine, Mount
from deploy.hosts.host import Host
from tests.integration.deploy.hosts.conftest import Config, Server
from tests.support.waiting import eventually

pytestmark = pytest.mark.engine

FOREVER = ("sh", "-c", "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done")
"""Ends with status 3 on SIGTERM once it has printed `up`; an earlier signal is ignored."""


@pytest.fixture
def engine(engine_host: Host) -> Engine:
    """This machine's engine."""
    return engine_host.engine


def archive(**files: bytes) -> bytes:
    """A tar archive of these files."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


@pytest.fixture
def spec(name: str, image: str) -> ContainerSpec:
    """A container that runs until SIGTERM."""
    return ContainerSpec(name=name, image=image, command=FOREVER, labels={"test": name})


@pytest.fixture
def running(engine: Engine, spec: ContainerSpec) -> str:
    """The name of such a container, started."""
    engine.create(spec)
    engine.start(spec.name)
    eventually(lambda: engine.logs(spec.name) == "up\n")
    return spec.name


def test_the_engine_reports_its_version_and_operating_system(engine: Engine) -> None:
    assert engine.version()["Os"] == "linux"
    assert engine.info()["OSType"] == "linux"


def test_a_container_is_created_as_specified(
    engine: Engine, spec: ContainerSpec, name: str, tmp_path: Path
) -> None:
    third = int(name[-2:], 16)
    engine.ensure_network(name, f"10.213.{third}.0/24", {"test": name})
    wanted = replace(
        spec,
        entrypoint=("sh", "-c"),
        command=("id -u; cat /proc/self/status; sleep 60",),
        environment={"PLAIN": "a b=c", "EMPTY": ""},
        mounts=(Mount(str(tmp_path), "/run/secrets"), Mount(f"{name}-data", "/data", False)),
        tmpfs={"/tmp": "rw,size=1m,mode=1777"},
        network=name,
        address=f"10.213.{third}.9",
        ports={8000: ("127.0.0.1", 20000 + third)},
        user="10001:10001",
        memory=64 << 20,
        cpus=0.5,
        pids=20,
        capabilities=("NET_BIND_SERVICE",),
        stop_timeout=7,
        healthcheck=False,
    )
    identifier = engine.create(wanted)
    made = engine.inspect(name)
    assert made and made["Id"] == identifier
    config, host = made["Config"], made["HostConfig"]
    assert config["Entrypoint"] == ["sh", "-c"]
    assert config["Cmd"] == list(wanted.command or ())
    assert {"PLAIN=a b=c", "EMPTY="} <= set(config["Env"])
    assert config["Labels"] == {"test": name}
    assert config["User"] == "10001:10001"
    assert config["StopTimeout"] == 7
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert host["CapDrop"] == ["ALL"]
    assert [cap.removeprefix("CAP_") for cap in host["CapAdd"]] == ["NET_BIND_SERVICE"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["ReadonlyRootfs"] is True
    assert host["Privileged"] is False
    assert (host["Memory"], host["MemorySwap"]) == (64 << 20, 64 << 20)
    assert (host["NanoCpus"], host["PidsLimit"]) == (500_000_000, 20)
    assert host["Tmpfs"] == {"/tmp": "rw,size=1m,mode=1777"}
    assert host["LogConfig"] == {
        "Type": "json-file",
        "Config": {"max-size": "10m", "max-file": "3"},
    }
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    assert host["Init"] is False
    assert host["PortBindings"] == {
        "8000/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(20000 + third)}]
    }
    assert {(m["Destination"], m["Type"], m["RW"]) for m in made["Mounts"]} == {
        ("/run/secrets", "bind", False),
        ("/data", "volume", True),
    }
    engine.start(name)
    started = engine.inspect(name)
    assert started
    network = started["NetworkSettings"]["Networks"][name]
    assert network["IPAddress"] == wanted.address
    eventually(lambda: "CapBnd" in engine.logs(name))
    printed = engine.logs(name, tail=200)
    assert printed.startswith("10001\n")
    assert "CapEff:\t0000000000000000" in printed
    assert "NoNewPrivs:\t1" in printed


def test_a_container_with_a_minimal_specification_runs(
    engine: Engine, name: str, image: str
) -> None:
    engine.create(ContainerSpec(name=name, image=image, command=("true",), restart="no"))
    engine.start(name)
    assert engine.wait(name, 20) == 0


def test_hardening_can_be_disabled(engine: Engine, spec: ContainerSpec) -> None:
    engine.create(replace(spec, drop_capabilities=False, no_new_privileges=False, read_only=False))
    made = engine.inspect(spec.name)
    assert made
    assert not made["HostConfig"]["CapDrop"]
    assert not made["HostConfig"]["SecurityOpt"]
    assert made["HostConfig"]["ReadonlyRootfs"] is False


def test_containers_are_selected_by_all_given_labels(
    engine: Engine, spec: ContainerSpec, name: str
) -> None:
    engine.create(replace(spec, labels={"test": name, "slot": "blue"}))
    assert [c["Labels"]["slot"] for c in engine.containers({"test": name})] == ["blue"]
    assert len(engine.containers({"test": name, "slot": "blue"})) == 1
    assert engine.containers({"test": name, "slot": "green"}) == []


def test_a_name_in_use_is_refused_with_the_message_of_the_engine(
    engine: Engine, spec: ContainerSpec
) -> None:
    engine.create(spec)
    with pytest.raises(EngineError, match="is already in use by container") as caught:
        engine.create(spec)
    assert caught.value.status == 409


def test_a_missing_image_is_refused_with_the_message_of_the_engine(
    engine: Engine, spec: ContainerSpec
) -> None:
    with pytest.raises(EngineError, match="No such image: amani-test-none:1") as caught:
        engine.create(replace(spec, image="amani-test-none:1"))
    assert caught.value.status == 404


def test_a_port_in_use_is_refused_with_the_message_of_the_engine(
    engine: Engine, spec: ContainerSpec, running: str
) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        engine.create(replace(spec, name=f"{running}-2", ports={8000: ("127.0.0.1", port)}))
        with pytest.raises(EngineError, match="address already in use"):
            engine.start(f"{running}-2")


def test_starting_stopping_and_removing_a_container_is_idempotent(
    engine: Engine, running: str
) -> None:
    engine.start(running)
    eventually(lambda: (engine.inspect(running) or {})["State"]["Running"])
    engine.stop(running, 20)
    engine.stop(running, 20)
    assert engine.wait(running, 5) == 3
    assert engine.logs(running) == "up\nbye\n"
    engine.remove(running)
    assert engine.inspect(running) is None
    engine.remove(running)
    engine.stop(running, 1)


def test_a_container_that_ignores_sigterm_is_killed(engine: Engine, spec: ContainerSpec) -> None:
    engine.create(
        replace(spec, command=("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done"))
    )
    engine.start(spec.name)
    eventually(lambda: engine.logs(spec.name) == "up\n")
    engine.stop(spec.name, 1)
    assert engine.wait(spec.name, 5) == 137


def test_a_signal_reaches_the_first_process(engine: Engine, running: str) -> None:
    engine.kill(running, "TERM")
    assert engine.wait(running, 20) == 3
    with pytest.raises(EngineError, match="No such container"):
        engine.kill(f"{running}-none", "TERM")


def test_a_running_container_is_removed_by_parallel_calls(engine: Engine, running: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: engine.remove(running), range(4)))
    assert engine.inspect(running) is None


def test_waiting_for_a_running_container_times_out(engine: Engine, running: str) -> None:
    with pytest.raises(EngineError, match="has not ended within 0.2 s"):
        engine.wait(running, 0.2)
    assert engine.inspect(running)


# -- logs ---


def test_logs_return_the_last_lines_of_both_outputs(engine: Engine, spec: ContainerSpec) -> None:
    script = "seq 1 200; echo oops >&2"
    engine.create(replace(spec, command=("sh", "-c", script), restart="no"))
    engine.start(spec.name)
    engine.wait(spec.name, 20)
    # The engine keeps the order of each output, not that between them.
    assert {"1", "200", "oops"} <= set(engine.logs(spec.name, tail=300).splitlines())
    assert len(engine.logs(spec.name, tail=3).splitlines()) == 3
    assert len(engine.logs(spec.name).splitlines()) == 50


def test_followed_logs_yield_each_line_and_end_with_the_container(
    engine: Engine, spec: ContainerSpec
) -> None:
    script = "for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.2; done"
    engine.create(replace(spec, command=("sh", "-c", script), restart="no"))
    engine.start(spec.name)
    lines = list(engine.follow_logs(spec.name))
    assert [line for line in lines if line.startswith(b"out")] == [b"out 1", b"out 2", b"out 3"]
    assert [line for line in lines if line.startswith(b"err")] == [b"err 1", b"err 2", b"err 3"]
    assert len(lines) == 6


def test_chunks_are_joined_into_lines_of_each_stream() -> None:
    pieces = [(1, b"one\ntw"), (2, b"err"), (1, b"o\n\nthr"), (2, b"or\n"), (1, b"ee")]
    assert list(_lines(iter(pieces))) == [b"one", b"two", b"", b"error", b"three"]


def test_several_log_followers_do_not_block_other_calls(
    engine: Engine, spec: ContainerSpec
) -> None:
    script = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.1; done"
    engine.create(replace(spec, command=("sh", "-c", script)))
    engine.start(spec.name)
    followers = [engine.follow_logs(spec.name) for _ in range(3)]
    for follower in followers:
        assert next(follower).startswith(b"line")
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: engine.inspect(spec.name), range(16)))
    for follower in followers:
        follower.close()  # type: ignore[attr-defined]
    for _ in range(12):
        with closing(engine.follow_logs(spec.name)) as again:  # type: ignore[type-var]
            assert next(again)


def test_logs_of_a_missing_container_are_refused(engine: Engine, name: str) -> None:
    with pytest.raises(EngineError, match="No such container"):
        engine.logs(name)
    with pytest.raises(EngineError, match="No such container"):
        next(engine.follow_logs(name))


# -- commands and files in a container ---


def test_a_command_in_a_container_reads_its_input(engine: Engine, running: str) -> None:
    result = engine.run_in(running, ["cat"], stdin=b"show stat\n")
    assert (result.status, result.output) == (0, "show stat\n")


def test_a_command_in_a_container_without_input_reads_end_of_file(
    engine: Engine, running: str
) -> None:
    assert engine.run_in(running, ["cat"]).output == ""


def test_the_status_and_both_outputs_of_a_command_are_returned(
    engine: Engine, running: str
) -> None:
    result = engine.run_in(running, ["sh", "-c", "echo out; echo err >&2; exit 9"])
    assert result.status == 9
    assert sorted(result.output.split()) == ["err", "out"]


def test_large_input_and_output_of_a_command_are_transferred_at_once(
    engine: Engine, running: str
) -> None:
    text = os.urandom(1 << 20).hex() * 4
    assert engine.run_in(running, ["cat"], stdin=text.encode()).output == text


def test_arguments_of_a_command_in_a_container_are_not_altered(
    engine: Engine, running: str
) -> None:
    nasty = ["", "a b", "$HOME `id`", "'\"", ";exit 1", "ü\n"]
    result = engine.run_in(running, ["printf", "%s|", *nasty])
    assert result.output == "|".join(nasty) + "|"


def test_a_command_in_a_container_times_out(engine: Engine, running: str) -> None:
    with pytest.raises(EngineError, match="has not ended within 0.3 s"):
        engine.run_in(running, ["sleep", "60"], timeout=0.3)


def test_a_missing_program_in_a_container_is_reported(engine: Engine, running: str) -> None:
    try:
        result = engine.run_in(running, ["no-such-program"])
    except EngineError as error:
        assert "no-such-program" in error.message
    else:
        assert result.status in (126, 127)
        assert "no-such-program" in result.output


def test_a_command_in_a_stopped_or_missing_container_is_refused(
    engine: Engine, spec: ContainerSpec
) -> None:
    engine.create(spec)
    with pytest.raises(EngineError, match="is not running") as caught:
        engine.run_in(spec.name, ["true"])
    assert caught.value.status == 409
    with pytest.raises(EngineError, match="No such container"):
        engine.run_in(f"{spec.name}-none", ["true"])


def test_commands_in_a_container_run_in_parallel(engine: Engine, running: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        outputs = pool.map(
            lambda n: engine.run_in(running, ["cat"], stdin=str(n).encode()).output, range(8)
        )
        assert list(outputs) == [str(n) for n in range(8)]


ECHO = ["sh", "-c", "while read line; do echo $$ $line; printf END; done"]


def test_a_started_command_answers_several_requests(engine: Engine, running: str) -> None:
    answers = [
        engine.ask(running, ECHO, f"{text}\n".encode(), end=b"END", timeout=30)
        for text in ("one", "two")
    ]

    (first, one), (second, two) = (answer.split() for answer in answers)
    assert (one, two) == ("one", "two")
    assert first == second, "the second question started another process"


def test_a_command_that_has_ended_is_restarted(engine: Engine, running: str) -> None:
    pid = engine.ask(running, ECHO, b"one\n", end=b"END", timeout=30).split()[0]
    assert engine.run_in(running, ["sh", "-c", f"kill -9 {pid}"]).status == 0

    again = engine.ask(running, ECHO, b"two\n", end=b"END", timeout=30).split()

    assert again[1] == "two" and again[0] != pid


def test_commands_that_have_ended_occupy_no_connections(engine: Engine, running: str) -> None:
    for number in range(12):
        pid = engine.ask(running, [*ECHO, str(number)], b"one\n", end=b"END", timeout=30).split()[0]
        assert engine.run_in(running, ["sh", "-c", f"kill -9 {pid}"]).status == 0


def test_a_command_that_does_not_answer_is_reported(engine: Engine, running: str) -> None:
    with pytest.raises(EngineError, match="has not answered within 0.3 s"):
        engine.ask(running, ["cat"], b"question\n", end=b"END", timeout=0.3)
    with pytest.raises(EngineError, match="no-such-program"):
        engine.ask(running, ["no-such-program"], b"question\n", end=b"END", timeout=30)
    with pytest.raises(EngineError, match="last words"):
        engine.ask(running, ["echo", "last words"], b"question\n", end=b"END", timeout=30)


def test_files_are_copied_into_a_container_before_it_starts(
    engine: Engine, spec: ContainerSpec
) -> None:
    engine.create(replace(spec, read_only=False, command=("sh", "-c", "cat /data/hello")))
    engine.copy_into(spec.name, "/data", archive(hello=b"hi"))
    engine.start(spec.name)
    eventually(lambda: engine.logs(spec.name).startswith("hi"))
    engine.copy_into(spec.name, "/data", archive(large=bytes(3 << 20)))


def test_files_are_copied_into_a_volume_of_a_read_only_container(
    engine: Engine, spec: ContainerSpec, name: str
) -> None:
    mounts = (Mount(f"{name}-data", "/data", read_only=False),)
    engine.create(replace(spec, mounts=mounts))
    engine.copy_into(name, "/data", archive(hello=b"hi"))
    engine.start(name)
    assert engine.run_in(name, ["cat", "/data/hello"]).output == "hi"
    with pytest.raises(EngineError, match="read-only"):
        engine.copy_into(name, "/", archive(hello=b"hi"))


# -- images ---


def test_an_image_is_inspected_and_a_missing_one_is_none(engine: Engine, image: str) -> None:
    found = engine.image(image)
    assert found and image in found["RepoTags"]
    assert image in [tag for each in engine.images() for tag in each["RepoTags"] or []]
    assert engine.image("amani-test-none:1") is None


def test_an_image_in_use_is_not_removed(engine: Engine, spec: ContainerSpec, image: str) -> None:
    tag = f"{spec.name}:v1"
    engine.create(spec)
    subprocess.run(["docker", "commit", spec.name, tag], check=True, capture_output=True)
    engine.remove(spec.name)
    engine.create(replace(spec, image=tag))
    assert engine.remove_image(tag) is False
    assert engine.image(tag)
    engine.remove(spec.name)
    # By its id, which the engine accepts only if the image has a single name.
    subprocess.run(["docker", "tag", tag, f"{spec.name}:v2"], check=True)
    found = engine.image(tag)
    assert found and engine.remove_image(found["Id"]) is True
    assert engine.image(f"{spec.name}:v2") is None
    assert engine.remove_image(tag) is True
    assert engine.image(image)


@pytest.fixture
def pushed(registry: str, name: str, image: str) -> tuple[str, str]:
    """Repository and digest of an image that only a registry has."""
    repository = f"{registry}/{name}"
    layer = subprocess.run(["docker", "create", image, "sh"], check=True, capture_output=True)
    container = layer.stdout.decode().strip()
    with_data = archive(blob=os.urandom(8 << 20))
    subprocess.run(["docker", "cp", "-", f"{container}:/data"], input=with_data, check=True)
    subprocess.run(
        ["docker", "commit", container, f"{repository}:v1"], check=True, capture_output=True
    )
    subprocess.run(["docker", "rm", container], check=True, capture_output=True)
    subprocess.run(["docker", "push", "--quiet", f"{repository}:v1"], check=True)
    ask = ["docker", "inspect", "--format", "{{index .RepoDigests 0}}", f"{repository}:v1"]
    digest = subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["docker", "rmi", f"{repository}:v1"], check=True, capture_output=True)
    return repository, digest.partition("@")[2]


def test_an_image_is_pulled_by_digest_with_progress(
    engine: Engine, pushed: tuple[str, str]
) -> None:
    repository, digest = pushed
    assert engine.image(f"{repository}@{digest}") is None
    news: list[tuple[int, int]] = []
    engine.pull(repository, digest, progress=lambda done, known: news.append((done, known)))
    assert engine.image(f"{repository}@{digest}")
    assert news and news[-1][0] == news[-1][1] > 8 << 20
    assert all(done <= known for done, known in news)
    engine.pull(repository, digest)
    engine.pull(repository, "v1")
    assert engine.image(f"{repository}:v1")
    assert engine.remove_image(f"{repository}:v1")
    assert engine.remove_image(f"{repository}@{digest}")


def test_pulling_an_unknown_image_is_reported(engine: Engine, registry: str, name: str) -> None:
    with pytest.raises(EngineError, match="not found|unknown") as caught:
        engine.pull(f"{registry}/{name}", f"sha256:{'0' * 64}")
    assert caught.value.host


def test_pulling_from_an_unreachable_registry_is_reported(engine: Engine) -> None:
    with pytest.raises(EngineError, match="connection refused"):
        engine.pull("127.0.0.1:1/none", "v1")


def test_a_failed_pull_does_not_reveal_credentials(engine: Engine) -> None:
    with pytest.raises(EngineError) as caught:
        engine.pull("127.0.0.1:1/none", "v1", credentials=("somebody", "s3cret-word"))
    assert "s3cret-word" not in repr(caught.value) + caught.value.message


# -- networks and volumes ---


def test_a_network_is_created_once(engine: Engine, name: str) -> None:
    subnet = f"10.214.{int(name[-2:], 16)}.0/24"
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: engine.ensure_network(name, subnet, {"test": name}), range(4)))
    engine.ensure_network(name, subnet, {"test": name})
    listed = subprocess.run(
        ["docker", "network", "ls", "-q", "--filter", f"name={name}"], capture_output=True
    )
    assert len(listed.stdout.split()) == 1
    with pytest.raises(EngineError, match=f"network {name} has the subnet"):
        engine.ensure_network(name, "10.215.0.0/24", {})
    with pytest.raises(EngineError, match="overlaps"):
        engine.ensure_network(f"{name}-2", subnet, {})
    engine.remove_network(name)
    engine.remove_network(name)


def test_a_volume_is_removed_once_no_container_uses_it(
    engine: Engine, spec: ContainerSpec, name: str
) -> None:
    engine.create(replace(spec, mounts=(Mount(name, "/data", read_only=False),)))
    with pytest.raises(EngineError, match="in use"):
        engine.remove_volume(name)
    engine.remove(name)
    engine.remove_volume(name)
    engine.remove_volume(name)


# -- connections to the engine ---


def test_parallel_calls_share_at_most_four_connections(new_sshd: Callable[..., Server]) -> None:
    server = new_sshd("LogLevel DEBUG1")
    host = connect(server.config)
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: host.engine.info(), range(48)))
    for n in range(8):
        assert host.engine.inspect(f"amani-test-none-{n}") is None
    assert 1 <= server.log().count("server_request_direct_streamlocal: originator") <= 4
    assert server.log().count("Starting session") == 0
    host.close()


def test_without_forwarding_the_engine_is_reached_through_its_own_client(
    new_sshd: Callable[..., Server],
) -> None:
    server = new_sshd("DisableForwarding yes")
    host = connect(server.config)
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(lambda _: host.engine.info(), range(32)))
    # One more session checks whether the client works.
    assert 1 <= server.log().count("Starting session") <= 5
    host.close()


@pytest.mark.parametrize("why", [None, "it was silent for 15 s"])
def test_truncated_answer_is_discarded_if_the_connection_is_lost(why: str | None) -> None:
    def dial(timeout: float) -> socket.socket:
        here, there = socket.socketpair()
        with there:
            there.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"ApiVer')
        return here

    with pytest.raises(HostUnreachable if why else EngineError, match=why or "h: "):
        DockerEngine("h", dial, lambda: why).version()


def test_a_missing_engine_socket_is_reported_as_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(HostUnreachable, match=f"no Docker Engine answers at {tmp_path}/none.sock"):
        connect(Config(connection="local")).engine.version()


def test_a_missing_engine_socket_over_ssh_is_reported_as_unreachable(
    new_sshd: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from deploy.hosts import ssh

    monkeypatch.setattr(ssh, "ENGINE_SOCKET", str(tmp_path / "none.sock"))
    server = new_sshd(f"SetEnv DOCKER_HOST=unix://{tmp_path}/none.sock")
    host = connect(server.config)
    with pytest.raises(HostUnreachable, match=r"Engine does not answer: .*none\.sock"):
        host.engine.version()
    assert host.run(["echo", "the host is fine"]).text == "the host is fine\n"
    host.close()


def test_a_local_engine_without_a_unix_socket_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2375")
    with pytest.raises(UsageError, match="not a Unix socket"):
        connect(Config(connection="local")).engine.version()


def test_an_engine_that_closes_its_connections_is_reported_as_unreachable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import socket

    path = tmp_path / "engine.sock"
    version = b'{"ApiVersion": "1.41"}'
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(version)
                connection.sendall(head + version)
                connection.recv(65536)

        thread = threading.Thread(target=answer_once)
        thread.start()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
        host = connect(Config(connection="local"))
        with pytest.raises(HostUnreachable, match="stopped answering"):
            host.engine.info()
        thread.join()
        host.close()
