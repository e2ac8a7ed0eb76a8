"""The lock: one writer for each environment, as a folder on its first host.

The holder renews a heartbeat. A lock is stale if its heartbeat is older than `STALE_AFTER` seconds
by the host's clock, or if its holder ran on this machine and its process has ended.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.errors import CommandFailed, DeployError, HostUnreachable, Locked
from deploy.state import journal

if TYPE_CHECKING:
    from deploy.hosts.host import Host
    from deploy.state.journal import Record

STALE_AFTER = 30.0
HEARTBEAT = 5.0

# Each script gets the lock's folder as $1. A script that changes it holds the file lock of the
# parent folder meanwhile: otherwise a slow takeover could remove the lock that a faster one has
# just taken. Standard input is read before that, since a deployer that is suspended while it writes
# would keep the file lock. Its size ($3) is compared because a broken connection ends the input
# too, and the lock would have no holder then.
_ALONE = 'exec 9<"${1%/*}" && flock -w 10 9 || exit 16; '
# The folder is filled under another name and then renamed, so that it is never empty. A rename onto
# a folder with content fails.
_TAKE = (
    'umask 077; new="$1.$2"; trap \'rm -rf "$new"\' EXIT; mkdir -p "$new" && '
    'cat >"$new/holder" && [ "$(stat -c %s "$new/holder")" = "$3" ] || exit 1; '
    + _ALONE
    + 'mv -T "$new" "$1" 2>/dev/null || exit 17'
)
_READ = (
    '[ -d "$1" ] || exit 0; cat "$1/holder" 2>/dev/null; echo; '
    'echo "$(date +%s) $(stat -c %Y "$1" 2>/dev/null || date +%s)"'
)
_BEAT = 'grep -qF "$2" "$1/holder" 2>/dev/null || exit 17; touch "$1"'
_DROP = _ALONE + 'if grep -qF "$2" "$1/holder" 2>/dev/null; then rm -rf "$1"; fi'
# Without a mark ($2) the holder was unreadable: a readable one is another holder. The record that
# the holder entrusted goes into the journal ($3), unless the journal has its run ($4) already.
_BREAK = (
    _ALONE + 'if [ -n "$2" ]; then grep -qF "$2" "$1/holder" 2>/dev/null; '
    """else ! grep -q '}$' "$1/holder" 2>/dev/null; fi || exit 0; """
    'umask 077; [ ! -f "$1/record" ] || grep -qsF "$4" "$3" '
    '|| { echo; cat "$1/record"; echo; } >>"$3"; rm -rf "$1"'
)
_ENTRUST = (
    'umask 077; new="$1.record.$$"; trap \'rm -f "$new"\' EXIT; '
    'cat >"$new" && [ "$(stat -c %s "$new")" = "$3" ] || exit 1; '
    + _ALONE
    + 'grep -qF "$2" "$1/holder" 2>/dev/null || exit 17; mv "$new" "$1/record"'
)
_BUSY, _NOT_OURS = 16, 17


@dataclass(frozen=True)
class Holder:
    """The holder of the lock: `since` is seconds since the epoch, `what` describes the command."""

    id: str
    who: str
    what: str
    since: float
    machine: str
    process: int
    boot: str
    """The kernel's boot id and the process namespace, in which `process` is valid."""

    @classmethod
    def here(cls, id: str, what: str, *, since: float | None = None) -> Holder:
        """This process as the holder, since now unless `since` is given."""
        machine = socket.gethostname()
        return cls(
            id=id,
            who=describe_operator(),
            what=what,
            since=time.time() if since is None else since,
            machine=machine,
            process=os.getpid(),
            boot=_boot_id(),
        )


@dataclass(frozen=True)
class LockState:
    """A taken lock: its holder (None: unreadable) and the age of its heartbeat in seconds."""

    holder: Holder | None
    age: float

    @property
    def stale(self) -> bool:
        """Whether its holder has ended, or its heartbeat is too old."""
        if self.holder and self.holder.boot == _boot_id() and not _alive(self.holder.process):
            return True
        return self.age > STALE_AFTER

    def describe(self) -> str:
        """The holder, its command, its start and its heartbeat, in words for the operator."""
        if self.holder is None:
            return f"an unknown holder, last heartbeat {self.age:.0f} s ago"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.holder.since))
        return (
            f"{self.holder.who} on {self.holder.machine} ({self.holder.what}) since {since}, "
            f"last heartbeat {self.age:.0f} s ago"
        )


def describe_operator() -> str:
    """The operator: the Actions actor in CI, otherwise the login name and machine."""
    actor = os.environ.get("GITHUB_ACTOR")
    if actor:
        return f"{actor} (GitHub Actions)"
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return f"uid {os.getuid()}@{socket.gethostname()}"


def path(directory: str) -> str:
    """The lock's path in an environment's directory."""
    return f"{directory}/lock"


def read(host: Host, directory: str) -> LockState | None:
    """The lock's state on a host; None if it is free."""
    text = host.run(("sh", "-c", _READ, "lock", path(directory))).text
    return parse(text)


