"""The registry client, against real registries."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs, urlsplit

import bcrypt
import jwt
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from deploy.errors import EngineError
from deploy.events import Event, Events
from deploy.images import build
from deploy.images.registry import (
    NotInRegistry,
    Registry,
    RegistryError,
    RegistryUnreachable,
    Unauthorised,
    split_repository,
)

pytestmark = pytest.mark.engine
LOGIN = ("deployer", "correct horse")
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


def test_a_pushed_tag_resolves_to_the_digest_that_the_push_returned(registry, make_image):
    repository = f"{registry}/team/app"
    reference = make_image(f"{repository}:1.0.0", {"amani.schema.head": "abc"})
    heard: list[Event] = []

    digests = build.push([reference], events=Events(heard.append))

    with Registry(repository, insecure=True) as client:
        found = client.resolve("1.0.0")
        again = client.resolve(found.digest)
    assert digests == {repository: found.digest}
    assert found.labels == {"amani.schema.head": "abc"}
    assert found.platforms == ("linux/amd64",)
    assert 0 < found.size < 10_000
    assert again == found
    assert {event.step for event in heard} == {"push"}


def test_an_index_resolves_to_its_digest_and_the_labels_of_the_platform(registry, make_image):
    repository = f"{registry}/team/index"
    for tag in ("amd64", "arm64"):
        image = make_image(f"{repository}:{tag}", {"built.for": tag})
        build.push([image], events=Events())
    manifests = []
    for tag in ("amd64", "arm64"):
        manifest = requests.get(
            f"http://{repository.replace('/', '/v2/', 1)}/manifests/{tag}",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
            timeout=5,
        )
        manifests.append(
            {
                "mediaType": manifest.headers["Content-Type"],
                "digest": manifest.headers["Docker-Content-Digest"],
                "size": len(manifest.content),
                "platform": {"os": "linux", "architecture": tag},
            }
        )
    attestation = dict(manifests[0], platform={"os": "unknown", "architecture": "unknown"})
    index = json.dumps(
        {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [attestation, *manifests]}
    )
    put = requests.put(
        f"http://{repository.replace('/', '/v2/', 1)}/manifests/both",
        data=index,
        headers={"Content-Type": OCI_INDEX},
        timeout=5,
    )
    assert put.status_code == 201

    with Registry(repository, insecure=True) as client:
        found = client.resolve("both", platform="linux/arm64")
        other = client.resolve("both", platform="linux/s390x")

    assert found.digest == f"sha256:{hashlib.sha256(index.encode()).hexdigest()}"
    assert found.platforms == ("linux/amd64", "linux/arm64")
    assert found.labels == {"built.for": "arm64"}
    assert other.labels == {"built.for": "amd64"}


def test_tags_are_listed_and_an_unknown_repository_has_none(registry, make_image):
    repository = f"{registry}/team/tags"
    for tag in ("2.0.0", "1.0.0"):
        build.push([make_image(f"{repository}:{tag}", {})], events=Events())

    with Registry(repository, insecure=True) as client:
        assert sorted(client.list_tags()) == ["1.0.0", "2.0.0"]
    with Registry(f"{registry}/team/nothing", insecure=True) as client:
        assert client.list_tags() == []


def test_a_missing_tag_is_reported_with_its_repository(registry):
    with Registry(f"{registry}/team/app", insecure=True) as client:
        with pytest.raises(NotInRegistry, match="team/app has no 9.9.9"):
            client.resolve("9.9.9")


def test_a_registry_that_does_not_answer_is_unreachable():
    with Registry("127.0.0.1:1/app", insecure=True) as client:
        with pytest.raises(RegistryUnreachable, match="127.0.0.1:1 does not answer.*refused"):
            client.resolve("latest")


def test_plain_http_is_not_used_unless_it_is_configured(registry):
    with Registry(f"{registry}/app") as client:
        with pytest.raises(RegistryUnreachable, match="TLS failed") as caught:
            client.resolve("latest")
    assert "insecure: true" in caught.value.hint


def test_basic_credentials_are_used_and_wrong_ones_refused(start_registry, make_image):
    user, password = LOGIN
    hashed = bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()
    address = start_registry(
        {
            "REGISTRY_AUTH": "htpasswd",
            "REGISTRY_AUTH_HTPASSWD_REALM": "test",
            "REGISTRY_AUTH_HTPASSWD_PATH": "/etc/docker/registry/users",
        },
        {"users": f"{user}:{hashed}\n".encode()},
    )
    repository = f"{address}/app"
    image = make_image(f"{repository}:1", {"a": "b"})

    build.push([image], {repository: LOGIN}, events=Events())

    with Registry(repository, insecure=True, credentials=LOGIN) as client:
        assert client.resolve("1").labels == {"a": "b"}
    for wrong in ((user, "guessed"), None):
        with Registry(repository, insecure=True, credentials=wrong) as client:
            with pytest.raises(Unauthorised) as caught:
                client.resolve("1")
        assert "guessed" not in str(caught.value)
    with pytest.raises(EngineError, match="could not be pushed"):
        build.push([image], {repository: (user, "guessed")}, events=Events())


@pytest.fixture
def token_server() -> Iterator[tuple[str, bytes, list[str]]]:
    """A token service like Docker Hub's: its realm, its certificate and the received logins."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    der = certificate.public_bytes(serialization.Encoding.DER)
    seen: list[str] = []

    class Tokens(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
            seen.append(self.headers.get("Authorization", ""))
            kind, repository, actions = asked["scope"].split(":")
            access = {"type": kind, "name": repository, "actions": actions.split(",")}
            claims = {
                "iss": "issuer",
                "sub": "",
                "aud": asked["service"],
                "exp": int(time.time()) + 60,
                "nbf": int(time.time()) - 60,
                "iat": int(time.time()),
                "jti": "1",
                "access": [access],
            }
            headers = {"x5c": [base64.b64encode(der).decode()]}
            token = jwt.encode(claims, key, "ES256", headers=headers)
            body = json.dumps({"token": token}).encode()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Tokens)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    yield f"http://127.0.0.1:{server.server_port}/token", pem, seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("credentials", [None, LOGIN])
