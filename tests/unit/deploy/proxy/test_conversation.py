"""`conversation.pl`, compiled and run against a fake HAProxy on a UNIX socket."""

from __future__ import annotations

import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.proxy import runtime

SCRIPT = Path(runtime.__file__).with_name("conversation.pl")
READY, DRAIN, MAINTENANCE = 0x00, 0x08, 0x01


class FakeHAProxy(socketserver.ThreadingUnixStreamServer):
    """Answers the commands that the script sends, and keeps those that change a server.

    `servers` holds up, administrative state and sessions of each slot.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.servers = {"blue": [True, READY, 0], "green": [False, MAINTENANCE, 0]}
        self.commands: list[str] = []

    def answer(self, command: str) -> str:
        match command.split():
            case ["show", "servers", "state", "app"]:
                return self.state()
            case ["show", "stat", "app", "4", "-1"]:
                return self.statistics()
            case ["set", "server", server, "state", state]:
                self.commands.append(command)
                bits = {"ready": READY, "drain": DRAIN, "maint": MAINTENANCE}
                self.servers[server.removeprefix("app/")][1] = bits[state]
                return ""
            case ["set", "weight", *_]:
                self.commands.append(command)
                return ""
        return "Unknown command."

    def state(self) -> str:
        rows = [
            f"3 app {n} {slot} 10.0.0.{n} {2 if up else 0} {admin} 100 100 1"
            for n, (slot, (up, admin, _)) in enumerate(self.servers.items(), 1)
        ]
        return "\n".join(["1", "# be_id be_name srv_id srv_name ...", *rows, ""])

    def statistics(self) -> str:
        rows = [f"app,{slot},0,{sessions}," for slot, (_, _, sessions) in self.servers.items()]
        return "\n".join(["# pxname,svname,qcur,scur,", *rows, ""])


class Handler(socketserver.StreamRequestHandler):
    server: FakeHAProxy

    def handle(self) -> None:
        commands = self.rfile.read().decode().strip().split(";")
        answers = [self.server.answer(command.removeprefix("@1 ")) for command in commands]
        self.wfile.write("\n".join(answers).encode())


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[FakeHAProxy]:
    with FakeHAProxy(tmp_path / "master.sock") as made:
        serving = threading.Thread(target=made.serve_forever, args=(0.02,))
        serving.start()
        yield made
        made.shutdown()
        serving.join()


def converse(haproxy: FakeHAProxy, *instructions: str) -> tuple[str, list[str]]:
    """The status of a conversation, and the answers to its instructions."""
    done = subprocess.run(
        ["perl", "-Mwarnings=FATAL,all", SCRIPT, str(haproxy.server_address)],
        input="".join(f"{line}\n" for line in (*instructions, "")),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stderr == ""
    *answers, state, status = done.stdout.removesuffix("\x04").split("\x1e")
    assert "app,blue" in state and " blue " in state
    return status, answers


def test_the_script_compiles_with_fatal_warnings() -> None:
    argv = ["perl", "-Mwarnings=FATAL,all", "-c", SCRIPT]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, f"{SCRIPT} syntax OK")


def test_an_empty_conversation_returns_the_state(haproxy: FakeHAProxy) -> None:
    assert converse(haproxy) == ("0", [])


def test_commands_are_done_in_order(haproxy: FakeHAProxy) -> None:
    wanted = ["set weight app/green 100", "set server app/green state drain"]
    assert converse(haproxy, *(f"do\t{command}" for command in wanted)) == ("0", ["", ""])
    assert haproxy.commands == wanted


def test_a_refused_command_ends_the_conversation(haproxy: FakeHAProxy) -> None:
    status, answers = converse(haproxy, "do\tset nonsense", "do\tset weight app/blue 5")
    assert (status, answers) == ("1", ["set nonsense: Unknown command.\n"])
    assert haproxy.commands == []


def test_the_last_serving_slot_is_not_taken_out(haproxy: FakeHAProxy) -> None:
    take_out = ("spare\tblue", "do\tset server app/blue state maint")
    assert converse(haproxy, *take_out) == ("1", ["blue is the only slot that serves\n"])
    assert haproxy.commands == []
    haproxy.servers["green"] = [True, READY, 0]
    assert converse(haproxy, *take_out)[0] == "0"


@pytest.mark.parametrize(("up", "status"), [(True, "0"), (False, "3")])
def test_a_wait_ends_when_the_slot_is_up_or_the_time_is_over(
    haproxy: FakeHAProxy, up: bool, status: str
) -> None:
    haproxy.servers["green"][0] = up
    assert converse(haproxy, "up\tgreen\t100")[0] == status


@pytest.mark.parametrize(("sessions", "status"), [(0, "0"), (2, "3")])
def test_a_drain_ends_when_no_request_is_left_or_the_time_is_over(
    haproxy: FakeHAProxy, sessions: int, status: str
) -> None:
    haproxy.servers["blue"][2] = sessions
    assert converse(haproxy, "idle\tblue\t100")[0] == status


@pytest.mark.parametrize(
    ("before", "commands"), [(READY, ["set server app/blue state drain"]), (MAINTENANCE, [])]
)
def test_only_a_ready_slot_is_drained(
    haproxy: FakeHAProxy, before: int, commands: list[str]
) -> None:
    haproxy.servers["blue"][1] = before
    assert converse(haproxy, "retire\tblue")[0] == "0"
    assert haproxy.commands == commands


def test_a_slot_must_be_up_and_ready_to_serve(haproxy: FakeHAProxy) -> None:
    assert converse(haproxy, "serving\tblue")[0] == "0"
    assert converse(haproxy, "serving\tgreen") == ("1", ["green does not serve\n"])