def parse(text: str) -> LockState | None:
    """Parse the output of `_READ`: the holder as JSON, then the time and the heartbeat."""
    lines = text.strip().splitlines()
    if not lines:
        return None
    now, beat = (float(part) for part in lines[-1].split())
    try:
        values = json.loads("\n".join(lines[:-1]))
        holder = Holder(**{key: values[key] for key in Holder.__dataclass_fields__})
    except (ValueError, TypeError, KeyError):
        holder = None
    return LockState(holder, max(0.0, now - beat))


@dataclass
class Lease:
    """A held lock; `predecessor` is the holder whose stale lock was taken over.

    `lost` is set once another run took over the lock, as happens to a run that was suspended for
    longer than `STALE_AFTER`.
    """

    holder: Holder
    predecessor: Holder | None = None
    lost: threading.Event = field(default_factory=threading.Event)
    renew: Callable[[], None] = lambda: None
    """Renews the heartbeat now, and sets `lost` if another run holds the lock."""
    confirm: Callable[[], None] = lambda: None
    """Calls `renew` if the heartbeat is overdue. Called before a step, so that a run that was
    suspended does not change the work of its successor."""
    entrust: Callable[[Record], None] = lambda record: None
    """Stores a record with the lock: the run's journal entry if the run does not end by itself."""

    def require(self) -> None:
        """Raise `Locked` if another run took over the lock."""
        if self.lost.is_set():
            raise Locked("another run took over the lock; this run stopped")


@contextlib.contextmanager
def hold(host: Host, directory: str, holder: Holder) -> Iterator[Lease]:
    """Hold the environment's lock in the block, and renew its heartbeat.

    Takes over a stale lock. Raises `Locked` if the lock is held and not stale.
    """
    lease = Lease(holder, _take(host, directory, holder))
    done = threading.Event()
    asked = time.time()  # the monotonic clock stops while a machine sleeps

    def renew() -> None:
        nonlocal asked
        asked = time.time()
        # The lock of an unreachable host stays ours until the host answers again.
        with contextlib.suppress(HostUnreachable):
            argv = ("sh", "-c", _BEAT, "lock", path(directory), _mark(holder))
            if host.run(argv, timeout=HEARTBEAT, check=False).status == _NOT_OURS:
                lease.lost.set()

    def confirm() -> None:
        if time.time() - asked > 2 * HEARTBEAT:
            renew()

    def entrust(record: Record) -> None:
        line = record.line()
        argv = ("sh", "-c", _ENTRUST, "lock", path(directory), _mark(holder), str(len(line)))
        if host.run(argv, stdin=line, check=False).status == _NOT_OURS:
            lease.lost.set()

    def beat() -> None:
        while not done.wait(HEARTBEAT):
            renew()

    lease.renew, lease.confirm, lease.entrust = renew, confirm, entrust
    beating = threading.Thread(target=beat, name="heartbeat", daemon=True)
    beating.start()
    try:
        yield lease
    finally:
        done.set()
        # The lock of an unreachable host stays and becomes stale.
        with contextlib.suppress(DeployError):
            host.run(("sh", "-c", _DROP, "lock", path(directory), _mark(holder)), timeout=10)


def _take(host: Host, directory: str, holder: Holder) -> Holder | None:
    predecessor = None
    for _ in range(3):
        text = json.dumps(asdict(holder)).encode()
        argv = ("sh", "-c", _TAKE, "lock", path(directory), holder.id, str(len(text)))
        try:
            host.run(argv, stdin=text)
            return predecessor
        except CommandFailed as error:
            if error.status == _BUSY:
                raise _busy(host) from None
            if error.status != _NOT_OURS:
                raise
        state = read(host, directory)
        if state is None:
            continue
        if not state.stale:
            raise Locked(
                f"{host.name}: locked by {state.describe()}",
                hint="wait, or see `invoke lock.status`; a crashed holder's lock becomes stale "
                f"after {STALE_AFTER:.0f} s and is then taken over",
            )
        predecessor = state.holder
        break_lock(host, directory, state)
    raise Locked(f"{host.name}: the lock changed three times in a row; try again")


def break_lock(host: Host, directory: str, state: LockState) -> None:
    """Remove the lock if its holder is still that of `state`.

    The record that the holder entrusted to the lock is in the host's journal then.
    """
    seen = _mark(state.holder) if state.holder else ""
    run_mark = journal.mark(state.holder.id) if state.holder else ""
    arguments = (journal.path(directory), run_mark)
    try:
        host.run(("sh", "-c", _BREAK, "lock", path(directory), seen, *arguments))
    except CommandFailed as error:
        raise _busy(host) if error.status == _BUSY else error from None


def _busy(host: Host) -> Locked:
    text = f"{host.name}: another command has been changing the lock for ten seconds"
    return Locked(text, hint="try again; `invoke lock.status` shows who holds it")


def _mark(holder: Holder) -> str:
    """A text that only the file of this holder contains."""
    return f'"id": {json.dumps(holder.id)}'


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _boot_id() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"{socket.gethostname()}/{time.time() - time.monotonic():.0f}"


__all__ = [
    "Holder",
    "Lease",
    "LockState",
    "break_lock",
    "hold",
    "describe_operator",
    "parse",
    "path",
    "read",
]
