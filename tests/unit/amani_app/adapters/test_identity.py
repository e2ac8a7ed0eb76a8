"""The contract of all identity providers, and the behaviour specific to each."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from flask import Flask
from jwt.algorithms import ECAlgorithm, RSAAlgorithm
from sqlalchemy import Engine

from amani_app import create_app
from amani_app.adapters.identity import LocalAccounts
from amani_app.adapters.memory.identity import MemoryAccounts
from amani_app.adapters.supabase import SupabaseIdentity
from amani_app.domain.users import Role, User
from amani_app.ports.identity import Claims, Identity, IdentityUnavailable, InvalidToken
from amani_app.settings import Settings
from tests.support.contracts.store import NOW, person
from tests.support.people import API, PASSWORD, cheapen_hashing
from tests.support.service_fixtures import SECRET_KEY

LEGACY = "the legacy secret of a project of the tests"
ID = "6c2d1b5e-7f0a-4a53-9a1c-0d3f8a1f2b11"


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now = NOW.timestamp()

    def __call__(self) -> float:
        return self.now


class Project:
    """The signing keys of a Supabase project, served over HTTP on this machine."""

    def __init__(self) -> None:
        self.keys: dict[str, tuple[Any, str]] = {}
        self.fetches = 0
        project = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                assert self.path == "/auth/v1/.well-known/jwks.json"
                project.fetches += 1
                body = json.dumps(project.public()).encode()
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *words: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,)).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        """Stop serving the keys."""
        self.server.shutdown()
        self.server.server_close()

    def add(self, kid: str, algorithm: str) -> None:
        """Sign with a new key from now on."""
        made = {
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
        }
        self.keys[kid] = (made[algorithm](), algorithm)

    def public(self) -> dict[str, Any]:
        """The JSON Web Key Set of the public keys."""
        found = []
        for kid, (key, algorithm) in self.keys.items():
            kind = ECAlgorithm if algorithm == "ES256" else RSAAlgorithm
            each = kind.to_jwk(key.public_key(), as_dict=True)
            found.append({**each, "kid": kid, "alg": algorithm, "use": "sig"})
        return {"keys": found}

    def claims(self, clock: Clock, **changes: Any) -> dict[str, Any]:
        """The claims of a signed-in user; a value of `None` omits the claim."""
        claims = {
            "iss": f"{self.url}/auth/v1",
            "aud": "authenticated",
            "sub": ID,
            "role": "authenticated",
            "email": "Ada@Example.org",
            "iat": int(clock()),
            "exp": int(clock()) + 3600,
            "is_anonymous": False,
            "app_metadata": {"provider": "email"},
            "user_metadata": {"full_name": "Ada Obi", "amani_role": "admin"},
            **changes,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, clock: Clock, kid: str = "", **changes: Any) -> str:
        """A token signed with the key `kid`, by default the newest, or with the legacy secret."""
        claims = self.claims(clock, **changes)
        if not self.keys:
            return jwt.encode(claims, LEGACY, "HS256")
        kid = kid or list(self.keys)[-1]
        key, algorithm = self.keys[kid]
        return jwt.encode(claims, key, algorithm, headers={"kid": kid})


@pytest.fixture
def project() -> Iterator[Project]:
    project = Project()
    yield project
    if project.server.fileno() >= 0:
        project.close()


@dataclass
class Trial:
    """An identity provider, and a source of its tokens."""

    identity: Identity
    issue: Callable[[], str]
    clock: Clock
    whose: str
    foreign: list[str] = field(default_factory=list)
    """Tokens that would be good somewhere else."""


def local_trial(clock: Clock) -> Trial:
    accounts = LocalAccounts([SECRET_KEY], clock)
    other = LocalAccounts(["the key of another project, that is long"], clock)
    return Trial(
        accounts, lambda: accounts.issue(ada()), clock, "ada", [other.issue(person("ada"))]
    )


def memory_trial(clock: Clock) -> Trial:
    accounts = MemoryAccounts(clock)
    return Trial(accounts, lambda: accounts.issue(ada()), clock, "ada")


def ada() -> User:
    return person("ada")


@pytest.fixture(params=["memory", "local", "ES256", "RS256", "HS256"])
def trial(request: pytest.FixtureRequest) -> Trial:
    clock = Clock()
    if request.param in ("memory", "local"):
        return {"memory": memory_trial, "local": local_trial}[request.param](clock)
    project: Project = request.getfixturevalue("project")
    if request.param != "HS256":
        project.add("key-1", request.param)
    identity = SupabaseIdentity(project.url, LEGACY if request.param == "HS256" else "", clock)
    stranger = Project()
    stranger.close()
    stranger.add("key-1", "ES256")
    foreign = [
        stranger.token(clock, iss=f"{project.url}/auth/v1"),
        jwt.encode(project.claims(clock), "another secret that is long enough", "HS256"),
    ]
    return Trial(identity, lambda: project.token(clock), clock, ID, foreign)


class TestContract:
    def test_valid_token_identifies_its_user(self, trial: Trial) -> None:
        assert trial.identity.verify(trial.issue()).user == trial.whose

    def test_token_expires(self, trial: Trial) -> None:
        token = trial.issue()
        trial.clock.now += 3599
        trial.identity.verify(token)
        trial.clock.now += 12
        with pytest.raises(InvalidToken):
            trial.identity.verify(token)

    @pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "e30.e30.", "\x00", "a" * 100_000])
    def test_malformed_token_is_rejected(self, trial: Trial, token: str) -> None:
        with pytest.raises(InvalidToken):
            trial.identity.verify(token)

    def test_modified_token_is_rejected(self, trial: Trial) -> None:
        token = trial.issue()
        with pytest.raises(InvalidToken):
            trial.identity.verify(token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:])

    def test_token_of_another_project_is_rejected(self, trial: Trial) -> None:
        for token in trial.foreign:
            with pytest.raises(InvalidToken):
                trial.identity.verify(token)


@pytest.mark.parametrize("kind", [MemoryAccounts, lambda: LocalAccounts([SECRET_KEY])])
def test_password_matches_only_its_own_hash(
    kind: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    cheapen_hashing(monkeypatch)
    accounts = kind()
    hashed = accounts.hash(PASSWORD)
    assert accounts.matches(PASSWORD, hashed)
    assert not accounts.matches("another one", hashed)
    assert not accounts.matches(PASSWORD, "")


class TestSupabase:
    def test_role_comes_from_app_metadata_and_never_from_user_metadata(
        self, project: Project
    ) -> None:
        clock = Clock()
        project.add("key-1", "ES256")
        identity = SupabaseIdentity(project.url, None, clock)
        found = identity.verify(project.token(clock))
        assert found == Claims(ID, None, "ada@example.org", "Ada Obi", Role.MEMBER, False)
        named = identity.verify(project.token(clock, app_metadata={"amani_role": "arbiter"}))
        assert named.role is Role.ARBITER
        for metadata in (None, {}, {"full_name": " \x00 "}, {"name": 7}, "x"):
            assert identity.verify(project.token(clock, user_metadata=metadata)).name == "Ada"

    @pytest.mark.parametrize(
        "changes",
        [
            {"aud": "another"},
            {"aud": None},
            {"iss": "https://another.example/auth/v1"},
            {"iss": None},
            {"exp": 1},
            {"exp": None},
            {"exp": "soon"},
            {"sub": None},
            {"sub": ""},
            {"role": "service_role"},
            {"role": "anon"},
            {"role": None},
            {"email": ""},
            {"email": None},
            {"is_anonymous": True},
        ],
        ids=str,
    )
    @pytest.mark.parametrize("algorithm", ["ES256", "HS256"])
    def test_token_with_wrong_claim_is_rejected(
        self, project: Project, changes: dict[str, Any], algorithm: str
    ) -> None:
        clock = Clock()
        if algorithm == "ES256":
            project.add("key-1", algorithm)
        identity = SupabaseIdentity(project.url, LEGACY, clock)
        identity.verify(project.token(clock))
        with pytest.raises(InvalidToken):
            identity.verify(project.token(clock, **changes))

    def test_token_cannot_choose_its_algorithm(self, project: Project) -> None:
        clock = Clock()
        project.add("key-1", "RS256")
        claims = project.claims(clock)
        key = project.keys["key-1"][0]
        headers = {"kid": "key-1"}
        wrong = [
            jwt.encode(claims, None, "none", headers=headers),
            jwt.encode(claims, LEGACY, "HS256", headers=headers),
            jwt.encode(claims, key, "RS512", headers=headers),
            jwt.encode(claims, key, "RS256"),
        ]
        identity = SupabaseIdentity(project.url, None, clock)
        for token in wrong:
            with pytest.raises(InvalidToken):
                identity.verify(token)

    def test_keys_are_fetched_once_and_again_for_unknown_key(self, project: Project) -> None:
        clock = Clock()
        project.add("key-1", "ES256")
        identity = SupabaseIdentity(project.url, None, clock, cooldown=0)
        for _ in range(5):
            identity.verify(project.token(clock))
        assert project.fetches == 1
        project.add("key-2", "RS256")
        for kid in ("key-2", "key-1", "key-2"):
            identity.verify(project.token(clock, kid))
        assert project.fetches == 2

    def test_unknown_keys_do_not_cause_repeated_fetches(self, project: Project) -> None:
        clock = Clock()
        project.add("key-1", "ES256")
        identity = SupabaseIdentity(project.url, None, clock)
        identity.verify(project.token(clock))
        stranger = Project()
        stranger.close()
        for number in range(20):
            stranger.add(f"unknown-{number}", "ES256")
            with pytest.raises(InvalidToken):
                identity.verify(stranger.token(clock, iss=f"{project.url}/auth/v1"))
        assert project.fetches == 1

    def test_outage_fails_only_tokens_with_unknown_keys(self, project: Project) -> None:
        clock = Clock()
        project.add("key-1", "ES256")
        known = SupabaseIdentity(project.url, None, clock)
        token = project.token(clock)
        known.verify(token)
        project.close()
        assert known.verify(token).user == ID
        new = SupabaseIdentity(project.url, None, clock)
        for _ in range(2):
            with pytest.raises(IdentityUnavailable):
                new.verify(token)


class TestOverHttp:
    @pytest.fixture
    def app(self, sqlite_engine: Engine, project: Project) -> Iterator[Flask]:
        project.add("key-1", "ES256")
        app = create_app(
            Settings(
                database_url=sqlite_engine.url.render_as_string(hide_password=False),
                secret_key=SECRET_KEY,
                identity="supabase",
                supabase_url=project.url,
            )
        )
        yield app
        app.extensions["amani"].engine.dispose()

    @pytest.fixture
    def clock(self) -> Clock:
        import time

        clock = Clock()
        clock.now = time.time()
        return clock

    def ask(self, app: Flask, token: str, path: str = "/auth/me") -> Any:
        headers = {"Authorization": f"Bearer {token}"}
        return app.test_client().get(f"{API}{path}", headers=headers)

    def test_first_request_creates_user_and_later_ones_update_it(
        self, app: Flask, project: Project, clock: Clock
    ) -> None:
        for _ in range(2):
            me = self.ask(app, project.token(clock))
            assert (me.status_code, me.json["id"]) == (200, ID)
            assert (me.json["email"], me.json["role"]) == ("ada@example.org", "member")
        role = {"amani_role": "admin"}
        admin = project.token(clock, email="ada@new.example", app_metadata=role)
        assert self.ask(app, admin).json["email"] == "ada@new.example"
        log = self.ask(app, admin, "/admin/audit").json["items"]
        assert [line["action"] for line in log] == ["user.changed", "user.signed-up"]

    def test_email_address_belongs_to_one_user(
        self, app: Flask, project: Project, clock: Clock
    ) -> None:
        self.ask(app, project.token(clock))
        assert self.ask(app, project.token(clock, sub="somebody-else")).status_code == 401

    def test_password_endpoints_are_unavailable_with_external_identity(
        self, app: Flask, project: Project, clock: Clock
    ) -> None:
        client = app.test_client()
        body = {"email": "eve@example.org", "name": "Eve", "password": PASSWORD}
        for path, asked in (
            ("signup", body),
            ("login", {"email": "ada@example.org", "password": PASSWORD}),
            ("change-password", {"current": PASSWORD, "new": PASSWORD}),
        ):
            headers = {"Authorization": f"Bearer {project.token(clock)}"}
            found = client.post(f"{API}/auth/{path}", json=asked, headers=headers)
            assert (found.status_code, found.json["code"]) == (409, "accounts-elsewhere")

    def test_withdrawal_requires_second_factor(
        self, app: Flask, project: Project, clock: Clock
    ) -> None:
        def withdraw(**claims: str) -> Any:
            headers = {"Authorization": f"Bearer {project.token(clock, **claims)}"}
            return app.test_client().post(f"{API}/withdrawals", json={}, headers=headers)

        refused = withdraw(aal="aal1")
        assert (refused.status_code, refused.json["code"]) == (403, "second-factor-needed")
        assert withdraw(aal="aal2").status_code == 422
        assert self.ask(app, project.token(clock, aal="aal1")).status_code == 200

    def test_unreachable_issuer_returns_503(
        self, app: Flask, project: Project, clock: Clock
    ) -> None:
        token = project.token(clock)
        project.close()
        found = self.ask(app, token)
        assert (found.status_code, found.json["code"]) == (503, "identity-unavailable")
        assert found.headers["Retry-After"] == "5"


def test_previous_signing_key_still_verifies_tokens(
    sqlite_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cheapen_hashing(monkeypatch)
    url = sqlite_engine.url.render_as_string(hide_password=False)
    old = "the old key that was used for many a year"
    new = "the new key made by a careful operator"

    def client(**keys: str) -> Any:
        return create_app(Settings(database_url=url, **keys)).test_client()

    body = {"email": "ada@example.org", "name": "Ada", "password": PASSWORD}
    session = client(secret_key=old).post(f"{API}/auth/signup", json=body).json
    headers = {"Authorization": f"Bearer {session['token']}"}
    rotated = client(secret_key=new, previous_secret_keys=f"{'x' * 32}, {old}")
    assert rotated.get(f"{API}/auth/me", headers=headers).status_code == 200
    dropped = client(secret_key=new)
    assert dropped.get(f"{API}/auth/me", headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "SUPABASE_URL"),
        ({"supabase_url": "http://x.example", "environment": "staging"}, "SUPABASE_URL"),
        ({"supabase_url": "https://x.example", "supabase_jwt_secret": "short"}, "SUPABASE_JWT"),
        ({"supabase_url": "https://x.example", "previous_secret_keys": "a,b"}, "PREVIOUS_SECRET"),
    ],
)
def test_incomplete_identity_settings_are_rejected_at_startup(changes: Any, words: str) -> None:
    told = {"identity": "supabase", "secret_key": SECRET_KEY, "database_url": "sqlite:///x"}
    with pytest.raises(ValueError, match=words):
        Settings(**{**told, **changes})
