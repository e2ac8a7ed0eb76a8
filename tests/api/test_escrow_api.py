"""The escrow API over HTTP, on both databases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from amani_app import create_app
from amani_app.adapters.fincra.sandbox.payments import MemoryPayments
from amani_app.api.routes import OPERATIONS
from amani_app.application.common.acting import Context
from amani_app.application.requests.escrows import EscrowUseCases
from amani_app.application.worker.jobs import ExpireSilence, ForgetAnswers
from amani_app.domain.escrow import FeePolicy
from amani_app.domain.users import Role
from amani_app.settings import Settings
from tests.support.counting import counted
from tests.support.people import API, PASSWORD, UNLIMITED, Person, World, cheapen_hashing
from tests.support.service_fixtures import SECRET_KEY


@pytest.fixture(
    params=["sqlite_engine", pytest.param("postgres_engine", marks=pytest.mark.postgres)]
)
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    cheapen_hashing(monkeypatch)
    engine: Engine = request.getfixturevalue(request.param)
    url = engine.url.render_as_string(hide_password=False)
    app = create_app(Settings(database_url=url, secret_key=SECRET_KEY, **UNLIMITED))
    world = World(app)
    world.connect(MemoryPayments())
    yield world
    app.extensions["amani"].engine.dispose()


@pytest.fixture
def client_(world: World) -> Person:
    return world.person("ada")


@pytest.fixture
def freelancer(world: World) -> Person:
    return world.person("ben")


@pytest.fixture
def funded(world: World, client_: Person, freelancer: Person) -> dict[str, Any]:
    """A funded escrow of 60 and 40 naira."""
    world.deposit(client_, 10_000)
    made = client_.call("POST", "/escrows", json=world.proposal(freelancer, "60.00", 4_000))
    assert made.status_code == 201, made.text
    accepted = freelancer.act(f"/escrows/{made.json['id']}/accept", 1)
    assert accepted.status_code == 200, accepted.text
    found = client_.act(f"/escrows/{made.json['id']}/fund", 2)
    assert found.status_code == 200, found.text
    escrow: dict[str, Any] = found.json
    return escrow


def milestone_path(escrow: dict[str, Any], verb: str, index: int = 0) -> str:
    return f"/escrows/{escrow['id']}/milestones/{escrow['milestones'][index]['id']}/{verb}"


class TestPeople:
    def test_sign_up_sign_in_and_profile(self, world: World) -> None:
        body = {"email": "Ada@Example.org", "name": "Ada", "password": PASSWORD}
        made = world.client.post(f"{API}/auth/signup", json=body)
        assert made.status_code == 201
        assert made.json["user"]["email"] == "ada@example.org"
        me = Person(world.client, made.json).get("/auth/me")
        assert me.json == made.json["user"]
        again = world.client.post(f"{API}/auth/signup", json=body)
        assert (again.status_code, again.json["code"]) == (409, "email-taken")

    @pytest.mark.parametrize("email", ["ada@example.org", "nobody@example.org"])
    def test_wrong_password_and_unknown_email_get_same_response(
        self, world: World, client_: Person, email: str
    ) -> None:
        body = {"email": email, "password": "wrong password"}
        found = world.client.post(f"{API}/auth/login", json=body)
        assert (found.status_code, found.json["code"]) == (401, "bad-credentials")
        assert "WWW-Authenticate" in found.headers

    def test_password_change_revokes_older_tokens(self, world: World, client_: Person) -> None:
        body = {"current": PASSWORD, "new": "another long password"}
        changed = client_.call("POST", "/auth/change-password", json=body)
        assert changed.status_code == 200
        assert client_.get("/auth/me").status_code == 401
        assert Person(world.client, changed.json).get("/auth/me").status_code == 200

    def test_passwords_are_never_logged(
        self, capfd: pytest.CaptureFixture[str], world: World, client_: Person
    ) -> None:
        assert PASSWORD not in capfd.readouterr().err


class TestEscrow:
    def test_escrow_from_proposal_to_payment(
        self, world: World, client_: Person, freelancer: Person, funded: dict[str, Any]
    ) -> None:
        assert (funded["state"], funded["amount"]["amount"]) == ("funded", "100.00")
        assert world.available(client_) == 0
        done = freelancer.act(milestone_path(funded, "submit"), 3).json
        done = client_.act(milestone_path(done, "approve"), 4).json
        assert done["milestones"][0]["state"] == "released"
        assert world.available(freelancer) == 5_700
        done = freelancer.act(milestone_path(done, "submit", 1), 5).json
        done = client_.act(milestone_path(done, "reject", 1), 6).json
        done = client_.act(milestone_path(done, "dispute", 1), 7).json
        arbiter = world.person("cleo", Role.ARBITER)
        dispute = done["milestones"][1]["dispute_id"]
        ruling = {"to_client_basis_points": 2_500}
        done = arbiter.act(f"/disputes/{dispute}/resolve", 8, body=ruling).json
        assert (done["state"], done["milestones"][1]["state"]) == ("completed", "split")
        assert world.available(client_) == 1_000
        assert world.available(freelancer) == 5_700 + 2_850
        admin = world.person("root", Role.ADMIN)
        assert admin.get("/admin/reconciliation").json == {"consistent": True, "differences": []}
        actions = [x["action"] for x in admin.get("/admin/audit?limit=100").json["items"]]
        for action in ("escrow.created", "escrow.funded", "milestone.released"):
            assert action in actions

    def test_insufficient_funds_hold_nothing(
        self, world: World, client_: Person, freelancer: Person
    ) -> None:
        world.deposit(client_, 99)
        made = client_.call("POST", "/escrows", json=world.proposal(freelancer, 100)).json
        freelancer.act(f"/escrows/{made['id']}/accept", 1)
        found = client_.act(f"/escrows/{made['id']}/fund", 2)
        assert (found.status_code, found.json["code"]) == (409, "insufficient-funds")
        assert client_.get(f"/escrows/{made['id']}").json["state"] == "accepted"
        assert world.available(client_) == 99

    def test_illegal_transition_returns_allowed_ones(
        self, client_: Person, funded: dict[str, Any]
    ) -> None:
        found = client_.act(milestone_path(funded, "approve"), 3)
        assert (found.status_code, found.json["code"]) == (409, "illegal-transition")
        assert found.json["allowed"] == ["dispute", "submit"]

    def test_transition_of_the_other_party_is_forbidden(
        self, client_: Person, funded: dict[str, Any]
    ) -> None:
        found = client_.act(milestone_path(funded, "submit"), 3)
        assert (found.status_code, found.json["code"]) == (403, "not-your-part")

    def test_funded_escrow_is_cancelled_by_both_parties(
        self, world: World, client_: Person, freelancer: Person, funded: dict[str, Any]
    ) -> None:
        path = f"/escrows/{funded['id']}/cancel"
        assert client_.act(path, 3).json["cancel_asked_by"] == "client"
        assert freelancer.act(path, 4).json["state"] == "cancelled"
        assert world.available(client_) == 10_000

    def test_stale_version_returns_412_and_missing_one_428(
        self, client_: Person, funded: dict[str, Any]
    ) -> None:
        path = milestone_path(funded, "dispute")
        for given in ("2", "999"):
            assert client_.act(path, int(given)).json["code"] == "stale-version"
        bare = client_.call("POST", path, json={})
        assert (bare.status_code, bare.json["code"]) == (428, "precondition-required")
        weak = client_.call("POST", path, json={}, headers={"If-Match": 'W/"3"'})
        assert weak.status_code == 412

    def test_matching_etag_returns_304(self, client_: Person, funded: dict[str, Any]) -> None:
        first = client_.get(f"/escrows/{funded['id']}")
        assert first.headers["ETag"] == '"3"'
        again = client_.get(f"/escrows/{funded['id']}", headers={"If-None-Match": '"3"'})
        assert (again.status_code, again.data) == (304, b"")

    def test_worker_releases_after_silence_once(
        self, world: World, freelancer: Person, funded: dict[str, Any]
    ) -> None:
        freelancer.act(milestone_path(funded, "submit"), 3)
        now = world.parts.context.now
        early = ExpireSilence(world.parts.store, world.parts.escrows, now)
        assert early() == 0
        later = Context(lambda: now() + timedelta(days=8), world.parts.context.new_id)
        escrows = EscrowUseCases(later, FeePolicy(500))
        job = ExpireSilence(world.parts.store, escrows, later.now)
        assert (job(), job()) == (1, 0)
        assert world.available(freelancer) == 5_700

    def test_lists_have_signed_cursors(
        self, world: World, client_: Person, freelancer: Person
    ) -> None:
        for i in range(5):
            client_.call("POST", "/escrows", json=world.proposal(freelancer, i + 1))
            world.deposit(client_, i + 1)
        wallet = client_.get("/wallets").json["items"][0]["id"]
        for path, count in ((f"/wallets/{wallet}/entries", 5), ("/escrows", 5)):
            seen, cursor = [], ""
            while True:
                page = client_.get(f"{path}?limit=2{cursor}").json
                seen += [item["id"] for item in page["items"]]
                if page["next_cursor"] is None:
                    break
                cursor = f"&cursor={page['next_cursor']}"
            assert len(seen) == len(set(seen)) == count
            assert seen == sorted(seen, reverse=True)
        narrowed = client_.get(f"{path}?limit=2").json["next_cursor"]
        assert client_.get(f"{path}?state=draft&cursor={narrowed}").status_code == 422
        forged = client_.get(f"/escrows?cursor={page['next_cursor']}x")
        assert forged.status_code == 422
        stolen = client_.get(f"{path}?limit=2").json["next_cursor"]
        assert freelancer.get(f"{path}?cursor={stolen}").status_code == 422

    def test_escrows_are_filtered_by_state_and_party(
        self, world: World, client_: Person, freelancer: Person, funded: dict[str, Any]
    ) -> None:
        draft = freelancer.call("POST", "/escrows", json=world.proposal(client_, 1)).json

        def ids(query: str) -> list[str]:
            return [each["id"] for each in client_.get(f"/escrows?{query}").json["items"]]

        assert ids("") == [draft["id"], funded["id"]]
        assert ids("state=funded") == ids("party=client") == [funded["id"]]
        assert ids("state=draft") == ids("party=freelancer") == [draft["id"]]
        assert ids("state=funded&party=freelancer") == []
        for query in ("state=nonsense", "party=arbiter", "state="):
            assert client_.get(f"/escrows?{query}").status_code == 422

    def test_list_of_fifty_needs_few_queries(self, world: World, client_: Person) -> None:
        for i in range(1, 60):
            world.deposit(client_, i)
        wallet = client_.get("/wallets").json["items"][0]["id"]
        with counted(world.parts.engine) as asked:
            assert len(client_.get(f"/wallets/{wallet}/entries").json["items"]) == 50
        assert 0 < len(asked) <= 3


class TestIdempotency:
    def test_repeated_request_returns_first_response_and_moves_nothing(
        self, world: World, client_: Person, freelancer: Person, funded: dict[str, Any]
    ) -> None:
        freelancer.act(milestone_path(funded, "submit"), 3)
        path = milestone_path(funded, "approve")
        first = client_.act(path, 4, key="the-same-key")
        again = client_.act(path, 4, key='"the-same-key"')
        assert (first.status_code, again.status_code) == (200, 200)
        assert first.json == again.json
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        assert again.headers["ETag"] == first.headers["ETag"]
        assert world.available(freelancer) == 5_700

    def test_idempotency_key_cannot_be_reused_for_another_request(
        self, world: World, client_: Person, freelancer: Person
    ) -> None:
        headers = {"Idempotency-Key": "the-same-key"}
        path = "/escrows"
        body = world.proposal(freelancer, 1)
        assert client_.call("POST", path, json=body, headers=headers).status_code == 201
        other = client_.call("POST", path, json=world.proposal(freelancer, 2), headers=headers)
        assert (other.status_code, other.json["code"]) == (422, "idempotency-key-reused")
        assert len(client_.get("/escrows").json["items"]) == 1

    def test_idempotency_keys_belong_to_their_caller(
        self, world: World, client_: Person, freelancer: Person
    ) -> None:
        headers = {"Idempotency-Key": "the-same-key"}
        for caller, other in ((client_, freelancer), (freelancer, client_)):
            made = caller.call("POST", "/escrows", json=world.proposal(other, 1), headers=headers)
            assert made.status_code == 201
            assert "Idempotent-Replayed" not in made.headers

    @pytest.mark.parametrize("key", ["", "short", "x" * 256, "with space in it"])
    def test_money_movement_requires_idempotency_key(
        self, client_: Person, funded: dict[str, Any], key: str
    ) -> None:
        headers = {"If-Match": '"3"', **({"Idempotency-Key": key} if key else {})}
        found = client_.call("POST", f"/escrows/{funded['id']}/cancel", json={}, headers=headers)
        assert (found.status_code, found.json["code"]) == (400, "idempotency-key-missing")

    def test_rejected_request_leaves_the_key_unused(
        self, world: World, client_: Person, freelancer: Person
    ) -> None:
        made = client_.call("POST", "/escrows", json=world.proposal(freelancer, 100)).json
        freelancer.act(f"/escrows/{made['id']}/accept", 1)
        path = f"/escrows/{made['id']}/fund"
        assert client_.act(path, 2, key="the-same-key").status_code == 409
        world.deposit(client_, 100)
        assert client_.act(path, 2, key="the-same-key").status_code == 200

    def test_worker_deletes_old_idempotency_records(
        self, world: World, client_: Person, freelancer: Person
    ) -> None:
        headers = {"Idempotency-Key": "the-same-key"}
        client_.call("POST", "/escrows", json=world.proposal(freelancer, 1), headers=headers)
        now = world.parts.context.now
        assert ForgetAnswers(world.parts.store, now)() == 0
        later = ForgetAnswers(world.parts.store, lambda: now() + timedelta(days=3))
        assert (later(), later()) == (1, 0)


class TestEveryRoute:
    """Tests over the route map, which include every new route."""

    def test_missing_or_invalid_token_returns_401(self, world: World, client_: Person) -> None:
        """The token is checked before the request; `void` has a valid signature but is revoked."""
        import jwt

        good = jwt.decode(client_.token, options={"verify_signature": False})
        void = jwt.encode({**good, "ver": good["ver"] - 1}, SECRET_KEY, algorithm="HS256")
        given = (
            {},
            *({"Authorization": each} for each in ("Basic eA==", "Bearer x", f"Bearer {void}")),
        )
        for operation, _ in OPERATIONS:
            if operation.roles is not None:
                path = operation.path.replace("{", "").replace("}", "")
                for header in given:
                    found = world.client.open(
                        f"{API}{path}", method=operation.method, headers=header
                    )
                    assert found.status_code == 401, operation.name
                    assert found.content_type == "application/problem+json"

    def test_resources_of_another_user_return_404(
        self, world: World, client_: Person, funded: dict[str, Any]
    ) -> None:
        eve = world.person("eve")
        wallet = client_.get("/wallets").json["items"][0]["id"]
        names = {
            "escrow": funded["id"],
            "milestone": funded["milestones"][0]["id"],
            "wallet": wallet,
            "provider": "nobody",
            **world.payments_of(client_),
            "dispute": f"{funded['id']}.{funded['milestones'][0]['id']}",
        }
        asked = 0
        for operation, _ in OPERATIONS:
            if "{" not in operation.path:
                continue
            asked += 1
            path = operation.path.format(**names)
            if operation.method == "GET":
                found = eve.get(path)
            else:
                body = {"to_client_basis_points": 0} if "dispute" in path else {}
                found = eve.act(path, 3, body=body if "resolve" in path else {})
            forbidden = operation.roles is not None and Role.MEMBER not in operation.roles
            assert found.status_code == (403 if forbidden else 404), operation.name
            assert "A shop" not in found.text
        assert asked >= 10
        for operation, _ in OPERATIONS:
            if operation.method == "GET" and "{" not in operation.path:
                text = eve.get(operation.path).text
                assert not [name for name in names.values() if name in text], operation.name
        # Arbiters and administrators cannot read the wallets of users.
        for role in (Role.ARBITER, Role.ADMIN):
            other = world.person(role.value, role)
            for operation, _ in OPERATIONS:
                path = operation.path.format(**names)
                if operation.method == "GET" and path != operation.path and "escrow" not in path:
                    assert other.get(path).status_code == 404, (role, operation.name)
        assert client_.get(f"/escrows/{funded['id']}").json == funded

    def test_milestone_of_another_escrow_returns_404(
        self, world: World, client_: Person, freelancer: Person, funded: dict[str, Any]
    ) -> None:
        eve = world.person("eve")
        mine = eve.call("POST", "/escrows", json=world.proposal(freelancer, 1)).json
        for operation, _ in OPERATIONS:
            if "{escrow}" in operation.path and "{milestone}" in operation.path:
                path = operation.path.format(
                    escrow=mine["id"], milestone=funded["milestones"][0]["id"]
                )
                assert eve.act(path, 1).status_code == 404, operation.name

    @pytest.mark.parametrize(
        "headers",
        [
            {"Idempotency-Key": "clé-éééééééé", "If-Match": '"1"'},
            {"Idempotency-Key": "x" * 60_000, "If-Match": '"1"'},
            {"Idempotency-Key": "good-enough", "If-Match": '"' + "9" * 5_000 + '"'},
            {"Idempotency-Key": "good-enough", "If-Match": '"-1", *'},
            {"Idempotency-Key": '""""""""""', "If-Match": "*"},
            {"Authorization": "Bearer " + "a" * 60_000},
            {"Authorization": "Bearer a.b.c é"},
            {"Authorization": "Bearer"},
            {"Content-Type": "application/json; charset=ebcdic; charset=\x01"},
            {"Content-Encoding": "gzip", "Content-Type": "application/json"},
            {"Content-Length": "-1"},
            {"Content-Length": "nonsense"},
            {"X-Forwarded-For": "';--", "X-Request-ID": "é" * 20, "Host": "evil example"},
            {"Accept": "image/png", "Range": "bytes=-1"},
        ],
        ids=lambda headers: "+".join(headers),
    )
    def test_malformed_headers_return_client_errors(
        self, client_: Person, headers: dict[str, str]
    ) -> None:
        for operation, _ in OPERATIONS:
            path = operation.path.replace("{", "").replace("}", "")
            found = client_.call(operation.method, path, data=b"{}", headers=headers)
            assert found.status_code < 500, (operation.name, found.text)
            if found.status_code >= 400:
                assert found.content_type == "application/problem+json", operation.name

    def test_members_cannot_use_admin_endpoints(self, world: World, client_: Person) -> None:
        paths = [o.path for o, _ in OPERATIONS if o.path.startswith("/admin")]
        assert paths
        for path in paths:
            assert client_.get(path).status_code == 403

    def test_malformed_bodies_are_rejected(self, world: World, client_: Person) -> None:
        bodies = [
            (b"", 400),
            (b"{", 400),
            (b"\xff\xfe", 400),
            (b"[" * 50_000, 400),
            (b"null", 422),
            (b"[]", 422),
            (b'{"surprise": 1}', 422),
            (b'{"title": "a\\u0000b"}', 422),
            (b'{"title": "\\ud800"}', 400),
        ]
        for operation, _ in OPERATIONS:
            if operation.body is None or operation.raw or not operation.body.model_fields:
                continue
            if operation.roles is not None and Role.MEMBER not in operation.roles:
                continue
            path = operation.path.replace("{", "").replace("}", "")
            for body, status in bodies:
                found = client_.call(
                    operation.method, path, data=body, content_type="application/json"
                )
                assert found.status_code == status, (operation.name, body[:20], found.text)
            text = client_.call(operation.method, path, data="x", content_type="text/plain")
            assert text.status_code == 415

    @pytest.mark.parametrize("amount", [0, -1, 1.5, "1.005", "1e5", "-1", True, None, 10**16, ""])
    def test_only_plain_amounts_are_accepted(
        self, world: World, client_: Person, freelancer: Person, amount: object
    ) -> None:
        found = client_.call("POST", "/escrows", json=world.proposal(freelancer, amount))
        assert found.status_code == 422, found.text

    @pytest.mark.parametrize(
        "path", ["/escrows/%00", "/escrows/%F0%9F%92%A9", "/escrows/a%20b", "/escrows/" + "x" * 300]
    )
    def test_malformed_ids_return_404(self, client_: Person, path: str) -> None:
        assert client_.get(path).status_code == 404

    @pytest.mark.parametrize("query", ["limit=0", "limit=x", "limit=-1", "cursor=", "cursor=x.y"])
    def test_malformed_cursors_are_rejected(self, client_: Person, query: str) -> None:
        assert client_.get(f"/escrows?{query}").status_code == 422


