"""One writer an environment: a folder on the first host, made by mkdir, which is atomic.

The holder renews a heartbeat. A lock is stale when its heartbeat is older than `STALE_AFTER`
seconds by the host's own clock, or when its holder ran on this very machine and is gone.
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

# Each script gets the lock's folder as $1. Whoever changes it holds the file lock of the folder
# around it for that moment: else a slow takeover could remove what a quicker one has just taken.
# What comes by standard input is read before that: a deployer that is suspended in the middle of
# it would keep everybody out. Its size ($3) is compared because a connection that breaks ends it
# like any other: nobody would stand behind the lock then.
_ALONE = 'exec 9<"${1%/*}" && flock -w 10 9 || exit 16; '
# The folder is filled beside and renamed into place, so that it is never seen empty; a rename onto
# a folder that holds something fails.
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
# Without a mark ($2) a holder that cannot be read was seen: a whole one is another. What the holder
# entrusted goes into the journal ($3), unless its own last word ($4) is there already.
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
    """Who holds the lock: `since` is seconds since the epoch, `what` the command in words."""

    id: str
    who: str
    what: str
    since: float
    machine: str
    process: int
    boot: str
    """Identity of the running kernel and process namespace: where `process` means something."""

    @classmethod
    def here(cls, id: str, what: str, *, since: float | None = None) -> Holder:
        """This process."""
        machine = socket.gethostname()
        return cls(
            id=id,
            who=operator(),
            what=what,
            since=time.time() if since is None else since,
            machine=machine,
            process=os.getpid(),
            boot=_boot_id(),
        )


@dataclass(frozen=True)
class LockState:
    """A lock as found: its holder (None: taken this instant, or torn) and the heartbeat's age."""

    holder: Holder | None
    age: float

    @property
    def stale(self) -> bool:
        """Whether nobody stands behind it any more."""
        if self.holder and self.holder.boot == _boot_id() and not _alive(self.holder.process):
            return True
        return self.age > STALE_AFTER

    def describe(self) -> str:
        """Who, what, since when, and the last sign of life."""
        if self.holder is None:
            return f"someone unknown, last heard of {self.age:.0f} s ago"
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(self.holder.since))
        return (
            f"{self.holder.who} on {self.holder.machine} ({self.holder.what}) since {since}, "
            f"last heard of {self.age:.0f} s ago"
        )


def operator() -> str:
    """Who asks: the Actions actor in CI, else the login name and machine."""
    actor = os.environ.get("GITHUB_ACTOR")
    if actor:
        return f"{actor} (GitHub Actions)"
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return f"uid {os.getuid()}@{socket.gethostname()}"


def path(directory: str) -> str:
    """Where the lock lies under an environment's directory."""
    return f"{directory}/lock"


def read(host: Host, directory: str) -> LockState | None:
    """The lock's state on a host; None where it is free."""
    text = host.run(("sh", "-c", _READ, "lock", path(directory))).text
    return parse(text)


def parse(text: str) -> LockState | None:
    """Read what the reading script printed: the holder as JSON, then now and the heartbeat."""
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
    """A held lock; `predecessor` is the dead holder whose stale lock was taken over.

    `lost` is set once somebody else took the lock away, as may happen to a run that was suspended
    for longer than `STALE_AFTER`.
    """

    holder: Holder
    predecessor: Holder | None = None
    lost: threading.Event = field(default_factory=threading.Event)
    renew: Callable[[], None] = lambda: None
    """Gives a sign of life now, besides the regular ones, and sets `lost` where that is so."""
    confirm: Callable[[], None] = lambda: None
    """As `renew`, where the last sign of life was overdue: for before a step, lest a run that slept
    touches what is its successor's."""
    entrust: Callable[[Record], None] = lambda record: None
    """Leaves with the lock what the journal of its host shall say should nobody end this run."""

    def require(self) -> None:
        """Raise `Locked` where somebody else took the lock away."""
        if self.lost.is_set():
            raise Locked("the lock was taken away; nothing more is done")


@contextlib.contextmanager
def hold(host: Host, directory: str, holder: Holder) -> Iterator[Lease]:
    """Hold the environment's lock for the block, renewing its heartbeat.

    Raises `Locked` where someone alive holds it; a stale lock is taken over.
    """
    lease = Lease(holder, _take(host, directory, holder))
    done = threading.Event()
    asked = time.time()  # the monotonic clock stands still while a machine sleeps

    def renew() -> None:
        nonlocal asked
        asked = time.time()
        # A host that does not answer may do so again; its lock is ours until then.
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
        # A host that is gone keeps its lock; it goes stale by itself.
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
                hint="wait for it, or look with `invoke lock.status`; a crashed holder's lock goes "
                f"stale after {STALE_AFTER:.0f} s and is then taken over",
            )
        predecessor = state.holder
        break_(host, directory, state)
    raise Locked(f"{host.name}: the lock changes hands too quickly; try again")


def break_(host: Host, directory: str, state: LockState) -> None:
    """Remove the lock that was seen as `state`, and no other; what its holder entrusted to it is
    in the host's journal then."""
    seen = _mark(state.holder) if state.holder else ""
    last_word = journal.mark(state.holder.id) if state.holder else ""
    told = (journal.path(directory), last_word)
    try:
        host.run(("sh", "-c", _BREAK, "lock", path(directory), seen, *told))
    except CommandFailed as error:
        raise _busy(host) if error.status == _BUSY else error from None


def _busy(host: Host) -> Locked:
    words = f"{host.name}: somebody has been changing the lock for ten seconds"
    return Locked(words, hint="try again; `invoke lock.status` shows who holds it")


def _mark(holder: Holder) -> str:
    """What the file of this holder, and no other's, has in it."""
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


__all__ = ["Holder", "Lease", "LockState", "break_", "hold", "operator", "parse", "path", "read"]
