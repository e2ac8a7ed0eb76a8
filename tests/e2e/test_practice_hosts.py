"""Practice hosts behave like real hosts: SSH, an engine with limits, a registry, outages."""

from __future__ import annotations

import http.client
import json
import shlex
import socket
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import paramiko
import psycopg
import pytest

from deploy.environment.model import load_environment
from deploy.errors import DeployError, UsageError
from deploy.hosts.connect import connect_all
from deploy.secrets.sources import load_secrets
from workshop.fleet.fleet import Fleet
from workshop.fleet.members import DATABASE_IMAGE
from workshop.fleet.outer_engine import OuterEngine
from workshop.fleet.practice_environment import PROXY_IMAGE
from workshop.fleet.practice_host import PracticeHost, answers, wait_for

from .conftest import fleet_name

Run = Callable[..., tuple[int, str]]
Login = Callable[..., paramiko.SSHClient]
TEN_SECONDS = 10.0


@pytest.fixture
def outer(fleet: Fleet) -> Iterator[OuterEngine]:
    """This machine's engine, without the fleet's own methods."""
    client = docker.from_env()
    yield OuterEngine(client, fleet.name, fleet.folder)
    client.close()


@pytest.fixture
def run(login: Login) -> Run:
    """Runs a command over SSH; returns its status and its output."""

    def run_command(host: PracticeHost, *argv: str, user: str = "deploy") -> tuple[int, str]:
        return execute(login(host, user), *argv)

    return run_command


def execute(client: paramiko.SSHClient, *argv: str, timeout: float = 60.0) -> tuple[int, str]:
    """Run a command over an open connection. Raises `TimeoutError` if there is no output."""
    _, stdout, stderr = client.exec_command(shlex.join(argv), timeout=timeout)
    output = stdout.read() + stderr.read()
    return stdout.channel.recv_exit_status(), output.decode()


def image(fleet: Fleet) -> str:
    """The reference of an image that hosts can pull."""
    return f"{fleet.registry}/{PROXY_IMAGE}"


def serve_on_port_80(fleet: Fleet, host: PracticeHost, run: Run) -> None:
    """Start a container that answers every HTTP request with 200, and restarts after a crash."""
    config = (
        "defaults\n mode http\n timeout client 5s\n timeout connect 5s\n timeout server 5s\n"
        "frontend all\n bind :8080\n http-request return status 200\n"
    )
    script = f"printf %s {shlex.quote(config)} >/tmp/proxy.cfg && exec haproxy -f /tmp/proxy.cfg"
    argv = ["docker", "run", "--detach", "--name=web", "--publish=80:8080", "--restart=always"]
    status, output = run(host, *argv, image(fleet), "sh", "-c", script)
    assert status == 0, output


def serves(host: PracticeHost) -> bool:
    """Whether the host answers an HTTP request with 200."""
    connection = http.client.HTTPConnection(host.address, 80, timeout=1)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


# Logging in


@pytest.mark.parametrize("user", ["deploy", "root"])
def test_each_host_accepts_the_fleets_key(fleet: Fleet, run: Run, user: str) -> None:
    for host in fleet.hosts:
        status, output = run(host, "sh", "-c", "whoami && hostname", user=user)
        assert (status, output.split()) == (0, [user, host.name])


def test_a_host_rejects_any_other_key(fleet: Fleet) -> None:
    stranger = paramiko.RSAKey.generate(2048)
    host = fleet.host(1)
    with paramiko.SSHClient() as client:
        client.load_host_keys(str(fleet.known_hosts))
        with pytest.raises(paramiko.AuthenticationException):
            client.connect(
                host.address,
                username="deploy",
                pkey=stranger,
                look_for_keys=False,
                allow_agent=False,
            )


def test_each_host_presents_its_own_pinned_key(fleet: Fleet) -> None:
    pinned = [host.host_key for host in fleet.hosts]
    assert len(set(pinned)) == len(pinned)
    for host in fleet.hosts:
        with socket.create_connection((host.address, 22), timeout=10) as connection:
            transport = paramiko.Transport(connection)
            transport.start_client(timeout=10)
            shown = transport.get_remote_server_key()
            transport.close()
        assert f"{shown.get_name()} {shown.get_base64()}" == host.host_key


def test_the_deploy_user_owns_the_deployers_folder_and_is_not_root(fleet: Fleet, run: Run) -> None:
    status, output = run(fleet.host(1), "sh", "-c", "id -u && touch /var/lib/amani/x && echo ok")
    assert (status, output.split()) == (0, ["1000", "ok"])


# The engine of a host


