"""Images in GitHub's registry, which deletes them only over its REST API
(https://docs.github.com/en/rest/packages/packages)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import requests

from deploy.images.registry import CONNECT_TIMEOUT, READ_TIMEOUT, RegistryError

HOST = "ghcr.io"
API = "https://api.github.com"


class GitHubPackages:
    """The container package `owner/name`. `token` needs the scope `delete:packages`."""

    def __init__(self, repository: str, token: str, api: str = API) -> None:
        owner, _, name = repository.removeprefix(f"{HOST}/").partition("/")
        self._owner = owner
        self._package = f"packages/container/{quote(name, safe='')}/versions"
        self._api = api
        self._session = requests.Session()
        self._session.headers.update(
            {"Accept": "application/vnd.github+json", "Authorization": f"Bearer {token}"}
        )

    def close(self) -> None:
        self._session.close()

    def delete(self, digest: str) -> None:
        """Remove the image with this digest and all its tags. Does nothing if it does not exist.

        Raises `RegistryError` if GitHub refuses.
        """
        base = f"{self._api}/{self._kind()}/{self._owner}/{self._package}"
        for version in self._versions(base):
            if version["name"] == digest:
                self._ask("DELETE", f"{base}/{version['id']}")

    def _kind(self) -> str:
        owner = self._ask("GET", f"{self._api}/users/{self._owner}").json()
        return "orgs" if owner.get("type") == "Organization" else "users"

    def _versions(self, base: str) -> Iterator[Any]:
        url = f"{base}?per_page=100"
        while url:
            answer = self._ask("GET", url)
            yield from answer.json()
            url = answer.links.get("next", {}).get("url", "")

    def _ask(self, method: str, url: str) -> requests.Response:
        try:
            answer = self._session.request(method, url, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT))
        except requests.RequestException as error:
            raise RegistryError(f"GitHub does not answer: {type(error).__name__}") from None
        if not answer.ok:
            raise RegistryError(
                f"GitHub answered {answer.status_code} to {method} {url.partition('?')[0]}",
                hint="the token needs the right to delete packages of this owner",
            )
        return answer
