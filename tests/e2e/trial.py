"""A small service that meets the image contract, in variants that fail."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import subprocess
import tarfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import docker.errors
import requests
import yaml

from deploy.images.bases import ensure_bases
from deploy.machine.checkout import ROOT, program
from workshop.fleet.fleet import Fleet
from workshop.fleet.practice_host import PracticeHost

BASE = "python:3.13-slim-trixie"
NAME = "amani-backend"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

# One program is the server, the migrations and the worker.
PROGRAM = """\
#!/usr/bin/env python3
import http.server, json, os, signal, sys, threading, time, urllib.parse

fault, version, head = (os.environ[name] for name in ("FAULT", "VERSION", "HEAD"))
command = sys.argv[1:]
if command[:2] == ["db", "upgrade"]:
    sys.exit("cannot alter the table ledger" if fault == "migration" else 0)
if command == ["db", "current"]:
    print("0001" if fault == "forgetful-migration" else head + " (head)")
    sys.exit()
if command == ["amani", "worker"]:
    if fault == "worker":
        sys.exit("cannot open the queue")
    # The kernel drops signals that the first process of a container neither handles nor blocks.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.sigwait({signal.SIGTERM})
    sys.exit()
if fault == "exit":
    print("cannot open the ledger")
    sys.exit(3)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        ready = fault != "unready"
        schema = {"checks": {"schema:revision": [{"observedValue": head}]}, "status": "pass"}
        answers = {
            "/api/v1/readiness": (200 if ready else 503, {"ready": ready}),
            "/api/v1/ping": (500 if fault == "smoke" else 200, {}),
            "/api/v1/health": (200, schema),
            "/api/v1/version": (200, {"version": "0.0.0" if fault == "version" else version}),
        }
        url = urllib.parse.urlsplit(self.path)
        delay = dict(urllib.parse.parse_qsl(url.query)).get("delay_ms", "0")
        time.sleep(int(delay) / 1000)
        status, content = answers.get(url.path, (404, {}))
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_OPTIONS = do_GET

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("", 8000), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
server.serve_forever()
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """The whole output, each run of white space as one space."""
        return " ".join((self.output + self.errors).split())


def invoke(*arguments: str, environ: Mapping[str, str] | None = None) -> Outcome:
    """Run a task as an operator does, in the root of the checkout."""
    done = subprocess.run(
        [program("invoke"), *arguments],
        cwd=ROOT,
        env={**os.environ, **(environ or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


class Trial:
    """The trial service's images in a fleet's registry, and variants of its environment."""

    def __init__(self, fleet: Fleet, folder: Path) -> None:
        self.fleet = fleet
        self.folder = folder
        self.repository = f"{fleet.registry}/{NAME}"
        self._engine = docker.from_env()
        self.content: dict[str, Any] = yaml.safe_load(fleet.environment_file.read_text())
        # The trial service has no data.
        self.content["backups"] = {"policy": "never"}
        self._built: set[str] = set()
        ensure_bases([BASE])

    def close(self) -> None:
        """Remove the built images from this machine's engine."""
        # By their tags: another worker's trial has the same images under other tags.
        for tag in self._built:
            with contextlib.suppress(docker.errors.ImageNotFound):
                self._engine.images.remove(tag)
        self._engine.close()

    def publish(self, version: str, *, fault: str = "", head: str = "0001") -> None:
        """Build a variant of the service, and push it under its version."""
        labels = {
            "org.opencontainers.image.version": version,
            "org.opencontainers.image.revision": hashlib.sha1(version.encode()).hexdigest(),
            "amani.schema.head": head,
            "amani.schema.revisions": ",".join(
                f"{number:04}:expand" for number in range(1, int(head) + 1)
            ),
        }
        recipe = f"""\
            FROM {BASE}
            COPY flask /usr/local/bin/flask
            ENV FAULT="{fault}" VERSION="{version}" HEAD="{head}"
            LABEL {" ".join(f'{name}="{value}"' for name, value in labels.items())}
            USER 10001:10001
            CMD ["flask", "serve"]
            """
        files = {"Dockerfile": textwrap.dedent(recipe).encode(), "flask": PROGRAM.encode()}
        tag = f"{self.repository}:{version}"
        self._engine.images.build(fileobj=_tar(files), custom_context=True, tag=tag, rm=True)
        self._built.add(tag)
        for line in self._engine.images.push(self.repository, version, stream=True, decode=True):
            assert "error" not in line, line

    def publish_for_architecture(self, version: str, source: str, architecture: str) -> None:
        """Push the image `source` under another version, labelled for another architecture."""
        base = f"http://{self.fleet.registry}/v2/{NAME}"
        manifest = _get(f"{base}/manifests/{source}", MANIFEST)
        config = _get(f"{base}/blobs/{manifest['config']['digest']}", "*/*")
        config |= {"architecture": architecture}
        config["config"]["Labels"]["org.opencontainers.image.version"] = version
        blob = json.dumps(config).encode()
        digest = f"sha256:{hashlib.sha256(blob).hexdigest()}"
        place = requests.post(f"{base}/blobs/uploads/", timeout=10).headers["Location"]
        requests.put(place, params={"digest": digest}, data=blob, timeout=10).raise_for_status()
        manifest["config"] |= {"digest": digest, "size": len(blob)}
        requests.put(
            f"{base}/manifests/{version}",
            data=json.dumps(manifest),
            headers={"Content-Type": MANIFEST},
            timeout=10,
        ).raise_for_status()

    def environment(self, name: str = "", **changes: Any) -> dict[str, str]:
        """Write the fleet's environment with changes; return the variables that select it."""
        name = name or self.fleet.name
        (self.folder / f"{name}.yml").write_text(yaml.safe_dump(self.content | changes))
        secrets = self.folder / f".env.{name}"
        secrets.write_text(self.fleet.secrets_file.read_text())
        secrets.chmod(0o600)
        return {"AMANI_ENVIRONMENTS": str(self.folder)}

    def state(self) -> dict[str, tuple[str, str]]:
        """By host: the version on the public route, and the containers."""
        return {host.name: (self._version(host), self._containers(host)) for host in self.hosts}

    @property
    def hosts(self) -> Sequence[PracticeHost]:
        return self.fleet.hosts

    def _version(self, host: PracticeHost) -> str:
        answer = requests.get(
            f"http://{host.address}/api/v1/version",
            headers={"Host": self.content["domain"]},
            timeout=10,
        )
        return str(answer.json()["version"])

    def _containers(self, host: PracticeHost) -> str:
        listed = host.run(
            ["docker", "ps", "-a", "--no-trunc", "--format", "{{.Names}} {{.ID}} {{.State}}"]
        )
        return "\n".join(sorted(listed.splitlines()))


def _tar(files: Mapping[str, bytes]) -> io.BytesIO:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    buffer.seek(0)
    return buffer


def _get(url: str, accept: str) -> dict[str, Any]:
    answer = requests.get(url, headers={"Accept": accept}, timeout=10)
    answer.raise_for_status()
    return dict(answer.json())
