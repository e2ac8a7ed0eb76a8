"""HAProxy's runtime API: read the proxy's state and change it without a reload.

Each function is one conversation with `conversation.pl`, a script that runs in the proxy's
container. One exec runs it for all conversations of an engine object. The script does the waiting,
so that a swap needs few round trips to the host, and it completes a conversation even if the
deployer is killed meanwhile. All functions raise `ProxyError` with HAProxy's message, and the
engine's errors. Except `close`, no call removes the last serving slot.

The script is Perl, which no type checker reads, because nothing else in the HAProxy image can use
a UNIX socket: the image is Debian with `perl-base`, an essential package, and has no Python, socat
or nc. Python would need an image derived from the published one, built and pushed again for each of
its updates, and about 20 MB more on each host. The script uses no module outside perl-base.
`tests/unit/deploy/proxy/test_conversation.py` compiles it with fatal warnings and runs it against a
fake HAProxy.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from deploy.errors import DeployError
from deploy.hosts.engine import Engine
from deploy.proxy.configuration import read_weights
from deploy.proxy.settings import (
    BACKEND,
    CONFIGURATION,
    FOLDER,
    MAINTENANCE,
    ProxySettings,
)
from deploy.state.facts import FULL_WEIGHT, SLOTS, ProxyFacts, ServerFacts, Slot, other

State = Literal["ready", "drain", "maint"]

PATIENCE = 2.0
"""Seconds that a step waits in one conversation before it looks for an interrupt."""

_SCRIPT = Path(__file__).with_name("conversation.pl").read_text()
_SEPARATOR = "\x1e"
_END = b"\x04"
_REFUSED, _LATE = "1", "3"
_MARGIN = 15.0
"""Seconds that a conversation may take in addition to its waiting."""
_MAINTENANCE_BITS = 0x01 | 0x02 | 0x20 | 0x40
_DRAIN_BITS = 0x08 | 0x10
_RUNNING = 2


class ProxyError(DeployError):
    """HAProxy refused a command, or a slot is not in the state that the next command needs."""

    def __init__(
        self, message: str, *, servers: Mapping[Slot, ServerFacts], hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.servers = servers


@dataclass(frozen=True)
class _Outcome:
    late: bool
    answers: Sequence[str]
    servers: Mapping[Slot, ServerFacts]


def read(engine: Engine, proxy: str) -> ProxyFacts:
    """The facts of a running proxy.

    `config` is the digest of the loaded configuration alone; `container.read_facts` adds the
    container's.
    """
    outcome = _converse(
        engine,
        proxy,
        "ask\tshow info desc",
        f"ask\tshow acl {FOLDER}/{MAINTENANCE}",
        f"cat\t{FOLDER}/{CONFIGURATION}",
    )
    info, acl, text = outcome.answers
    description = [line for line in info.splitlines() if line.startswith("description: ")]
    return ProxyFacts(
        running=True,
        present=True,
        config=description[0].split('"')[0].split(":")[1].strip() if description else "",
        recorded_weights=read_weights(text),
        servers=outcome.servers,
        maintenance=any(line.endswith(" on") for line in acl.splitlines()),
    )


def read_servers(engine: Engine, proxy: str) -> Mapping[Slot, ServerFacts]:
    """The facts of both slots. Raises `ProxyError` while HAProxy is still starting."""
    servers = _converse(engine, proxy).servers
    if not servers:  # an empty conversation does not fail while HAProxy is still starting
        raise ProxyError(f"{proxy}: HAProxy does not answer yet", servers=servers)
    return servers


def wait_until_up(
    engine: Engine, proxy: str, slot: Slot, timeout: float, *, fresh: bool = False
) -> ServerFacts:
    """Wait at most `timeout` seconds until the proxy's health check finds a slot up.

    Returns the slot's facts, up or not. With `fresh` the slot counts as down until a new check
    succeeds: its container must run already, since the kernel waits for a second after a failed
    lookup before it looks for the address again. The slot gets no traffic then, and its weight is
    set to the full share.
    """
    begin = _watch(slot) if fresh else []
    outcome = _converse(engine, proxy, *begin, _wait("up", slot, timeout), patience=timeout)
    return outcome.servers[slot]


def is_ready(engine: Engine, settings: ProxySettings, slot: Slot) -> bool:
    """Whether the proxy finds a slot up, and the slot answers the same health check now.

    The proxy's own result is as old as its last check.
    """
    health, address = settings.health, settings.slot_addresses[slot]
    check = (address, health.port, health.path, settings.check_host, math.ceil(health.timeout))
    asked = "\t".join(map(str, ("answers", *check)))
    return not _converse(engine, settings.name, _wait("up", slot, 0), asked).late


def shift(engine: Engine, proxy: str, to: Slot) -> Mapping[Slot, ServerFacts]:
    """Send all new requests to one slot and none to the other. Returns the facts of both.

    The other slot completes its running requests. Raises `ProxyError` if the slot is not up.
    """
    server = f"{BACKEND}/{to}"
    return _converse(
        engine,
        proxy,
        _wait("up", to, 0),
        f"do\tset weight {server} {FULL_WEIGHT}",
        f"do\tset server {server} state ready",
        f"serving\t{to}",
        f"retire\t{other(to)}",
        late=f"{to} is not up, so it gets no traffic",
    ).servers


def wait_drained(engine: Engine, proxy: str, slot: Slot, timeout: float) -> int:
    """Wait until a slot serves no request; return how many are left after `timeout` seconds."""
    outcome = _converse(engine, proxy, _wait("idle", slot, timeout), patience=timeout)
    return outcome.servers[slot].sessions if outcome.late else 0


def set_state(engine: Engine, proxy: str, slot: Slot, state: State) -> None:
    """Set a slot's state. Raises `ProxyError` if that would remove the last serving slot."""
    guard = [] if state == "ready" else [f"spare\t{slot}"]
    _converse(engine, proxy, *guard, f"do\tset server {BACKEND}/{slot} state {state}")