def test_the_deploy_user_pulls_from_the_fleets_registry_and_runs_containers(
    fleet: Fleet, run: Run
) -> None:
    for host in fleet.hosts:
        status, output = run(host, "docker", "pull", "--quiet", image(fleet))
        assert status == 0, output
        status, output = run(host, "docker", "run", "--rm", image(fleet), "haproxy", "-v")
        assert status == 0 and "HAProxy version 3.0" in output


def test_this_machine_and_the_hosts_use_the_same_name_for_the_registry(
    fleet: Fleet, run: Run
) -> None:
    client = docker.from_env()
    try:
        name = f"{fleet.registry}/round-trip"
        client.images.get(PROXY_IMAGE).tag(name, "v1")
        assert "error" not in client.images.push(name, "v1")
        client.images.remove(f"{name}:v1")
    finally:
        client.close()
    status, output = run(fleet.host(2), "docker", "pull", "--quiet", f"{name}:v1")
    assert status == 0, output


def test_a_published_port_answers_at_the_hosts_address(bare_fleet: Fleet, run: Run) -> None:
    host = bare_fleet.host(1)
    serve_on_port_80(bare_fleet, host, run)
    wait_for("port 80", lambda: serves(host), TEN_SECONDS)
    assert not serves(bare_fleet.host(2))


def test_memory_and_process_limits_are_enforced(fleet: Fleet, run: Run) -> None:
    host = fleet.host(1)
    limited = ["docker", "run", "--rm", "--memory=32m", "--memory-swap=32m", "--pids-limit=8"]
    hungry, _ = run(host, *limited, image(fleet), "sh", "-c", "head -c 200m /dev/zero | tail")
    assert hungry == 137
    fork = "for n in 1 2 3 4 5 6 7 8 9; do sleep 60 & done"
    forking, output = run(host, *limited, image(fleet), "sh", "-c", fork)
    assert forking != 0 and "fork" in output
    modest, _ = run(host, *limited, image(fleet), "sh", "-c", "head -c 1m /dev/zero | tail -c 1")
    assert modest == 0


def test_hardened_containers_run(fleet: Fleet, run: Run) -> None:
    hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--cpus=0.5"]
    script = "touch /x 2>/dev/null; echo $?; grep -c CapEff:.0000000000000000 /proc/self/status"
    argv = ["docker", "run", "--rm", "--quiet", *hardened, image(fleet), "sh", "-c", script]
    status, output = run(fleet.host(1), *argv)
    assert (status, output.split()) == (0, ["1", "1"])


def test_the_deploy_user_can_exec_in_a_container_that_does_not_run_as_root(
    bare_fleet: Fleet, run: Run
) -> None:
    host = bare_fleet.host(1)
    options = ["--detach", "--name=other", "--user=10001:10001", "--cap-drop=ALL"]
    argv = ["docker", "run", *options, image(bare_fleet), "sleep", "600"]
    status, output = run(host, *argv)
    assert status == 0, output
    assert run(host, "docker", "exec", "other", "id", "-u") == (0, "10001\n")


def test_containers_keep_running_during_a_restart_of_the_engine(
    bare_fleet: Fleet, run: Run
) -> None:
    host = bare_fleet.host(1)
    serve_on_port_80(bare_fleet, host, run)
    started = run(host, "docker", "inspect", "--format={{.State.StartedAt}}", "web")
    host.restart_engine()
    assert run(host, "docker", "inspect", "--format={{.State.StartedAt}}", "web") == started
    wait_for("port 80", lambda: serves(host), TEN_SECONDS)


@pytest.mark.parametrize("victims", ["dockerd", "dockerd|containerd", "sshd"])
def test_killed_daemons_of_a_host_restart(bare_fleet: Fleet, run: Run, victims: str) -> None:
    host = bare_fleet.host(1)
    serve_on_port_80(bare_fleet, host, run)
    host.run(["pkill", "-KILL", "-x", victims])
    host.heal()
    assert run(host, "docker", "inspect", "--format={{.State.Status}}", "web") == (0, "running\n")
    wait_for("port 80", lambda: serves(host), TEN_SECONDS)


# Outages


def test_a_paused_host_accepts_connections_and_sends_nothing(fleet: Fleet, login: Login) -> None:
    host = fleet.host(1)
    client = login(host)
    host.pause()
    assert host.status().state == "paused"
    with socket.create_connection((host.address, 22), timeout=5) as connection:
        connection.settimeout(1)
        with pytest.raises(TimeoutError):
            connection.recv(4)
    with pytest.raises(UsageError, match="host1 is paused"):
        host.cut()
    assert host.heal() == "unpaused"
    assert execute(client, "true") == (0, "")


