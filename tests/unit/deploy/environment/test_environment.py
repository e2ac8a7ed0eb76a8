"""Valid environment files, and the errors of invalid ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.environment.model import Environment, find_environments, load_environment
from deploy.environment.reference import PAGE, update
from deploy.errors import UsageError

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ7dVbJc9lrKXXpRUXzVNZ7lWGKgFLBvL0Sr6ZcPEIBY"
GOOD = f"""\
domain: api.test
network: {{subnet: 172.29.77.0/24}}
image: {{repository: registry.test/app, registries: [registry.test/app]}}
hosts:
  - {{name: web-1, address: 10.0.0.1, host_keys: ["{HOST_KEY}"]}}
  - {{name: web-2, address: 10.0.0.2, host_keys: ["{HOST_KEY}"]}}
  - {{name: web-3, address: 10.0.0.3, host_keys: ["{HOST_KEY}"]}}
  - {{name: jobs, address: 10.0.0.4, host_keys: ["{HOST_KEY}"], roles: [worker]}}
roles:
  worker: {{command: [work]}}
"""
MINIMAL = """\
domain: api.test
network: {subnet: 172.29.77.0/24}
hosts:
  - {name: here, connection: local}
"""


def write(folder: Path, text: str, name: str = "trial") -> Path:
    path = folder / f"{name}.yml"
    path.write_text(text)
    return path


def loaded(folder: Path, text: str = GOOD, **options: object) -> Environment:
    write(folder, text)
    return load_environment("trial", folder=folder, **options)  # type: ignore[arg-type]


def refused(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as caught:
        loaded(folder, text)
    assert caught.value.exit_code == 2
    return caught.value.message.replace(f"{folder}/", "")


@pytest.mark.parametrize("name", ["local", "staging", "production"])
def test_shipped_environments_are_valid(name: str) -> None:
    environment = load_environment(name, placeholders=True)
    assert environment.name == name
    assert environment.hardening.read_only and environment.hardening.drop_capabilities
    assert environment.hosts_with("web")


def test_shipped_environments_share_no_network() -> None:
    names = [n for n, p in find_environments().items() if p.parent.name == "environments"]
    subnets = {load_environment(name, placeholders=True).network.subnet for name in names}
    assert len(subnets) == len(names) == 3


def test_shipped_tags_are_those_of_the_delivery_rules() -> None:
    staging, production = (
        load_environment(n, placeholders=True) for n in ("staging", "production")
    )
    assert {"staging-latest", "staging-{sha}"} <= set(staging.image.tags)
    assert {"latest", "prod-{sha}", "{branch}-{sha}", "{version}"} == set(production.image.tags)
    assert production.protected and not staging.protected


@pytest.mark.parametrize("name", ["staging", "production"])
def test_example_hosts_are_rejected_until_filled_in(name: str) -> None:
    with pytest.raises(
        UsageError, match="is an example; put the host's own address here"
    ) as caught:
        load_environment(name)
    assert f"environments/{name}.yml:" in caught.value.message
    assert "put your own values" in caught.value.hint


def test_host_without_pinned_key_is_rejected_with_command_to_run(tmp_path: Path) -> None:
    text = GOOD.replace(f', host_keys: ["{HOST_KEY}"], roles', ", roles")
    assert "ssh-keyscan -p 22 10.0.0.4" in refused(tmp_path, text)


def test_only_the_selected_hosts_must_be_filled_in(tmp_path: Path) -> None:
    text = GOOD.replace("10.0.0.4", "203.0.113.4")
    assert loaded(tmp_path, text, hosts=["web-*"]).hosts_with("worker") == ()


def test_defaults_are_filled_in(tmp_path: Path) -> None:
    environment = loaded(tmp_path)
    assert environment.directory == environment.folder == "/var/lib/amani/trial"
    assert environment.role("web").resources.pids == 256
    assert environment.health.path == "/api/v1/readiness"
    assert environment.url == "http://api.test"


def test_quantities_are_parsed_with_units(tmp_path: Path) -> None:
    text = GOOD + (
        "timeouts: {boot: 2m, drain: 1500ms, stop: 7}\n"
        "disk_reserve: 1.5GB\n"
        "settings: {WEB_CONCURRENCY: 2}\n"
    )
    environment = loaded(
        tmp_path, text.replace("[work]", "[work], resources: {memory: 512MiB}, stop_timeout: 1m")
    )
    assert environment.timeouts.boot == 120 and environment.timeouts.drain == 1.5
    assert environment.timeouts.stop == 7 and environment.disk_reserve == 1_500_000_000
    assert environment.role("worker").resources.memory == 512 * 2**20
    assert environment.role("worker").stop_timeout == 60
    assert environment.settings == {"WEB_CONCURRENCY": "2"}


def test_places_have_fixed_addresses(tmp_path: Path) -> None:
    environment = loaded(tmp_path)
    addresses = [environment.address_of(place) for place in ("proxy", "blue", "green")]
    assert addresses == ["172.29.77.10", "172.29.77.11", "172.29.77.12"]


@pytest.mark.parametrize(
    ("batch", "sizes"),
    [
        ("1", [1, 1, 1]),
        ("2", [2, 1]),
        ("9", [3]),
        ("1%", [1, 1, 1]),
        ("67%", [2, 1]),
        ("100%", [3]),
    ],
)
def test_hosts_move_in_batches(tmp_path: Path, batch: str, sizes: list[int]) -> None:
    environment = loaded(tmp_path, GOOD + f"batch: {batch}\n")
    batches = environment.batches(environment.hosts_with("web"))
    assert [len(group) for group in batches] == sizes
    assert [host for group in batches for host in group] == list(environment.hosts_with("web"))


@pytest.mark.parametrize(
    ("proxy", "url"),
    [
        ("{http_port: 8080}", "http://api.test:8080"),
        ("{https_port: 443, certificate: /etc/tls/a.pem}", "https://api.test"),
        ("{https_port: 8443, certificate: /etc/tls/a.pem}", "https://api.test:8443"),
    ],
)
def test_public_url_follows_the_proxy(tmp_path: Path, proxy: str, url: str) -> None:
    assert loaded(tmp_path, GOOD + f"proxy: {proxy}\n").url == url


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (["web-2"], ["web-2"]),
        (["jobs,web-1"], ["web-1", "jobs"]),
        (["web-*"], ["web-1", "web-2", "web-3"]),
        ([], ["web-1", "web-2", "web-3", "jobs"]),
    ],
)
def test_hosts_can_be_selected(tmp_path: Path, asked: list[str], names: list[str]) -> None:
    environment = loaded(tmp_path, hosts=asked)
    assert [host.name for host in environment.hosts] == names
    assert environment.lock_host.name == "web-1"


def test_unknown_host_is_reported_with_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no host 'wep-1' .did you mean \"web-1\"") as caught:
        loaded(tmp_path, hosts=["wep-1"])
    assert "web-1, web-2, web-3, jobs" in caught.value.hint


def test_unknown_environment_is_reported_with_known_ones() -> None:
    with pytest.raises(UsageError, match='"production"') as caught:
        load_environment("prodution")
    assert "local, production, staging" in caught.value.hint


@pytest.mark.parametrize("name", ["../local", "/etc/passwd", ""])
def test_environment_name_cannot_be_a_path(name: str) -> None:
    with pytest.raises(UsageError, match="there is no environment"):
        load_environment(name)


def test_own_folder_has_priority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, MINIMAL, "local")
    monkeypatch.setenv("AMANI_ENVIRONMENTS", str(tmp_path))
    assert load_environment("local").domain == "api.test"
    assert load_environment("staging", placeholders=True).domain == "staging-api.amani.com"


def test_home_is_resolved_for_local_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    environment = loaded(tmp_path, MINIMAL + "directory: ~/amani\n")
    assert environment.folder == "/home/ada/amani"


WRONG: dict[str, tuple[str, str]] = {
    "misspelt key": ("domian: x\n", '11:1: domian: unknown key (did you mean "domain"?)'),
    "misspelt nested key": (
        "proxy: {htp_port: 1}\n",
        'proxy.htp_port: unknown key (did you mean "http_port"?); allowed: bind, certificate, ',
    ),
    "misspelt role": (
        "smoke: {resolve: hots}\n",
        "11:9: smoke.resolve: must be one of: host, dns (did you mean \"host\"?), found 'hots'",
    ),
    "key twice": ("batch: 1\nbatch: 2\n", "12:1: batch: is a duplicate key (first in line 11)"),
    "nested key twice": ("proxy: {bind: x, bind: y}\n", "11:18: proxy.bind: is a duplicate key"),
    "number for text": ("settings: {A: 1.10}\n", "settings.A: must be text (put it in quotes)"),
    "text for number": ("proxy: {http_port: '80'}\n", "must be a whole number, found '80'"),
    "truth for number": ("proxy: {http_port: yes}\n", "must be a whole number, found true"),
    "port out of range": ("health: {port: 70000}\n", "must be at most 65535, found 70000"),
    "nothing": ("proxy:\n", "11:1: proxy: must be keys with values, found nothing"),
    "list for keys": ("proxy: [1]\n", "proxy: must be keys with values, found a list"),
    "unit unknown": ("timeouts: {boot: 3 weeks}\n", "must be a duration such as 30s, 2m or 1h"),
    "size unknown": ("disk_reserve: lots\n", "must be a size such as 512MB, 1.5GB or 512MiB"),
    "share beyond all": ('batch: "101%"\n', "must be a number of hosts such as 1, or a share"),
    "batch of none": ("batch: 0\n", "batch: must be a number of hosts"),
    "certificate without port": (
        "proxy: {certificate: /a.pem}\n",
        "`https_port` and `certificate` belong together",
    ),
    "relative certificate": (
        "proxy: {https_port: 1, certificate: a.pem}\n",
        "must be an absolute path, found 'a.pem'",
    ),
    "home on a remote host": ("directory: ~/x\n", "`directory` may start with ~ only if"),
    "secret in clear": (
        "settings: {FINCRA_API_SECRET: sk_live_1}\n",
        "FINCRA_API_SECRET looks like a secret",
    ),
    "password in a URL": (
        "settings: {DATABASE_URL: 'postgresql://a:hunter2@db/x'}\n",
        "DATABASE_URL looks like a secret",
    ),
    "secret and setting": (
        "settings: {A: x}\nsecrets: [A]\n",
        "A is in `settings` and is a secret",
    ),
    "required and optional": (
        "secrets: [A]\noptional_secrets: [A]\n",
        "A is in `secrets` and in `optional_secrets`",
    ),
    "role nobody knows": (
        "hosts: [{name: a, connection: local, roles: [db]}]\n",
        "is a duplicate key",
    ),
    "wrong name": ("name: other\n", "11:1: name: must be 'trial', the file's name"),
    "syntax": ("proxy: {\n", "not valid YAML: "),
    "unknown tag": ("proxy: !!python/object:os.system {}\n", "has an unsupported YAML tag"),
    "merge key": ("proxy: {<<: {bind: y}}\n", "a key must be plain text"),
    "self-reference": ("proxy: &a {bind: *a}\n", "proxy.bind: refers to itself"),
    "pointer": ("migrations: {schema_path: checks}\n", "must be a JSON pointer"),
    "no date": (
        "settings: {A: 2024-99-99}\n",
        "settings.A: '2024-99-99' is not valid: put text in quotes",
    ),
    "date for text": ("settings: {A: 2024-01-01}\n", "settings.A: must be text"),
}


@pytest.mark.parametrize("case", WRONG, ids=[name.replace(" ", "-") for name in WRONG])
def test_invalid_files_are_reported_by_line_and_key(tmp_path: Path, case: str) -> None:
    addition, expected = WRONG[case]
    message = refused(tmp_path, GOOD + addition)
    assert message.startswith("trial.yml:1")
    assert expected in message


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("domain: api.test\n", "", "1:1: domain: is missing"),
        ("name: web-2", "name: web-1", "4:1: hosts: two hosts are named 'web-1'"),
        ("name: web-2", "name: Web_2", "6:6: hosts[1].name: must be lower-case letters"),
        ("address: 10.0.0.2, ", "", "hosts[1]: `connection: ssh` needs an `address`"),
        (
            "roles: [worker]",
            "roles: [wroker]",
            "hosts[3].roles[0]: must be one of: web, worker (did",
        ),
        ("roles: [worker]", "roles: []", "hosts[3].roles: must name at least one"),
        ("roles:\n  worker: {command: [work]}\n", "", "host jobs has the role worker, but"),
        ("worker: {command", "wroker: {command", "10:3: roles.wroker: must be one of: web, worker"),
        ("172.29.77.0/24", "172.29.77.5/24", 'must be an IPv4 network such as "172.29.10.0/24"'),
        ("172.29.77.0/24", "8.8.8.0/24", "must be a private network"),
        ("172.29.77.0/24", "172.29.77.0/29", "must be a private network with room"),
        ("ssh-ed25519 ", "ssh-rsa ", 'must be a public host key such as "ssh-ed25519 AAAA..."'),
        (", registries: [registry.test/app]", "", "hosts reached by SSH pull the image"),
        ("registries: [registry.test/app]", "registries: [b.test/app]", "must be `repository`"),
        ("repository: registry.test/app", "repository: 'Reg/App:1'", "image.repository: must"),
        ("{repository", "{tags: ['{shaa}'], repository", "names {shaa}; allowed: {sha}"),
        ("{repository", "{tags: ['a b'], repository", "is not an image tag"),
        (
            "{repository",
            "{credentials: {c.test: {username: A, password: B}}, repository",
            "`credentials` are given for c.test, which is not in `registries`",
        ),
    ],
)
def test_invalid_values_are_reported(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert expected in refused(tmp_path, GOOD.replace(old, new, 1 if old != "ssh-ed25519 " else -1))


def test_all_mistakes_are_reported_at_once(tmp_path: Path) -> None:
    message = refused(tmp_path, GOOD + "batch: 0\nproxy: {http_port: x, bind: y}\nretention: 3\n")
    assert [line.split(": ")[1] for line in message.splitlines()] == [
        "batch",
        "proxy.http_port",
        "proxy.bind",
        "retention",
    ]


@pytest.mark.parametrize(
    "text",
    [
        "settings: {FINCRA_API_KEY: tell-nobody}\n",
        "settings: {FINCRA_API_KEY: [tell-nobody]}\n",
        "settings: {DATABASE_URL: 'postgresql://a:tell-nobody@db/x'}\n",
        "secrets: tell-nobody\n",
        "secrets: {DATABASE_URL: tell-nobody}\n",
        "proxy: {password: tell-nobody}\n",
    ],
)
def test_errors_do_not_quote_possible_secrets(tmp_path: Path, text: str) -> None:
    assert "tell-nobody" not in refused(tmp_path, GOOD + text)


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "%%%\n", "a: [\n"])
def test_files_without_environment_are_rejected(tmp_path: Path, text: str) -> None:
    assert refused(tmp_path, text).startswith("trial.yml:")


def test_binary_file_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "trial.yml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        load_environment("trial", folder=tmp_path)


def test_environments_cannot_be_changed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        loaded(tmp_path).domain = "other"  # type: ignore[misc]


def test_loading_needs_neither_docker_nor_ssh() -> None:
    code = (
        "import sys; from deploy.environment.model import load_environment as load; load('local');"
        "print({'docker', 'paramiko', 'rich', 'pyrage'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_reference_page_matches_the_model() -> None:
    assert PAGE.read_text(encoding="utf-8") == update(), "run ./inv env.reference"


def test_documented_example_is_a_valid_environment(tmp_path: Path) -> None:
    example = PAGE.read_text(encoding="utf-8").partition("```yaml\n")[2].partition("```")[0]
    write(tmp_path, example.replace("ssh-ed25519 AAAA...", HOST_KEY))
    assert load_environment("trial", folder=tmp_path, placeholders=True).secrets == (
        "DATABASE_URL",
        "SECRET_KEY",
    )


SERVER = f'{{address: 10.0.0.9, host_keys: ["{HOST_KEY}"]}}'


@pytest.mark.parametrize(
    ("server", "rest", "expected"),
    [
        (SERVER, "", "backups.pitr.repository: is missing"),
        (
            SERVER,
            "repository: {kind: s4, path: /a}",
            "backups.pitr.repository.kind: must be one of: folder, s3, ssh",
        ),
        (SERVER, "repository: {kind: folder, path: a}", "must be an absolute path, found 'a'"),
        (
            SERVER,
            "repository: {kind: s3, path: /a, bucket: b, endpoint: 'http://s3.test',"
            " username: A, key: B}",
            "`endpoint` must be such as https://",
        ),
        (SERVER, "repository: {kind: s3, path: /a}", "needs `bucket`, `username` and `key`"),
        (
            SERVER,
            "repository: {kind: ssh, path: /a, address: 10.0.0.3, key: K}",
            "`kind: ssh` needs `address`, `host_keys` and `key`",
        ),
        (
            SERVER,
            "repository: {kind: folder, path: /a}, archive_timeout: 2 fortnights",
            "backups.pitr.archive_timeout: must be a duration such as 30s, 2m or 1h",
        ),
        (
            SERVER,
            "repository: {kind: folder, path: /a}, archive_timeout: 0",
            "backups.pitr.archive_timeout: must be at least 1",
        ),
        (SERVER, "repository: {kind: folder, path: /a}, keep: 0", "keep: must be at least 1"),
        (SERVER, "repository: {kind: folder, path: /a}, kep: 1", 'did you mean "keep"?'),
        ("{}", "repository: {kind: folder, path: /a}", "`connection: ssh` needs an `address`"),
        (
            "{address: 10.0.0.9}",
            "repository: {kind: folder, path: /a}",
            "ssh-keyscan -p 22 10.0.0.9",
        ),
        (
            "{address: 203.0.113.9}",
            "repository: {kind: folder, path: /a}",
            "backups.pitr.server.address: 203.0.113.9 is an example",
        ),
    ],
)
def test_pitr_mistakes_are_reported_by_line_and_key(
    tmp_path: Path, server: str, rest: str, expected: str
) -> None:
    message = refused(tmp_path, GOOD + f"backups: {{pitr: {{server: {server}, {rest}}}}}\n")
    assert message.startswith("trial.yml:11:") and expected in message
