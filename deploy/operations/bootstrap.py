"""`invoke host.bootstrap` and `host.check`: prepare Debian or Ubuntu hosts for deploys."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.environment.model import HostConfig, load_environment
from deploy.errors import CommandFailed, UsageError
from deploy.hosts.connect import connect
from deploy.operations.host_session import open_session
from deploy.planning import preflight

if TYPE_CHECKING:
    from deploy.environment.model import Environment
    from deploy.events import Events

# $1 deploy user, $2 folder of the environment, $3 public key that may log in (may be empty).
# Every line is idempotent.
_SCRIPT = r"""
set -eu
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
say() { printf '%s\n' "$*"; }
fail() { status=$1; shift; printf '%s\n' "$*" >&2; exit "$status"; }
if ! command -v dockerd >/dev/null 2>&1; then
  command -v apt-get >/dev/null || fail 65 'no Docker and no apt-get: not Debian or Ubuntu'
  say 'installing docker.io'
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends docker.io iptables ca-certificates >/dev/null
fi
if [ ! -e /etc/docker/daemon.json ]; then
  say 'writing /etc/docker/daemon.json: containers survive a restart of the engine'
  mkdir -p /etc/docker
  printf '{"live-restore": true}\n' >/etc/docker/daemon.json
  if [ -d /run/systemd/system ]; then systemctl restart docker; fi
fi
if [ -d /run/systemd/system ]; then systemctl enable --now docker >/dev/null 2>&1; fi
docker version >/dev/null 2>&1 || fail 69 'the Docker Engine does not answer on this host'
if ! id "$1" >/dev/null 2>&1; then
  say "creating the user $1"
  useradd --create-home --shell /bin/sh "$1"
fi
if ! id -nG "$1" | tr ' ' '\n' | grep -qx docker; then
  say "adding $1 to the group docker"
  usermod -aG docker "$1"
fi
if [ -n "$3" ]; then
  keys=$(getent passwd "$1" | cut -d: -f6)/.ssh/authorized_keys
  install -d -m 700 -o "$1" -g "$(id -gn "$1")" "${keys%/*}"
  touch "$keys"
  if ! grep -qxF "$3" "$keys"; then
    say "adding the public key for $1"
    printf '%s\n' "$3" >>"$keys"
  fi
  chown "$1:$(id -gn "$1")" "$keys"
  chmod 600 "$keys"
fi
install -d -m 755 "$(dirname "$2")"
install -d -m 700 -o "$1" -g "$(id -gn "$1")" "$2"
say ready
"""


def bootstrap_hosts(
    name: str, events: Events, *, login: str = "root", key: str = "", hosts: Sequence[str] = ()
) -> None:
    """Prepare every host of an environment for deploys. Idempotent.

    Logs in as `login`, which must be root or have sudo without a password. Installs the Docker
    Engine if a host has none, creates the deploy user with access to the engine, and creates the
    environment's folder. `key` is the file of the public key that may log in as the deploy user
    (default: the public key of the host's `identity_file`). Then checks the hosts.
    """
    environment = load_environment(name, hosts=hosts)
    for config in environment.hosts:
        if config.connection == "local":
            continue
        _prepare(environment, config, events, login, _public_key(config, key))
    check_hosts(name, events, hosts=hosts)


def check_hosts(name: str, events: Events, *, hosts: Sequence[str] = ()) -> None:
    """Run the preflight checks of a deploy on every host; raise one error with all problems."""
    environment = load_environment(name, hosts=hosts)
    with open_session(environment, events) as session:
        session.require_all()
        facts = session.facts()
        preflight.check(environment, facts, (environment.image.platform,), 0)
        session.run_on(
            list(session.hosts.values()),
            lambda host: host.run(
                ("sh", "-c", 'mkdir -p "$1" && test -w "$1"', "check", environment.folder)
            ),
        )
    for host in facts.hosts.values():
        text = (
            f"ready: Docker {host.engine}, {host.architecture}, {host.disk_free / 1e9:.0f} GB free"
        )
        events.emit("note", text, host=host.name)


def _prepare(
    environment: Environment, config: HostConfig, events: Events, login: str, key: str
) -> None:
    host = connect(config.model_copy(update={"user": login}), environment.timeouts)
    try:
        script = ("sh", "-c", _SCRIPT, "bootstrap", config.user, environment.folder, key)
        argv = script if login == "root" else ("sudo", "-n", *script)
        for line in host.run(argv, timeout=900).text.splitlines():
            events.emit("note", line, host=config.name)
    except CommandFailed as error:
        raise UsageError(
            f"cannot prepare {config.name}: {error.message}",
            hint="the user of --login must be root, or have sudo without a password",
            host=config.name,
        ) from error
    finally:
        host.close()


def _public_key(config: HostConfig, given: str) -> str:
    """The line for `authorized_keys`, from the file `given` or of the host's `identity_file`.

    Empty if there is neither. Raises `UsageError` if the file is not a public key.
    """
    if not given and not config.identity_file:
        return ""
    path = Path(given or f"{config.identity_file}.pub").expanduser()
    try:
        if not given and not path.exists():
            return _public_half(path.with_suffix(""))
        text = path.read_text().strip()
    except OSError as error:
        raise UsageError(
            f"{config.name}: cannot read the public key {path}: {error.strerror}",
            hint="name the public key with --key=FILE.pub",
            host=config.name,
        ) from None
    if "PRIVATE KEY" in text or len(text.splitlines()) != 1:
        raise UsageError(
            f"{path} is not a public key", hint="name a file with one line: --key=FILE.pub"
        )
    return text


def _public_half(identity: Path) -> str:
    import paramiko

    try:
        key = paramiko.PKey.from_path(identity)
    except (paramiko.SSHException, TypeError, ValueError) as error:
        raise UsageError(
            f"cannot read the public key of {identity}: {error}",
            hint="name the public key with --key=FILE.pub",
        ) from None
    return f"{key.get_name()} {key.get_base64()}"