def test_a_token_is_fetched_if_the_registry_requires_one(
    start_registry: Callable[..., str], token_server, credentials
):
    realm, certificate, seen = token_server
    address = start_registry(
        {
            "REGISTRY_AUTH": "token",
            "REGISTRY_AUTH_TOKEN_REALM": realm,
            "REGISTRY_AUTH_TOKEN_SERVICE": "registry.test",
            "REGISTRY_AUTH_TOKEN_ISSUER": "issuer",
            "REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE": "/etc/docker/registry/issuer.pem",
        },
        {"issuer.pem": certificate},
    )

    with Registry(f"{address}/app", insecure=True, credentials=credentials) as client:
        with pytest.raises(NotInRegistry):  # the token was accepted
            client.resolve("1")

    basic = "Basic " + base64.b64encode(":".join(LOGIN).encode()).decode()
    assert seen == [basic if credentials else ""]


def test_credentials_are_not_sent_to_an_unencrypted_realm():
    with Registry("registry.test/app", credentials=LOGIN) as client:
        with pytest.raises(RegistryError, match="without encryption"):
            client._authorise('Bearer realm="http://elsewhere.test/token",service="x"')


@pytest.mark.parametrize(
    ("repository", "host", "name"),
    [
        ("python", "registry-1.docker.io", "library/python"),
        ("owner/app", "registry-1.docker.io", "owner/app"),
        ("docker.io/owner/app", "registry-1.docker.io", "owner/app"),
        ("ghcr.io/owner/app", "ghcr.io", "owner/app"),
        ("localhost/app", "localhost", "app"),
        ("registry:5000/a/b/c", "registry:5000", "a/b/c"),
    ],
)
def test_repositories_are_split_as_docker_does(repository, host, name):
    assert split_repository(repository) == (host, name)
