"""The contract of a host's commands and files, on this machine and over SSH."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from deploy.errors import CommandFailed
from deploy.hosts.host import Host
from tests.support.waiting import eventually

NASTY = [
    "",
    " ",
    "two words",
    "'single' \"double\" `date` $(date) $HOME ${HOME}",
    "; touch /tmp/never #",
    "a\nb\tc\\d\\\\e",
    "*?[a-z]~!^{x,y}",
    "-n",
    "--",
    "&& false || true | cat > /dev/null &",
    "naïve ☃ 漢字",
]


def test_arguments_are_passed_unchanged(host: Host) -> None:
    result = host.run(["printf", "%s\\0", *NASTY])
    assert result.stdout.decode().split("\0")[:-1] == NASTY


def test_commands_run_without_a_shell(host: Host) -> None:
    with pytest.raises(CommandFailed) as caught:
        host.run(["exit 0; true"])
    assert caught.value.status == 127


def test_output_streams_and_status_are_returned(host: Host) -> None:
    argv = ["sh", "-c", "echo out; echo err >&2; exit 9"]
    result = host.run(argv, check=False)
    assert (result.status, result.stdout, result.stderr) == (9, b"out\n", b"err\n")
    assert result.argv == tuple(argv)


def test_failure_carries_status_and_last_lines(host: Host) -> None:
    with pytest.raises(CommandFailed) as caught:
        host.run(["sh", "-c", "seq 100 >&2; exit 3"])
    assert caught.value.status == 3
    assert caught.value.host == host.name
    assert caught.value.message.endswith("\n99\n100")
    assert "\n90\n" not in caught.value.message


def test_input_is_binary_and_ends(host: Host) -> None:
    data = bytes(range(256)) * 5
    assert host.run(["cat"], stdin=data).stdout == data
    assert host.run(["cat"]).stdout == b""


def test_large_input_and_output_do_not_deadlock(host: Host) -> None:
    data = os.urandom(1 << 20) * 12
    result = host.run(["tee", "/dev/stderr"], stdin=data)
    assert result.stdout == data
    assert result.stderr == data


def test_command_may_ignore_its_input(host: Host) -> None:
    assert host.run(["echo", "done"], stdin=bytes(8 << 20)).text == "done\n"


def test_process_over_its_timeout_is_killed(host: Host, tmp_path: Path) -> None:
    note = tmp_path / "pid"
    script = 'echo $$ >"$1"; trap "" TERM; while :; do sleep 0.1; done'
    result = host.run(["sh", "-c", script, "sh", str(note)], timeout=3, check=False)
    assert result.status == 124
    assert b"not ended within 3 s" in result.stderr
    eventually(lambda: not Path("/proc", note.read_text().strip()).exists())


def test_command_over_its_timeout_fails(host: Host) -> None:
    with pytest.raises(CommandFailed) as caught:
        host.run(["sleep", "60"], timeout=0.3)
    assert caught.value.status == 124
    assert "not ended within 0.3 s" in caught.value.message


def test_process_ended_by_signal_has_failed(host: Host) -> None:
    assert host.run(["sh", "-c", "kill -SEGV $$"], check=False).status > 128


def test_new_files_and_folders_are_private(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "a b/c'd/secret"
    host.write_file(str(path), b"content")
    assert path.read_bytes() == b"content"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    host.write_file(str(path), b"", mode=0o644)
    assert path.read_bytes() == b""
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(path.parent) == ["secret"]


def test_file_is_replaced_atomically(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "file"
    versions = [bytes([65 + number]) * (300_000 + number) for number in range(6)]
    host.write_file(str(path), versions[0])
    seen: set[bytes] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for version in versions[1:]:
            host.write_file(str(path), version)
    finally:
        done.set()
        reader.join()
    assert seen <= set(versions)
    assert path.read_bytes() == versions[-1]


def test_failed_write_leaves_no_files(host: Host, tmp_path: Path) -> None:
    (tmp_path / "folder/below").mkdir(parents=True)
    with pytest.raises(CommandFailed):
        host.write_file(str(tmp_path / "folder"), b"x")
    assert os.listdir(tmp_path) == ["folder"]


def test_absent_file_reads_as_none(host: Host, tmp_path: Path) -> None:
    assert host.read_file(str(tmp_path / "none")) is None
    assert host.read_file(str(tmp_path / "no folder/none")) is None


def test_file_is_read_completely(host: Host, tmp_path: Path) -> None:
    path = tmp_path / "-a 'file'"
    path.write_bytes(os.urandom(3_000_000))
    assert host.read_file(str(path)) == path.read_bytes()


def test_reading_a_directory_fails(host: Host, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="directory"):
        host.read_file(str(tmp_path))