def close(engine: Engine, proxy: str) -> None:
    """Take both slots out of service: every request gets 503."""
    commands = [f"do\tset server {BACKEND}/{slot} state maint" for slot in SLOTS]
    _converse(engine, proxy, *commands)


def switch_maintenance(engine: Engine, proxy: str, on: bool) -> None:
    """Start or end maintenance in the running proxy. The caller persists it in the file."""
    acl = f"{FOLDER}/{MAINTENANCE}"
    add = [f"do\tadd acl {acl} on"] if on else []
    _converse(engine, proxy, f"do\tclear acl {acl}", *add)


def reload(engine: Engine, proxy: str) -> None:
    """Reload the configuration seamlessly: old workers serve their open connections to the end.

    Raises `ProxyError` with HAProxy's message if it rejects the configuration and keeps the old.
    """
    outcome = _converse(engine, proxy, "reload")
    if not outcome.answers[0].startswith("Success=1"):
        raise ProxyError(
            f"HAProxy refused its configuration:\n{outcome.answers[0]}", servers=outcome.servers
        )


def _watch(slot: Slot) -> list[str]:
    server = f"{BACKEND}/{slot}"
    return [
        f"spare\t{slot}",
        f"do\tset server {server} state drain",
        f"do\tset server {server} health down",
        f"do\tset weight {server} {FULL_WEIGHT}",
    ]


def _wait(what: str, slot: Slot, seconds: float) -> str:
    return f"{what}\t{slot}\t{round(seconds * 1000)}"


def _converse(
    engine: Engine, proxy: str, *instructions: str, patience: float = 0.0, late: str = ""
) -> _Outcome:
    output = engine.ask(
        proxy,
        ["perl", "-e", _SCRIPT],
        "".join(f"{line}\n" for line in (*instructions, "")).encode(),
        end=_END,
        timeout=patience + _MARGIN,
    )
    *answers, state, status = output.split(_SEPARATOR)
    servers = _servers(state)
    if status == _LATE and late:
        raise ProxyError(f"{proxy}: {late}", servers=servers)
    if status == _REFUSED:
        raise ProxyError(f"{proxy}: {answers[-1].strip()}", servers=servers)
    return _Outcome(status == _LATE, answers, servers)


def _servers(text: str) -> dict[Slot, ServerFacts]:
    state, _, statistics = text.partition("# pxname")
    administrative = {}
    for line in state.splitlines():
        row = line.split()
        if len(row) > 8 and row[1] == BACKEND:
            administrative[row[3]] = (int(row[5]), int(row[6]), int(row[7]))
    found: dict[Slot, ServerFacts] = {}
    for entry in csv.DictReader(("pxname" + statistics).splitlines()):
        if entry["svname"] not in administrative:
            continue
        operational, admin, weight = administrative[entry["svname"]]
        found[cast(Slot, entry["svname"])] = ServerFacts(
            state=_state(admin),
            up=operational == _RUNNING,
            weight=weight,
            sessions=int(entry["scur"] or 0) + int(entry["qcur"] or 0),
            check=_check(entry),
        )
    return found


def _state(admin: int) -> State:
    if admin & _MAINTENANCE_BITS:
        return "maint"
    return "drain" if admin & _DRAIN_BITS else "ready"


def _check(row: Mapping[str, str]) -> str:
    # A star marks a running check; the status is that of the previous one.
    status = row["check_status"].removeprefix("* ")
    if not status or status == "L7OK":
        return status
    code = f"/{row['check_code']}" if row["check_code"] else ""
    detail = f" ({row['last_chk']})" if row.get("last_chk") else ""
    return f"{status}{code}{detail}"
