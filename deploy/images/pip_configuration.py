"""The configuration with which an image's build installs packages as this machine does: pip's
effective configuration and the certificate authorities, passed as BuildKit secrets."""

from __future__ import annotations

import ast
import configparser
import io
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from deploy.errors import UsageError

BUNDLE_IN_BUILD = "/run/secrets/ca_bundle"
"""The path at which BuildKit mounts the secret `ca_bundle` by default."""

# Options with one or more URLs each. Only URLs that a build can reach are kept.
_PLACES = ("index-url", "extra-index-url", "find-links")
# Other options for finding and downloading packages. Options about install paths and logs apply to
# this machine only.
_KEPT = (
    *_PLACES,
    *("trusted-host", "proxy", "timeout", "default-timeout", "retries"),
    *("prefer-binary", "only-binary", "no-binary"),
)


@dataclass(frozen=True)
class PipConfiguration:
    """A `pip.conf` for the build, the CA bundle that it names (on this machine), and whether it
    names a server on this machine's loopback interface."""

    text: str
    bundle: Path | None
    loopback: bool


def read_configuration(environ: Mapping[str, str]) -> PipConfiguration:
    """Read pip's effective configuration, including `PIP_*` of `environ`.

    Raises `UsageError` if the CA bundle that it names cannot be read.
    """
    argv = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(argv, env=dict(environ), capture_output=True, text=True)
    if done.returncode != 0:
        raise UsageError(f"pip cannot read its configuration:\n{done.stderr.strip()}")
    return render_configuration(done.stdout, environ.get("SSL_CERT_FILE", ""))


def render_configuration(listing: str, ssl_cert_file: str = "") -> PipConfiguration:
    """Convert the output of `pip config list` to a `pip.conf`.

    As in pip, a variable overrides every section, and a command's section overrides `global`. Local
    folders and files are omitted: the build cannot see them.
    """
    sections: dict[str, dict[str, str]] = {}
    variables: dict[str, str] = {}
    bundle = ssl_cert_file
    for line in listing.splitlines():
        key, _, literal = line.partition("=")
        section, _, option = key.rpartition(".")
        value = str(ast.literal_eval(literal))
        if option == "cert":
            bundle = value
        elif option in _KEPT:
            target = variables if section == ":env:" else sections.setdefault(section, {})
            target[option] = value
    for options in sections.values():
        for option in variables:
            options.pop(option, None)
    sections.setdefault("global", {}).update(variables)
    return _render(sections, bundle)


def _render(sections: Mapping[str, Mapping[str, str]], bundle: str) -> PipConfiguration:
    parser = configparser.RawConfigParser()
    hosts: set[str | None] = set()
    for section, options in sorted(sections.items()):
        if section not in ("global", "install"):
            continue
        parser.add_section(section)
        for option, value in sorted(options.items()):
            words = value.split()
            if option in _PLACES:
                words = [word for word in words if _is_remote(word)]
            if option in (*_PLACES, "proxy"):
                hosts.update(urlsplit(word).hostname for word in words)
            if words:
                parser.set(section, option, "\n".join(words))
    if bundle:
        if not Path(bundle).is_file():
            hint = "SSL_CERT_FILE, PIP_CERT or pip's own configuration (`pip config list`) names it"
            raise UsageError(f"the CA bundle {bundle} does not exist", hint=hint)
        parser.set("global", "cert", BUNDLE_IN_BUILD)
    text = io.StringIO()
    parser.write(text)
    loopback = bool(hosts & {"localhost", "127.0.0.1", "::1"})
    return PipConfiguration(text.getvalue(), Path(bundle) if bundle else None, loopback)


def _is_remote(place: str) -> bool:
    return urlsplit(place).scheme in ("http", "https")
