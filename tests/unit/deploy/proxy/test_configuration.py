"""The rendered configuration, without HAProxy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deploy.environment.model import load_environment
from deploy.proxy.configuration import hash_configuration, read_weights, render, with_weights
from deploy.proxy.container import make_config, make_specification
from deploy.proxy.settings import ProxySettings, read_settings
from deploy.state.facts import Weights

FILE = """
domain: api.example.org
hosts: [{name: here, connection: local}]
network: {subnet: 172.29.10.0/24}
"""


@pytest.fixture
def plain(tmp_path: Path) -> ProxySettings:
    """The settings of an environment that states only the required keys."""
    (tmp_path / "test.yml").write_text(FILE)
    return read_settings(load_environment("test", folder=tmp_path, placeholders=True))


@pytest.fixture
def secure(plain: ProxySettings) -> ProxySettings:
    return replace(plain, https_port=443, certificate="/etc/ssl/api/chain.pem")


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("weights", "blue", "green"),
    [
        ({"blue": 100}, " weight 100", " weight 0 disabled"),
        ({"green": 100}, " weight 0 disabled", " weight 100"),
        ({}, " weight 0 disabled", " weight 0 disabled"),
        ({"blue": 95, "green": 5}, " weight 95", " weight 5"),
    ],
)
def test_only_slots_with_a_weight_are_enabled(
    plain: ProxySettings, weights: Weights, blue: str, green: str
) -> None:
    text = render(plain, weights)

    assert f"server blue 172.29.10.11:8000{blue}" in lines(text)
    assert f"server green 172.29.10.12:8000{green}" in lines(text)
    assert read_weights(text) == weights


@pytest.mark.parametrize("before", [{"blue": 100}, {"blue": 95, "green": 5}, {}])
@pytest.mark.parametrize("after", [{"green": 100}, {"blue": 95, "green": 5}, {}])
def test_changing_the_weights_equals_rendering_with_them(
    plain: ProxySettings, before: Weights, after: Weights
) -> None:
    assert with_weights(render(plain, before), after) == render(plain, after)


def test_a_file_from_before_weights_were_written_is_read_and_changed() -> None:
    old = "    server blue 172.29.10.11:8000\n    server green 172.29.10.12:8000 disabled\n"

    assert read_weights(old) == {"blue": 100}
    assert read_weights(with_weights(old, {"green": 100})) == {"green": 100}


def test_a_text_without_servers_has_no_weights() -> None:
    assert read_weights("") == {}


def test_loaded_configuration_contains_its_digest(plain: ProxySettings) -> None:
    assert f'description "{hash_configuration(plain)}"' in lines(render(plain, {"blue": 100}))


def changed(settings: ProxySettings, name: str, **values: object) -> ProxySettings:
    """The settings with other values in one of their sections."""
    return replace(settings, **{name: getattr(settings, name).model_copy(update=values)})


@pytest.mark.parametrize(
    "change",
    [
        lambda plain: changed(plain, "timeouts", server=7.0),
        lambda plain: changed(plain, "health", path="/ready"),
        lambda plain: replace(plain, max_connections=7),
        lambda plain: replace(plain, check_host="other.example.org"),
        lambda plain: replace(plain, slot_addresses={"blue": "10.0.0.1", "green": "10.0.0.2"}),
    ],
)
def test_any_changed_setting_changes_the_digest(
    plain: ProxySettings, change: Callable[[ProxySettings], ProxySettings]
) -> None:
    other = change(plain)

    assert hash_configuration(other) != hash_configuration(plain)
    assert make_config(other) != make_config(plain)


@pytest.mark.parametrize("change", [{"http_port": 81}, {"image": "haproxy:3.2"}, {"bind": "::1"}])
def test_settings_that_need_a_new_container_change_its_specification(
    plain: ProxySettings, change: dict[str, Any]
) -> None:
    other = replace(plain, **change)

    assert (
        make_specification(other).labels["amani.config"]
        != make_specification(plain).labels["amani.config"]
    )


def test_reloadable_setting_keeps_the_container(plain: ProxySettings) -> None:
    assert make_specification(changed(plain, "timeouts", client=7.0)) == make_specification(plain)


def test_times_are_rendered_in_milliseconds(plain: ProxySettings) -> None:
    settings = changed(plain, "timeouts", connect=0.25)

    text = render(changed(settings, "health", interval=1.5, timeout=0.75), {})

    assert "timeout connect 250ms" in lines(text)
    assert "timeout check 750ms" in lines(text)
    assert "default-server inter 1500ms downinter 100ms" in lines(text)


def test_tls_serves_on_its_own_port_and_redirects_there(secure: ProxySettings) -> None:
    text = render(secure, {"blue": 100})

    assert "bind :8443 ssl crt /etc/amani-certificates/chain.pem alpn h2,http/1.1" in lines(text)
    assert "http-request set-header X-Forwarded-Proto https" in lines(text)
    assert "https://%[req.hdr(Host),regsub(:[0-9]+$,)]%[pathq]" in text
    assert "Strict-Transport-Security" in text
    odd = render(replace(secure, https_port=8443), {"blue": 100})
    assert "https://%[req.hdr(Host),regsub(:[0-9]+$,)]:8443%[pathq]" in odd


def test_plain_http_sends_no_hsts(plain: ProxySettings) -> None:
    assert "Strict-Transport-Security" not in render(plain, {"blue": 100})
    assert "X-Forwarded-Proto http" in render(plain, {"blue": 100})


def test_requests_possibly_received_are_never_retried(plain: ProxySettings) -> None:
    text = render(plain, {"blue": 100})

    assert re.findall(r"retry-on (.*)", text) == ["conn-failure"]
    assert re.findall(r"http-reuse (.*)", text) == ["safe"]


def test_container_has_minimal_privileges(secure: ProxySettings) -> None:
    spec = make_specification(secure)

    assert spec.read_only and spec.drop_capabilities and spec.no_new_privileges
    assert set(spec.capabilities) == {"DAC_OVERRIDE", "SETGID", "SETUID"}
    assert all(mount.read_only for mount in spec.mounts)
    assert {mount.source for mount in spec.mounts} == {"/var/lib/amani/test/proxy", "/etc/ssl/api"}
    assert spec.ports == {8080: ("0.0.0.0", 80), 8443: ("0.0.0.0", 443)}
