"""A registry, used over its HTTP API (OCI distribution specification 1.1) without an engine."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase, HTTPBasicAuth
from urllib3.util import Retry

from deploy.errors import GateRefused

Credentials = tuple[str, str]
"""User name, and password or access token."""

DOCKER_HUB = "registry-1.docker.io"
CONNECT_TIMEOUT, READ_TIMEOUT = 5.0, 20.0
_INDEXES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class RegistryError(GateRefused):
    """A registry gave no usable answer. Nothing was changed."""


class NotInRegistry(RegistryError):
    """The registry has no such repository, tag or digest."""


class Unauthorised(RegistryError):
    """The registry rejects the credentials, or they lack the permission."""


class RegistryUnreachable(RegistryError): ...


@dataclass(frozen=True)
class RemoteImage:
    """A registry's description of an image. `size` is the compressed size in bytes."""

    repository: str
    digest: str
    platforms: tuple[str, ...]
    """Platforms such as `linux/amd64`, `linux/arm/v7`."""
    labels: Mapping[str, str]
    size: int


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index in the bytes that its digest is computed from."""

    content: bytes
    media_type: str
    digest: str

    @property
    def children(self) -> tuple[str, ...]:
        """Digests of the manifests in an index. Empty for a single image."""
        return tuple(entry["digest"] for entry in json.loads(self.content).get("manifests") or ())

    @property
    def blobs(self) -> tuple[tuple[str, int], ...]:
        """Digests and sizes in bytes of configuration and layers."""
        told = json.loads(self.content)
        entries = [told["config"], *told["layers"]] if "layers" in told else []
        return tuple((entry["digest"], entry["size"]) for entry in entries)


class Registry:
    """One repository of one registry. A context manager that keeps its connections open.

    `repository` is named as for `docker pull`, without tag: `ghcr.io/owner/name`,
    `localhost:5000/name`, or `owner/name` on Docker Hub. Plain HTTP is used only if `insecure` is
    set. Every method can raise `RegistryUnreachable` or `Unauthorised`.
    """

    def __init__(
        self, repository: str, *, credentials: Credentials | None = None, insecure: bool = False
    ) -> None:
        self.repository = repository
        self._host, self._name = split_repository(repository)
        self._scheme = "http" if insecure else "https"
        self._insecure = insecure
        self._credentials = credentials
        self._auth: AuthBase = _Anonymous()
        self._session = requests.Session()
        if bundle := os.environ.get("SSL_CERT_FILE"):
            self._session.verify = bundle
        retry = Retry(2, connect=1, backoff_factor=0.2, status_forcelist=(429, 502, 503, 504))
        self._session.mount(f"{self._scheme}://", HTTPAdapter(max_retries=retry))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def resolve(self, reference: str, *, platform: str = "linux/amd64") -> RemoteImage:
        """Look up a tag or digest. Labels and size are those of `platform`, or of the first image.

        Raises `NotInRegistry` if it does not exist, `RegistryError` if the content has another
        digest.
        """
        answer = self._get(f"manifests/{reference}", accept=", ".join(_INDEXES + _MANIFESTS))
        digest = self._verified(answer, reference if ":" in reference else "")
        manifest = answer.json()
        platforms: tuple[str, ...] = ()
        if "manifests" in manifest:
            entries = [entry for entry in manifest["manifests"] if _runs(entry)]
            if not entries:
                raise RegistryError(f"{self.repository}:{reference} contains no image")
            platforms = tuple(_platform(entry["platform"]) for entry in entries)
            chosen = entries[platforms.index(platform) if platform in platforms else 0]
            manifest = self._json(f"manifests/{chosen['digest']}", chosen["digest"])
        if "config" not in manifest:
            raise RegistryError(f"{self.repository}:{reference} is not a readable image")
        config = self._json(f"blobs/{manifest['config']['digest']}", manifest["config"]["digest"])
        return RemoteImage(
            repository=self.repository,
            digest=digest,
            platforms=platforms or (_platform(config),),
            labels=(config.get("config") or {}).get("Labels") or {},
            size=sum(layer["size"] for layer in manifest["layers"]),
        )

    def list_tags(self) -> list[str]:
        """The tags of the repository, in the registry's order. Empty for an unknown repository."""
        tags: list[str] = []
        path = "tags/list?n=1000"
        while path:
            try:
                answer = self._get(path)
            except NotInRegistry:
                return tags
            tags += answer.json().get("tags") or []
            following = answer.links.get("next", {}).get("url", "")
            path = "tags/list?" + following.partition("?")[2] if following else ""
        return tags

    def manifest(self, reference: str) -> Manifest:
        """The manifest or index of a tag or digest, byte for byte.

        Raises `NotInRegistry` if it does not exist.
        """
        answer = self._get(f"manifests/{reference}", accept=", ".join(_INDEXES + _MANIFESTS))
        digest = self._verified(answer, reference if ":" in reference else "")
        return Manifest(answer.content, answer.headers["Content-Type"], digest)

    def put_manifest(self, reference: str, manifest: Manifest) -> None:
        """Store a manifest under a tag or its digest. The blobs that it names must exist."""
        headers = {"Content-Type": manifest.media_type}
        path = f"manifests/{reference}"
        self._write("PUT", self._url(path), data=manifest.content, headers=headers)

    def has_blob(self, digest: str) -> bool:
        """Whether the repository has a blob."""
        return self._ask(f"blobs/{digest}", "*/*", "HEAD").ok

    def take_blob(self, digest: str, size: int, source: Registry) -> None:
        """Copy a blob from another repository in pieces, through this machine's memory.

        The registry checks the digest of the received data, and raises `RegistryError` if it
        differs.
        """
        begun = self._write("POST", self._url("blobs/uploads/"))
        place = urljoin(begun.url or "", begun.headers["Location"])
        if urlsplit(place).netloc != self._host:
            raise RegistryError(f"{self._host} redirects an upload to {urlsplit(place).netloc}")
        with source._stream(f"blobs/{digest}") as answer:
            headers = {"Content-Type": "application/octet-stream"}
            mark = "&" if urlsplit(place).query else "?"
            url = f"{place}{mark}digest={digest}"
            self._write("PUT", url, data=_Sized(answer.raw, size), headers=headers)

    def _write(self, method: str, url: str, **options: Any) -> requests.Response:
        """Send a writing request. Data that is sent in pieces needs an authorised session first."""
        answer = self._request(url, method, auth=self._auth, **options)
        if answer.status_code == 401:
            self._authorise(answer.headers.get("WWW-Authenticate", ""), "pull,push")
            answer = self._request(url, method, auth=self._auth, **options)
        if answer.status_code in (401, 403):
            raise self._unauthorised()
        if not answer.ok:
            words = answer.text.strip()[:200]
            raise RegistryError(f"{self._host} answered {answer.status_code} to a push: {words}")
        return answer

    def _stream(self, path: str) -> requests.Response:
        self._ask(path, "*/*", "HEAD")  # obtains a token if the registry requires one
        answer = self._request(self._url(path), auth=self._auth, stream=True)
        if not answer.ok:
            answer.close()
            raise NotInRegistry(f"{self._host}: {self.repository} has no {path}")
        return answer

    def _url(self, path: str) -> str:
        return f"{self._scheme}://{self._host}/v2/{self._name}/{path}"

    def delete(self, digest: str) -> None:
        """Remove an image with all its tags. Does nothing if it does not exist.

        Raises `RegistryError` if the registry does not support that, as those of Docker Hub and
        GitHub.
        """
        answer = self._ask(f"manifests/{digest}", "*/*", "DELETE", "pull,delete")
        if answer.status_code == 405:
            raise RegistryError(
                f"{self._host} does not support deletion of images over the registry's API",
                hint="delete them on the registry's own pages; `--dry-run` lists them",
            )
        if answer.status_code != 404 and not answer.ok:
            raise RegistryError(f"{self._host} answered {answer.status_code} to a deletion")

    def _json(self, path: str, digest: str) -> Any:
        answer = self._get(path, accept=", ".join(_MANIFESTS) + ", */*")
        self._verified(answer, digest)
        return answer.json()

    def _verified(self, answer: requests.Response, expected: str) -> str:
        """The digest of the received data. If a digest was requested, it must be equal."""
        digest = f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        if expected not in ("", digest):
            raise RegistryError(f"{self._host} sent {digest} for {self.repository}@{expected}")
        return digest

    def _get(self, path: str, *, accept: str = "application/json") -> requests.Response:
        answer = self._ask(path, accept)
        if answer.status_code == 404:
            where = path.partition("?")[0].partition("/")[2]
            what = f"{self.repository} has no {where}" if where != "list" else self.repository
            raise NotInRegistry(f"{self._host}: {what}")
        if not answer.ok:
            raise RegistryError(f"{self._host} answered {answer.status_code} to {path}")
        return answer

    def _ask(
        self, path: str, accept: str, method: str = "GET", actions: str = "pull"
    ) -> requests.Response:
        answer = self._send(path, accept, method)
        if answer.status_code == 401:
            self._authorise(answer.headers.get("WWW-Authenticate", ""), actions)
            answer = self._send(path, accept, method)
        if answer.status_code in (401, 403):
            raise self._unauthorised()
        return answer

    def _send(self, path: str, accept: str, method: str) -> requests.Response:
        return self._request(self._url(path), method, headers={"Accept": accept}, auth=self._auth)

    def _request(self, url: str, method: str = "GET", **options: Any) -> requests.Response:
        timeout = (CONNECT_TIMEOUT, READ_TIMEOUT)
        try:
            return self._session.request(method, url, timeout=timeout, **options)
        except requests.exceptions.SSLError as error:
            hint = "Set SSL_CERT_FILE if it has a CA of its own"
            if not self._insecure:
                hint += "; `insecure: true` in the environment file allows plain HTTP"
            raise RegistryUnreachable(f"{self._host}: TLS failed: {error}", hint=hint) from None
        except requests.RequestException as error:
            raise RegistryUnreachable(f"{self._host} does not answer: {_brief(error)}") from None

    def _authorise(self, challenge: str, actions: str = "pull") -> None:
        """Find out how the registry authorises requests (RFC 7235; Docker's token flow)."""
        scheme, _, rest = challenge.partition(" ")
        basic = HTTPBasicAuth(*self._credentials) if self._credentials else None
        if scheme.lower() == "basic" and basic:
            self._auth = basic
            return
        fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        realm = fields.pop("realm", "")
        if scheme.lower() != "bearer" or not realm:
            raise self._unauthorised()
        if basic and not (realm.startswith("https://") or self._insecure):
            raise RegistryError(f"{self._host} requires credentials for {realm} without encryption")
        fields.setdefault("scope", f"repository:{self._name}:{actions}")
        answer = self._request(realm, params=fields, auth=basic or _Anonymous())
        if not answer.ok:
            raise self._unauthorised()
        found = answer.json()
        self._auth = _Bearer(found.get("token") or found["access_token"])

    def _unauthorised(self) -> Unauthorised:
        who = (
            f"the credentials of {self._credentials[0]}" if self._credentials else "no credentials"
        )
        hint = "`image.credentials` in the environment file names the secrets to log in with"
        what = f"{self._host} refuses {self.repository} to {who}, or the repository does not exist"
        return Unauthorised(what, hint=hint)


