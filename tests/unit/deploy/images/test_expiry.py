"""Which images have expired, and deletion over the API of GitHub Packages."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from deploy.images.expiry import Tagged, classify, select_expired
from deploy.images.github_packages import GitHubPackages
from deploy.images.registry import RegistryError

NOW = datetime(2026, 11, 24, tzinfo=UTC)


def image(*tags: str, days: int | None) -> Tagged:
    created = None if days is None else NOW - timedelta(days=days)
    return Tagged(f"sha256:{'-'.join(tags)}", tags, created)


@pytest.mark.parametrize(
    ("tag", "kind"),
    [
        ("latest", "permanent"),
        ("staging-latest", "permanent"),
        ("v1.2.3", "permanent"),
        ("1.2.3-rc.1", "permanent"),
        ("staging-0123abcd4567", "staging"),
        ("prod-0123abcd4567", "commit"),
        ("main-0123abcd4567-dirty", "commit"),
        ("v1.2.4-dev.7.g0123abc", "commit"),
        ("somebodys-try", "unknown"),
        ("prod-by-hand", "unknown"),
    ],
)
def test_tag_determines_retention_class(tag: str, kind: str):
    assert classify(tag) == kind


def test_commit_images_expire_after_90_days_and_staging_after_30():
    images = [
        image("prod-0123abc", days=91),
        image("prod-1123abc", days=89),
        image("staging-2123abc", days=31),
        image("staging-3123abc", days=29),
        image("v1.0.0", days=900),
        image("somebodys-try", days=900),
        image("prod-4123abc", days=None),
    ]
    assert [found.tags[0] for found in select_expired(images, NOW, keep=0)] == [
        "prod-0123abc",
        "staging-2123abc",
    ]


def test_permanent_tag_keeps_the_image():
    images = [
        image("prod-0123abc", "v1.0.0", days=400),
        image("staging-1123abc", "latest", days=400),
        image("staging-2123abc", "prod-2123abc", days=40),
    ]
    assert select_expired(images, NOW, keep=0) == []


def test_newest_images_of_each_kind_are_kept():
    images = [image(f"prod-{n}123abc", days=100 + n) for n in range(7)]
    assert [found.tags[0] for found in select_expired(images, NOW, keep=5)] == [
        "prod-6123abc",
        "prod-5123abc",
    ]


class GitHub(BaseHTTPRequestHandler):
    """GitHub's REST API for packages as documented, with two versions a page."""

    versions: ClassVar[dict[int, str]] = {}
    tokens: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.tokens.add(self.headers["Authorization"])
        path, _, query = self.path.partition("?")
        if path == "/users/amani":
            self.answer(200, {"login": "amani", "type": "Organization"})
        elif path == "/orgs/amani/packages/container/team%2Fapp/versions":
            page = int(query.partition("page=")[2]) if query.startswith("page=") else 0
            here = list(self.versions.items())[2 * page : 2 * page + 2]
            more = 2 * page + 2 < len(self.versions)
            server = f"http://127.0.0.1:{self.server.server_port}"  # type: ignore[attr-defined]
            link = f'<{server}{path}?page={page + 1}>; rel="next"' if more else ""
            self.answer(200, [{"id": id, "name": name} for id, name in here], link)
        else:
            self.answer(404, {"message": "Not Found"})

    def do_DELETE(self) -> None:
        id = int(self.path.rpartition("/")[2])
        self.answer(204 if self.versions.pop(id, None) else 404, None)

    def answer(self, status: int, content: object, link: str = "") -> None:
        body = json.dumps(content).encode() if status != 204 else b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if link:
            self.send_header("Link", link)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_github_packages_deletes_over_its_rest_api():
    GitHub.versions = {1: "sha256:a", 2: "sha256:b", 3: "sha256:c"}
    with HTTPServer(("127.0.0.1", 0), GitHub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = f"http://127.0.0.1:{server.server_port}"
        with closing(GitHubPackages("ghcr.io/amani/team/app", "s3cret", api)) as packages:
            packages.delete("sha256:c")
            packages.delete("sha256:gone")
        with closing(GitHubPackages("ghcr.io/nobody/app", "s3cret", api)) as packages:
            with pytest.raises(RegistryError, match="answered 404 to GET .*/users/nobody"):
                packages.delete("sha256:a")
        server.shutdown()
    assert GitHub.versions == {1: "sha256:a", 2: "sha256:b"}
    assert GitHub.tokens == {"Bearer s3cret"}
