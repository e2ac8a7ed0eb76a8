"""HAProxy's runtime API: what the proxy does now, and how to change it without a reload.

Every function is one conversation with a script in the proxy's container, which an exec starts once
for all that one engine object is asked for. The waiting happens there, so that a swap costs few
round trips to the host. All raise `ProxyError` with HAProxy's own words,
besides what the engine raises. Save `close`, none leaves both slots out of service where one was
in it.
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
from deploy.proxy.configuration import read_live
from deploy.proxy.settings import BACKEND, CONFIGURATION, FOLDER, MAINTENANCE, Health
from deploy.state.facts import SLOTS, ProxyFacts, ServerFacts, Slot, other

State = Literal["ready", "drain", "maint"]

_SCRIPT = Path(__file__).with_name("conversation.pl").read_text()
_SEPARATOR = "\x1e"
_END = b"\x04"
_REFUSED, _LATE = "1", "3"
_MARGIN = 15.0
"""Seconds that a conversation may take beyond the waiting that it was asked for."""
_MAINTENANCE_BITS = 0x01 | 0x02 | 0x20 | 0x40
_DRAIN_BITS = 0x08 | 0x10
_RUNNING = 2


class ProxyError(DeployError):
    """The proxy refused, or a slot is not what it must be for the next step."""

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
    """What a running proxy does, which slot its file names and which configuration it loaded.

    `config` is the loaded configuration's digest alone; `container.facts` adds the container's.
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
        recorded=read_live(text),
        servers=outcome.servers,
        maintenance=any(line.endswith(" on") for line in acl.splitlines()),
    )


def read_servers(engine: Engine, proxy: str) -> Mapping[Slot, ServerFacts]:
    """Both slots as the proxy sees them now."""
    servers = _converse(engine, proxy).servers
    if not servers:  # a conversation in which nothing is asked bears a proxy that is still starting
        raise ProxyError(f"{proxy}: HAProxy does not answer yet", servers=servers)
    return servers


def watch(engine: Engine, proxy: str, slot: Slot) -> None:
    """Begin to check a slot that gets no traffic, and count it as down until a check succeeds.

    Call it once the slot's container runs: the kernel takes a second to look again for an address
    that nobody held. The slot's weight is back at the full share.
    """
    _converse(engine, proxy, *_watch(slot))


def wait_until_up(
    engine: Engine, proxy: str, slot: Slot, timeout: float, *, fresh: bool = False
) -> ServerFacts:
    """Wait until the proxy itself has found a slot ready, for at most `timeout` seconds.

    Returns what it says of the slot then, up or not; with `fresh` it calls `watch` first, in the
    same conversation.
    """
    begin = _watch(slot) if fresh else []
    outcome = _converse(engine, proxy, *begin, _wait("up", slot, timeout), patience=timeout)
    return outcome.servers[slot]


def is_ready(engine: Engine, proxy: str, slot: Slot, address: str, health: Health) -> bool:
    """Whether the proxy finds a slot up, and its address answers the same question right now too:
    what the proxy knows is as old as its last check."""
    question = (address, health.port, health.path, health.host, math.ceil(health.timeout))
    asked = "\t".join(map(str, ("answers", *question)))
    return not _converse(engine, proxy, _wait("up", slot, 0), asked).late


def shift(engine: Engine, proxy: str, to: Slot) -> Mapping[Slot, ServerFacts]:
    """Send all new requests to one slot, and none to the other.

    The slot must be up already. Requests that the other one works on go on there. Returns what
    the proxy then says of both.
    """
    server = f"{BACKEND}/{to}"
    return _converse(
        engine,
        proxy,
        _wait("up", to, 0),
        f"do\tset weight {server} 100%",
        f"do\tset server {server} state ready",
        f"serving\t{to}",
        f"retire\t{other(to)}",
        late=f"{to} is not up, so it gets no traffic",
    ).servers


def wait_drained(engine: Engine, proxy: str, slot: Slot, timeout: float) -> int:
    """Wait until a slot works on no request; returns how many are left after `timeout` seconds."""
    outcome = _converse(engine, proxy, _wait("idle", slot, timeout), patience=timeout)
    return outcome.servers[slot].sessions if outcome.late else 0


def retire(engine: Engine, proxy: str, slot: Slot, timeout: float) -> int:
    """`wait_drained`, then `maint`, in one conversation: afterwards the container may be stopped.

    Returns the requests that were left after `timeout` seconds; where there are any, the slot is
    taken out all the same, and it is up to its container to end them.
    """
    out = f"do\tset server {BACKEND}/{slot} state maint"
    outcome = _converse(
        engine,
        proxy,
        f"spare\t{slot}",
        f"retire\t{slot}",
        _wait("idle", slot, timeout),
        out,
        patience=timeout,
    )
    if not outcome.late:
        return 0
    _converse(engine, proxy, f"spare\t{slot}", out)
    return outcome.servers[slot].sessions


def set_state(engine: Engine, proxy: str, slot: Slot, state: State) -> None:
    """Put a slot into a state. Refused where that would take out the only one that serves."""
    guard = [] if state == "ready" else [f"spare\t{slot}"]
    _converse(engine, proxy, *guard, f"do\tset server {BACKEND}/{slot} state {state}")


def set_weight(engine: Engine, proxy: str, weights: Mapping[Slot, int]) -> None:
    """Set the shares of the slots, 0 to 256 each; at least one that serves must keep some."""
    if not any(weights.values()):
        raise ValueError("at least one slot needs a weight")
    # The larger share first: in no moment do both have none.
    ordered = sorted(weights.items(), key=lambda item: -item[1])
    commands = [f"do\tset weight {BACKEND}/{slot} {weight}" for slot, weight in ordered]
    _converse(engine, proxy, f"serving\t{ordered[0][0]}", *commands)


def close(engine: Engine, proxy: str) -> None:
    """Take both slots out of service: every request is answered with 503."""
    commands = [f"do\tset server {BACKEND}/{slot} state maint" for slot in SLOTS]
    _converse(engine, proxy, *commands)


def switch_maintenance(engine: Engine, proxy: str, on: bool) -> None:
    """Answer every request with 503, or no longer. The file that persists it is the caller's."""
    acl = f"{FOLDER}/{MAINTENANCE}"
    add = [f"do\tadd acl {acl} on"] if on else []
    _converse(engine, proxy, f"do\tclear acl {acl}", *add)


def reload(engine: Engine, proxy: str) -> None:
    """Load the configuration anew, seamlessly: open connections stay with the old workers until
    they end. Raises ProxyError with HAProxy's words where it refused; then nothing has changed."""
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
        f"do\tset weight {server} 100%",
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
    # A star marks a check that is under way; the status is that of the one before.
    status = row["check_status"].removeprefix("* ")
    if not status or status == "L7OK":
        return status
    code = f"/{row['check_code']}" if row["check_code"] else ""
    detail = f" ({row['last_chk']})" if row.get("last_chk") else ""
    return f"{status}{code}{detail}"