def split_repository(repository: str) -> tuple[str, str]:
    """Host and name of a repository, with Docker's rules for omitted parts."""
    first, slash, rest = repository.partition("/")
    if slash and (set(first) & {".", ":"} or first == "localhost"):
        host, name = first, rest
    else:
        host, name = "docker.io", repository
    if host in ("docker.io", "index.docker.io"):
        return DOCKER_HUB, name if "/" in name else f"library/{name}"
    return host, name


class _Sized:
    """A stream of known length, so that it need not be sent in chunks."""

    def __init__(self, stream: Any, size: int) -> None:
        self._stream = stream
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        while piece := self.read(1 << 20):
            yield piece

    def read(self, size: int = -1) -> bytes:
        """The next bytes, unmodified: a layer stays compressed."""
        return bytes(self._stream.read(size if size > 0 else None, decode_content=False))


class _Anonymous(AuthBase):
    """No credentials, not even those in ~/.netrc, which requests would use."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


class _Bearer(AuthBase):
    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _runs(entry: Mapping[str, Any]) -> bool:
    """Whether an index's entry is an image. BuildKit adds attestations to the index."""
    return bool(entry.get("platform", {}).get("os", "unknown") != "unknown")


def _platform(described: Mapping[str, str]) -> str:
    parts = (described.get("os"), described.get("architecture"), described.get("variant"))
    return "/".join(part for part in parts if part)


def _brief(error: Exception) -> str:
    cause: BaseException = error
    while isinstance(cause.args[0] if cause.args else None, BaseException):
        cause = cause.args[0]
    reason = getattr(cause, "reason", None)
    return str(reason or cause)
