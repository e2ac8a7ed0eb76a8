"""The connections to the hosts of an environment, and the errors that they combine."""

from __future__ import annotations

import pytest

from deploy.errors import CommandFailed, DeployError, HostUnreachable
from deploy.events import Events
from deploy.operations.host_session import HostSession
from tests.support.planned_world import environment


class NamedHost:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.fixture
def session(tmp_path) -> HostSession:
    hosts = {name: NamedHost(name) for name in ("one", "two")}
    return HostSession(environment(tmp_path), hosts, {}, Events())


def unreachable(name: str, hint: str) -> HostUnreachable:
    return HostUnreachable(f"{name} does not answer", hint=hint, host=name)


def test_without_errors_every_host_counts_as_open(session):
    session.require_all()


@pytest.mark.parametrize("names", [("one",), ("one", "two")])
def test_one_error_names_every_host_and_each_hint_once(session, names):
    failed = {name: unreachable(name, "check the address") for name in names}
    session = HostSession(session.environment, {}, failed, Events())
    with pytest.raises(HostUnreachable) as raised:
        session.require_all()
    assert raised.value.message.startswith("cannot connect to every host; nothing was changed:")
    assert all(f"- {name} does not answer" in raised.value.message for name in names)
    assert (raised.value.hint, raised.value.host) == ("check the address", "one")


def test_an_action_runs_on_every_host_before_its_first_error_is_raised(session):
    done = []

    def act(host: NamedHost) -> None:
        if host.name == "one":
            raise CommandFailed("one", ("true",), 1, "no")
        done.append(host.name)

    with pytest.raises(DeployError, match="one: true ended with status 1"):
        session.run_on(list(session.hosts.values()), act)
    assert done == ["two"]
