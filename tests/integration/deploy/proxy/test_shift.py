"""Moving traffic between the slots of a real HAProxy."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from deploy import proxy
from deploy.errors import DeployError
from deploy.state.facts import Slot, other
from tests.support.proxy_stand import Answer, Stand, eventually
from workshop.bench.load_run import load

pytestmark = pytest.mark.engine


def test_without_a_live_slot_every_request_gets_503_as_problem_json(stand: Stand) -> None:
    answer = stand.ask()

    assert answer.status == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"


def test_a_shift_under_load_loses_no_request(stand: Stand) -> None:
    stand.serve_from("blue")
    live: Slot = "blue"

    with load(stand.profile) as running:
        for _ in range(4):
            idle = other(live)
            name = stand.boot(idle)
            assert proxy.wait_until_up(stand.engine, stand.proxy, idle, 20, fresh=True).up
            proxy.shift(stand.host, stand.environment, idle)
            assert proxy.wait_drained(stand.engine, stand.proxy, live, 10) == 0
            proxy.set_state(stand.engine, stand.proxy, live, "maint")
            stand.engine.stop(name.replace(idle, live), 5)
            live = idle

    assert running.records.failures == {}
    assert len(running.records.starts) > 300
    assert max(running.records.latencies) >= 2, "the slow requests were not among them"


def test_a_slot_whose_check_fails_gets_no_traffic(stand: Stand) -> None:
    stand.serve_from("blue")
    name = stand.boot("green")
    stand.engine.run_in(name, ["touch", "/tmp/unready"])

    seen = proxy.wait_until_up(stand.engine, stand.proxy, "green", 1.5, fresh=True)

    assert not seen.up

    def told() -> bool:
        now = proxy.read_servers(stand.engine, stand.proxy)["green"]
        assert not now.up
        return now.check.startswith("L7STS/503")

    eventually(told)  # there is no code to tell while the next check is under way
    with pytest.raises(proxy.ProxyError, match="green is not up"):
        proxy.shift(stand.host, stand.environment, "green")
    assert {stand.ask().slot for _ in range(8)} == {"blue"}

    stand.engine.run_in(name, ["rm", "/tmp/unready"])
    assert proxy.wait_until_up(stand.engine, stand.proxy, "green", 10).up


def test_a_slot_that_was_up_before_is_checked_again(stand: Stand) -> None:
    stand.serve_from("blue")
    stand.serve_from("green")
    stand.engine.run_in(stand.boot("blue"), ["touch", "/tmp/unready"])

    assert not proxy.wait_until_up(stand.engine, stand.proxy, "blue", 0.5, fresh=True).up


def test_a_standby_is_checked_continuously_and_can_serve_again(stand: Stand) -> None:
    stand.serve_from("blue")
    name = stand.boot("green")
    assert proxy.wait_until_up(stand.engine, stand.proxy, "green", 20, fresh=True).up
    assert proxy.is_ready(stand.host, stand.environment, "green")

    stand.engine.run_in(name, ["touch", "/tmp/unready"])
    assert proxy.read_servers(stand.engine, stand.proxy)["green"].up, "not yet noticed"
    assert not proxy.is_ready(stand.host, stand.environment, "green")

    stand.engine.stop(name, 1)
    assert not proxy.is_ready(stand.host, stand.environment, "green")
    eventually(lambda: not proxy.read_servers(stand.engine, stand.proxy)["green"].up)
    assert stand.ask().slot == "blue"


def test_a_slot_without_a_listener_is_reported(stand: Stand) -> None:
    stand.serve_from("blue")

    seen = proxy.wait_until_up(stand.engine, stand.proxy, "green", 3, fresh=True)

    assert not seen.up
    assert seen.check.startswith("L4")


def test_draining_waits_for_a_slow_request_but_not_for_idle_connections(stand: Stand) -> None:
    stand.serve_from("blue")
    stand.ask()
    assert proxy.wait_drained(stand.engine, stand.proxy, "blue", 5) == 0
    with ThreadPoolExecutor() as pool:
        slow = shift_in_the_middle_of_a_request(stand, pool)

        assert proxy.wait_drained(stand.engine, stand.proxy, "blue", 0) == 1
        assert stand.ask().slot == "green"
        assert proxy.wait_drained(stand.engine, stand.proxy, "blue", 10) == 0

        assert slow.result().slot == "blue"


def test_a_slot_in_maintenance_completes_its_last_request(stand: Stand) -> None:
    stand.serve_from("blue")
    with ThreadPoolExecutor() as pool:
        slow = shift_in_the_middle_of_a_request(stand, pool)

        proxy.set_state(stand.engine, stand.proxy, "blue", "maint")

        assert proxy.read_servers(stand.engine, stand.proxy)["blue"].state == "maint"
        assert slow.result().slot == "blue"


def shift_in_the_middle_of_a_request(stand: Stand, pool: ThreadPoolExecutor) -> Future[Answer]:
    """Shift from blue to green while blue works on a request of five seconds."""
    stand.boot("green")
    assert proxy.wait_until_up(stand.engine, stand.proxy, "green", 20, fresh=True).up
    slow = pool.submit(stand.ask, "/api/v1/ping?delay_ms=5000")
    eventually(lambda: proxy.read_servers(stand.engine, stand.proxy)["blue"].sessions == 1)
    proxy.shift(stand.host, stand.environment, "green")
    return slow


@pytest.mark.parametrize("state", ["drain", "maint"])
def test_the_only_serving_slot_cannot_be_taken_out(stand: Stand, state: str) -> None:
    stand.serve_from("blue")

    with pytest.raises(proxy.ProxyError, match="blue is the only slot that serves"):
        proxy.set_state(stand.engine, stand.proxy, "blue", state)  # type: ignore[arg-type]

    assert stand.ask().slot == "blue"


def test_recorded_weights_apply_after_a_restart_until_a_shift_resets_them(
    stand: Stand,
) -> None:
    stand.serve_from("blue")
    stand.boot("green")
    proxy.record_weights(stand.host, stand.environment, {"blue": 95, "green": 5})
    facts, settled = proxy.read_facts(stand.host, stand.environment)
    assert settled and facts.recorded == "blue"
    assert facts.servers["green"].state == "maint", "the running proxy must not change"
    stand.engine.stop(stand.proxy, 1)
    stand.engine.start(stand.proxy)
    eventually(lambda: _weights(stand) == {"blue": 95, "green": 5})

    slots = [stand.ask().slot for _ in range(100)]
    assert 1 <= slots.count("green") <= 15

    proxy.shift(stand.host, stand.environment, "green")
    servers = proxy.read_servers(stand.engine, stand.proxy)
    assert (servers["green"].state, servers["green"].weight) == ("ready", 100)
    assert servers["blue"].state == "drain"


def _weights(stand: Stand) -> dict[str, int]:
    try:
        servers = proxy.read_servers(stand.engine, stand.proxy)
    except DeployError:
        return {}
    return {slot: server.weight for slot, server in servers.items() if server.state == "ready"}


def test_closing_stops_all_traffic_also_after_a_restart(stand: Stand) -> None:
    stand.serve_from("blue")

    proxy.close(stand.host, stand.environment)

    assert stand.ask().status == 503
    facts, _ = proxy.read_facts(stand.host, stand.environment)
    assert facts.recorded is None
    assert {server.state for server in facts.servers.values()} == {"maint"}