def test_a_killed_host_starts_again_with_its_containers(bare_fleet: Fleet, run: Run) -> None:
    host = bare_fleet.host(1)
    serve_on_port_80(bare_fleet, host, run)
    host.kill()
    assert host.status().state == "exited"
    assert not answers(host.address, 22)
    assert host.heal() == "started"
    wait_for("port 80", lambda: serves(host), TEN_SECONDS)


def test_a_paused_host_can_be_killed(fleet: Fleet) -> None:
    host = fleet.host(1)
    host.pause()
    host.kill()
    host.kill()
    assert host.status().state == "exited"
    assert host.heal() == "started"


def test_a_cut_host_is_unreachable_and_keeps_running(
    bare_fleet: Fleet, login: Login, run: Run
) -> None:
    host, client = bare_fleet.host(1), login(bare_fleet.host(1))
    serve_on_port_80(bare_fleet, host, run)
    wait_for("port 80", lambda: serves(host), TEN_SECONDS)
    host.cut()
    host.cut()
    assert host.status().state == "cut"
    assert host.status().engine, "its engine keeps running"
    with pytest.raises(TimeoutError):
        socket.create_connection((host.address, 22), timeout=1)
    with pytest.raises((TimeoutError, paramiko.SSHException)):
        execute(client, "true", timeout=1)
    assert not serves(host)
    status, output = bare_fleet.host(2).status().state, host.run(["hostname"])
    assert (status, output.strip()) == ("running", "host1")
    assert host.heal() == "reconnected"
    assert serves(host)
    assert run(host, "true") == (0, "")


def test_heal_does_nothing_on_a_healthy_host(fleet: Fleet) -> None:
    assert fleet.host(1).heal() == ""


# Repeated `up`


def containers_of(outer: OuterEngine) -> dict[str, str]:
    """The start time of each container, by its id."""
    return {str(c.id): c.attrs["State"]["StartedAt"] for c in outer.containers()}


def test_a_second_up_changes_nothing(fleet: Fleet, outer: OuterEngine) -> None:
    before = containers_of(outer)
    files = {path: path.stat().st_mtime_ns for path in fleet.folder.iterdir()}
    assert fleet.up(3) == []
    assert containers_of(outer) == before
    assert {path: path.stat().st_mtime_ns for path in fleet.folder.iterdir()} == files