def test_malformed_tokens_are_rejected(world: World, client_: Person) -> None:
    import jwt

    good = jwt.decode(client_.token, options={"verify_signature": False})
    wrong: list[str] = [
        jwt.encode(good, None, algorithm="none"),
        jwt.encode(good, "another project's key, long enough it is", algorithm="HS256"),
        jwt.encode(good, SECRET_KEY * 2, algorithm="HS512"),
        *(
            jwt.encode({**good, **change}, SECRET_KEY, algorithm="HS256")
            for change in (
                {"aud": "another"},
                {"iss": "another"},
                {"exp": 1},
                {"exp": "soon"},
                {"ver": 2},
                {"ver": "1"},
                {"sub": "nobody"},
            )
        ),
        *(
            jwt.encode({k: v for k, v in good.items() if k != claim}, SECRET_KEY, "HS256")
            for claim in good
        ),
    ]
    for token in wrong:
        client_.token = token
        assert client_.get("/auth/me").status_code == 401, jwt.get_unverified_header(token)


def test_openapi_document_describes_every_operation(world: World) -> None:
    document = world.client.get(f"{API}/openapi.json").json
    described = {
        (method.upper(), path) for path, methods in document["paths"].items() for method in methods
    }
    probes = {("GET", f"{API}/{name}") for name in ("ping", "version", "readiness", "health")}
    assert described == probes | {(o.method, f"{API}{o.path}") for o, _ in OPERATIONS}
    names = set(document["components"]["schemas"])
    used = set(json.dumps(document).split("#/components/schemas/"))
    assert {u.partition('"')[0] for u in used if not u.startswith("{")} <= names


def test_local_signing_key_is_created_once_and_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from amani_app.settings import signing_key

    settings = Settings(data_dir=tmp_path / "data")
    key = signing_key(settings)
    assert len(key) == 64
    assert signing_key(settings) == key
    (file,) = (tmp_path / "data").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
