"""The rendered configuration, without HAProxy."""

from __future__ import annotations

import dataclasses
import re

import pytest

from deploy.proxy.configuration import digest, read_live, render, with_live
from deploy.proxy.container import specification, wanted
from deploy.proxy.settings import Health, ProxySettings, Timeouts
from deploy.state.facts import Slot

PLAIN = ProxySettings(
    name="amani-test-proxy",
    directory="/var/lib/amani/test",
    network="amani-test",
    subnet="172.29.10.0/24",
)
TLS = dataclasses.replace(PLAIN, https_port=443, certificate="/etc/ssl/api/chain.pem")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("live", "blue", "green"),
    [
        ("blue", "", " disabled"),
        ("green", " disabled", ""),
        (None, " disabled", " disabled"),
    ],
)
def test_only_the_live_slot_is_enabled(live: Slot | None, blue: str, green: str) -> None:
    text = render(PLAIN, live)

    assert f"server blue 172.29.10.11:8000{blue}" in lines(text)
    assert f"server green 172.29.10.12:8000{green}" in lines(text)
    assert read_live(text) == live


@pytest.mark.parametrize("before", ["blue", "green", None])
@pytest.mark.parametrize("after", ["blue", "green", None])
def test_switching_the_slot_equals_rendering_with_it(
    before: Slot | None, after: Slot | None
) -> None:
    assert with_live(render(PLAIN, before), after) == render(PLAIN, after)


def test_configuration_without_slot_has_no_live_slot() -> None:
    assert read_live("") is None


def test_loaded_configuration_contains_its_digest() -> None:
    assert f'description "{digest(PLAIN)}"' in lines(render(PLAIN, "blue"))


@pytest.mark.parametrize(
    "change",
    [
        {"timeouts": Timeouts(server=7)},
        {"health": Health(path="/ready")},
        {"public": ("/v2/",)},
        {"max_connections": 7},
        {"subnet": "172.29.11.0/24"},
    ],
)
def test_any_changed_setting_changes_the_digest(change: dict[str, object]) -> None:
    changed = dataclasses.replace(PLAIN, **change)  # type: ignore[arg-type]

    assert digest(changed) != digest(PLAIN)
    assert wanted(changed) != wanted(PLAIN)


@pytest.mark.parametrize("change", [{"http_port": 81}, {"image": "haproxy:3.2"}, {"bind": "::1"}])
def test_settings_that_need_a_new_container_change_its_specification(
    change: dict[str, object],
) -> None:
    changed = dataclasses.replace(PLAIN, **change)  # type: ignore[arg-type]

    assert (
        specification(changed).labels["amani.config"] != specification(PLAIN).labels["amani.config"]
    )


def test_reloadable_setting_keeps_the_container() -> None:
    changed = dataclasses.replace(PLAIN, timeouts=Timeouts(client=7))

    assert specification(changed) == specification(PLAIN)


def test_times_are_rendered_in_milliseconds() -> None:
    settings = dataclasses.replace(
        PLAIN, timeouts=Timeouts(connect=0.25), health=Health(interval=1.5, timeout=0.75)
    )

    text = render(settings, None)

    assert "timeout connect 250ms" in lines(text)
    assert "timeout check 750ms" in lines(text)
    assert "default-server inter 1500ms downinter 100ms" in lines(text)


def test_tls_serves_on_its_own_port_and_redirects_there() -> None:
    text = render(TLS, "blue")

    assert "bind :8443 ssl crt /etc/amani-certificates/chain.pem alpn h2,http/1.1" in lines(text)
    assert "http-request set-header X-Forwarded-Proto https" in lines(text)
    assert "https://%[req.hdr(Host),regsub(:[0-9]+$,)]%[pathq]" in text
    assert "Strict-Transport-Security" in text
    odd = render(dataclasses.replace(TLS, https_port=8443), "blue")
    assert "https://%[req.hdr(Host),regsub(:[0-9]+$,)]:8443%[pathq]" in odd


def test_plain_http_sends_no_hsts() -> None:
    assert "Strict-Transport-Security" not in render(PLAIN, "blue")
    assert "X-Forwarded-Proto http" in render(PLAIN, "blue")


def test_requests_possibly_received_are_never_retried() -> None:
    text = render(PLAIN, "blue")

    assert re.findall(r"retry-on (.*)", text) == ["conn-failure"]
    assert re.findall(r"http-reuse (.*)", text) == ["safe"]


def test_container_has_minimal_privileges() -> None:
    spec = specification(TLS)

    assert spec.read_only and spec.drop_capabilities and spec.no_new_privileges
    assert set(spec.capabilities) == {"DAC_OVERRIDE", "SETGID", "SETUID"}
    assert all(mount.read_only for mount in spec.mounts)
    assert {mount.source for mount in spec.mounts} == {"/var/lib/amani/test/proxy", "/etc/ssl/api"}
    assert spec.ports == {8080: ("0.0.0.0", 80), 8443: ("0.0.0.0", 443)}