def test_up_repairs_a_fleet_that_lost_power(
    bare_fleet: Fleet, outer: OuterEngine, run: Run
) -> None:
    with psycopg.connect(bare_fleet.database_url) as connection:
        connection.execute("CREATE TABLE kept (n integer)")
    bare_fleet.host(1).run(["touch", "/root/kept"])
    for container in outer.containers():
        container.kill()
        container.wait()
    assert sorted(bare_fleet.up(3)) == [
        f"{member}: started" for member in ("host1", "host2", "host3", "postgres", "registry")
    ]
    assert run(bare_fleet.host(1), "ls", "/root/kept", user="root")[0] == 0
    assert run(bare_fleet.host(3), "docker", "pull", "-q", image(bare_fleet))[0] == 0
    with psycopg.connect(bare_fleet.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_up_creates_a_removed_network_again(fleet: Fleet, outer: OuterEngine, run: Run) -> None:
    for container in outer.containers():
        container.kill()
        container.wait()
    outer.client.networks.get(fleet.layout.network).remove()
    assert "host1: replaced" in fleet.up(3)
    assert run(fleet.host(1), "docker", "pull", "-q", image(fleet))[0] == 0


def test_up_adopts_a_fleet_whose_files_are_lost(
    bare_fleet: Fleet, run: Run, tmp_path: Path
) -> None:
    with psycopg.connect(bare_fleet.database_url) as connection:
        connection.execute("CREATE TABLE kept (n integer)")
    bare_fleet.folder.rename(tmp_path / "lost")
    assert {"host1: replaced", "postgres: replaced"} <= set(bare_fleet.up(3))
    assert run(bare_fleet.host(1), "true") == (0, "")
    with psycopg.connect(bare_fleet.database_url) as connection:
        assert connection.execute("SELECT count(*) FROM kept").fetchone() == (0,)


def test_up_creates_removed_members_again(fleet: Fleet, outer: OuterEngine, run: Run) -> None:
    outer.get("host2").remove(force=True)
    outer.get("registry").remove(force=True)
    (fleet.folder / "known_hosts").unlink()
    assert sorted(fleet.up(3)) == ["host2: created", "known_hosts: written", "registry: created"]
    assert run(fleet.host(2), "docker", "pull", "-q", image(fleet))[0] == 0


def test_up_repairs_every_kind_of_outage_at_once(fleet: Fleet) -> None:
    fleet.host(1).pause()
    fleet.host(2).kill()
    fleet.host(3).cut()
    assert sorted(fleet.up(3)) == ["host1: unpaused", "host2: started", "host3: reconnected"]


def names_of_images(registry: str) -> list[str]:
    """The tags and digests in this machine's engine that begin with a registry."""
    client = docker.from_env()
    try:
        found = client.images.list()
        names = [name for each in found for name in (*each.tags, *each.attrs["RepoDigests"])]
    finally:
        client.close()
    return [name for name in names if name.startswith(f"{registry}/")]


def test_a_second_fleet_starts_shrinks_and_is_removed(fleet: Fleet) -> None:
    with Fleet(fleet_name("beside")) as beside:
        try:
            beside.up(2)
            assert not beside.layout.subnet.overlaps(fleet.layout.subnet)
            assert [host.address for host in beside.hosts] != [h.address for h in fleet.hosts[:2]]
            assert "host2: removed" in beside.up(1)
            assert [host.name for host in beside.hosts] == ["host1"]
            registry = beside.registry
            assert registry != fleet.registry
            assert names_of_images(registry) != []
        finally:
            beside.down()
        assert names_of_images(registry) == []
        assert not beside.folder.exists()
        with pytest.raises(UsageError, match="is down"):
            beside.status()
        assert beside.down() == []
    assert fleet.up(3) == []


def test_a_fleet_of_another_checkout_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    with Fleet(fleet.name, root=tmp_path) as other:
        for attempt in (lambda: other.up(1), other.down, other.status):
            with pytest.raises(UsageError, match="belongs to"):
                attempt()
    assert len(fleet.hosts) == 3


# The database, the secrets and the generated files


def test_the_database_rejects_a_wrong_password(fleet: Fleet) -> None:
    with psycopg.connect(fleet.database_url) as connection:
        row = connection.execute("SELECT current_user, current_database()").fetchone()
    assert row == ("amani", "amani")
    wrong = fleet.database_url.replace(fleet.credentials.database_password(), "wrong")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(wrong)


def test_hosts_reach_the_database(fleet: Fleet, run: Run) -> None:
    script = "exec 3<>/dev/tcp/$0/5432 && echo open"
    assert run(fleet.host(1), "bash", "-c", script, str(fleet.layout.database)) == (0, "open\n")


def test_no_description_of_a_container_contains_a_secret(fleet: Fleet, outer: OuterEngine) -> None:
    secrets = [
        fleet.credentials.database_password(),
        fleet.credentials.secret_key(),
        *fleet.credentials.identity().private.splitlines()[1:3],
    ]
    shown = json.dumps([container.attrs for container in outer.containers()])
    assert DATABASE_IMAGE in shown
    assert not [secret for secret in secrets if secret in shown]
    assert fleet.credentials.identity().private not in repr(fleet.credentials.identity())


def test_only_the_owner_can_read_generated_files(fleet: Fleet) -> None:
    assert stat.S_IMODE(fleet.folder.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in fleet.folder.iterdir()}
    assert set(modes.values()) == {0o600}
    assert {f"{fleet.name}.yml", f".env.{fleet.name}", "known_hosts", "id_ed25519"} <= set(modes)


# As an environment


def test_the_deployer_loads_a_fleet_as_an_environment(fleet: Fleet) -> None:
    environment = load_environment(fleet.name)
    assert [host.name for host in environment.hosts_with("web")] == ["host1", "host2", "host3"]
    assert [host.name for host in environment.hosts_with("worker")] == ["host3"]
    assert {host.user for host in environment.hosts} == {"deploy"}
    assert load_secrets(environment).values["DATABASE_URL"].reveal() == fleet.database_url
    for name, host in connect_all(environment.hosts).items():
        assert not isinstance(host, DeployError), host
        try:
            assert host.run(["hostname"]).text.strip() == name
            assert host.engine.info()["LiveRestoreEnabled"] is True
        finally:
            host.close()


def test_up_assigns_the_requested_roles(fleet: Fleet) -> None:
    assert fleet.up(3, web=[1, 2]) == [f"{fleet.name}.yml: written"]
    environment = load_environment(fleet.name)
    assert [host.name for host in environment.hosts_with("web")] == ["host1", "host2"]
    assert [host.name for host in environment.hosts_with("worker")] == ["host3"]
    with pytest.raises(UsageError, match="no host 4"):
        fleet.up(3, workers=[4])
