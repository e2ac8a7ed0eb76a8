"""The part of this machine's pip configuration that reaches a build."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.errors import UsageError
from deploy.images.pip_configuration import read_configuration, render_configuration


def options(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_local_sources_are_left_out(tmp_path: Path):
    listing = "\n".join(
        [
            "global.extra-index-url='file:///srv/simple https://mirror.test/simple'",
            "global.find-links='/srv/wheels\\nhttps://mirror.test/wheels'",
            "global.index-url='/srv/local'",
        ]
    )
    assert options(render_configuration(listing).text) == {
        "global": {
            "extra-index-url": "https://mirror.test/simple",
            "find-links": "https://mirror.test/wheels",
        }
    }


def test_variable_overrides_every_section():
    listing = "\n".join(
        [
            ":env:.index-url='https://from-variable.test/simple'",
            "global.index-url='https://from-global.test/simple'",
            "install.index-url='https://from-install.test/simple'",
            "install.trusted-host='a.test b.test'",
        ]
    )
    assert options(render_configuration(listing).text) == {
        "global": {"index-url": "https://from-variable.test/simple"},
        "install": {"trusted-host": "a.test\nb.test"},
    }


def test_install_location_options_are_left_out():
    listing = "global.target='/srv/site'\nglobal.user='true'\nglobal.timeout='60'\nlist.format='x'"
    assert options(render_configuration(listing).text) == {"global": {"timeout": "60"}}


def test_pip_certificates_override_ssl_certificates(tmp_path: Path):
    pip, ssl = tmp_path / "pip.pem", tmp_path / "ssl.pem"
    pip.touch()
    ssl.touch()

    own = render_configuration(f"global.cert='{pip}'", str(ssl))
    general = render_configuration("", str(ssl))

    assert (own.bundle, general.bundle) == (pip, ssl)
    assert options(general.text) == {"global": {"cert": "/run/secrets/ca_bundle"}}
    assert str(tmp_path) not in own.text + general.text


def test_missing_certificate_bundle_is_named(tmp_path: Path):
    with pytest.raises(UsageError, match=f"the CA bundle {tmp_path}/none.pem"):
        render_configuration("", f"{tmp_path}/none.pem")


@pytest.mark.parametrize(
    ("line", "loopback"),
    [
        ("global.index-url='http://user:pw@127.0.0.1:3141/simple'", True),
        ("global.proxy='http://localhost:8080'", True),
        ("global.index-url='https://mirror.test/simple'", False),
    ],
)
def test_loopback_server_is_recognised(line: str, loopback: bool):
    assert render_configuration(line).loopback is loopback


def test_pip_reads_the_rendered_configuration(tmp_path: Path):
    source = tmp_path / "pip.conf"
    source.write_text(
        "[global]\nindex-url = https://user:p%40ss@mirror.test/simple\n"
        "extra-index-url =\n    https://one.test/simple\n    https://two.test/simple\n"
    )
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "SSL_"))}
    environ |= {"PIP_CONFIG_FILE": str(source), "PIP_RETRIES": "7"}

    first = read_configuration(environ)
    rendered = tmp_path / "rendered.conf"
    rendered.write_text(first.text)
    again = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        env=environ | {"PIP_CONFIG_FILE": str(rendered)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout

    assert "global.index-url='https://user:p%40ss@mirror.test/simple'\n" in again
    assert "https://one.test/simple\\nhttps://two.test/simple'\n" in again
    assert "global.retries='7'\n" in again
