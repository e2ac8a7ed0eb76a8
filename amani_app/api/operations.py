"""Operations: what a route is told once, and what is done for every one of them.

An ``Operation`` names its bodies, who may call it, and whether it moves money. From that come the
routing, the checks of headers, token and body, the idempotency, and the OpenAPI document.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import typing as t
from dataclasses import dataclass, field

import pydantic
import structlog
from flask import Blueprint, Response, current_app, request
from itsdangerous import BadSignature, URLSafeSerializer
from pydantic import BaseModel

from amani_app.api.limits import Kind, Limits
from amani_app.api.problems import ProblemDetails, RequestRefused
from amani_app.telemetry.requests import request_id
from amani_app.application.common.acting import Actor, Forbidden
from amani_app.container import Container, container
from amani_app.domain.users import Role
from amani_app.ports import store as stores
from amani_app.ports.identity import Claims, InvalidToken

IDS = re.compile(r"[A-Za-z0-9:._-]{1,200}")
KEYS = re.compile(r"[\x21-\x7e]{8,255}")
UNAUTHENTICATED = ProblemDetails(
    401,
    "unauthenticated",
    "A valid bearer token is needed.",
    headers={"WWW-Authenticate": 'Bearer realm="amani"'},
)
DEFAULT_PAGE = 50
LARGEST_PAGE = 100


@dataclass(frozen=True)
class Operation:
    """One route of the API; *handler* gets a ``Call`` and returns its answer's body."""

    method: str
    path: str
    name: str
    summary: str
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    status: int = 200
    roles: frozenset[Role] | None = frozenset(Role)
    """Who may; ``None`` is anyone, without a token."""
    money: bool = False
    """An Idempotency-Key is required; elsewhere it is honoured when a POST has one."""
    versioned: bool = False
    """If-Match is required, and the answer is an escrow with an ETag."""
    paged: bool = False
    filters: t.Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """What a list can be narrowed by: the query's parameters and their values."""
    quota: Kind | None = None
    """What it is counted as; else a GET is a read, and a POST a write."""
    problems: tuple[int, ...] = ()
    transactional: bool = True
    """False for what must do slow work outside the database's transaction."""
    prepare: t.Callable[[Call], t.Any] | None = None
    """Slow work before the transaction; what it returns is the call's ``prepared``."""
    complete: t.Callable[[Call, t.Any], BaseModel] | None = None
    """Slow work after the commit, which may better the answer; it must not fail."""
    private: bool = False
    """The body tells what must not be kept: an Idempotency-Key keeps only a keyed digest of it."""
    raw: bool = False
    """The handler reads the body itself; ``body`` only describes it."""
    headers: tuple[str, ...] = ()
    """Further headers that a request must have."""

    @property
    def slow(self) -> bool:
        """Whether something is done before the transaction, or without one: then the caller is
        let in before that, else in the transaction itself."""
        return not self.transactional or self.prepare is not None


@dataclass
class Call:
    """One request, checked."""

    parts: Container
    actor: Actor
    path: t.Mapping[str, str]
    body: t.Any = None
    version: int | None = None
    limit: int = DEFAULT_PAGE
    cursor: str | None = None
    filters: t.Mapping[str, str] = field(default_factory=dict)
    operation: str = ""
    key: str = ""
    """The Idempotency-Key."""
    prepared: t.Any = None
    unit: stores.UnitOfWork = field(default=t.cast(stores.UnitOfWork, None))

    def next_cursor(self, last: str | int | None) -> str | None:
        """The signed cursor of the page after *last*, for this caller and this operation."""
        if last is None:
            return None
        return _cursors().dumps([self.operation, self.actor.user, self.path_key(), str(last)])

    def path_key(self) -> str:
        """What the pages are of."""
        return "/".join([*self.path.values(), *(f"{k}={v}" for k, v in self.filters.items())])


@dataclass
class Authorizer:
    """Lets the caller in, in the role that they have now."""

    operation: Operation
    call: Call
    claims: Claims | None

    def ask(self) -> None:
        """In a unit of work of its own. Raises ``RequestRefused`` and ``Forbidden``."""
        if self.claims:
            self.call.parts.store.look(self._admit)

    def enter(self, unit: stores.UnitOfWork) -> None:
        """Begin *unit*, in which the caller is let in unless that was asked before."""
        if self.claims and not self.operation.slow:
            self._admit(unit)
        self.call.unit = unit

    def _admit(self, unit: stores.UnitOfWork) -> None:
        known, roles = self.call.actor, self.operation.roles or ()
        try:
            role = self.call.parts.people.admit(unit, t.cast(Claims, self.claims))
        except InvalidToken:
            raise RequestRefused(UNAUTHENTICATED) from None
        if role not in roles:
            raise Forbidden("your role does not allow this")
        self.call.actor = Actor(known.user, role, known.request_id, known.remote_addr)


Handler = t.Callable[[Call], BaseModel]


def register_operation(blueprint: Blueprint, operation: Operation, handler: Handler) -> None:
    """Route *operation* to *handler*."""

    def view(**path: str) -> Response:
        return _answer(operation, handler, path)

    rule = re.sub(r"{(\w+)}", r"<\1>", operation.path)
    blueprint.add_url_rule(rule, operation.name, view, methods=[operation.method])


def _answer(operation: Operation, handler: Handler, path: t.Mapping[str, str]) -> Response:
    if not all(IDS.fullmatch(value) for value in path.values()):
        raise RequestRefused(ProblemDetails(404, "not-found"))
    parts = container()
    claims = _recognized(operation, parts)
    call = Call(parts, _actor(claims), path, operation=operation.name)
    authorizer = Authorizer(operation, call, claims)
    if operation.slow:
        authorizer.ask()
    try:
        _read_request(operation, call)
    except RequestRefused:
        authorizer.ask()  # Who may not come in learns no more than that.
        raise
    if not operation.transactional:
        return _rendered(operation, handler(call))
    if operation.method != "GET":
        return _write(operation, call, authorizer, handler)

    def read(unit: stores.UnitOfWork) -> BaseModel:
        authorizer.enter(unit)
        return handler(call)

    return _not_modified(_rendered(operation, parts.store.read(read)))


def _read_request(operation: Operation, call: Call) -> None:
    """Fill *call* with what the request says. Raises ``RequestRefused``."""
    if not operation.raw:
        # Notices come from one address, all of them: one refused would be money come late.
        _count(operation, call.actor)
    if operation.paged:
        _read_page(call, operation)
    if operation.body is not None and not operation.raw:
        call.body = _read_body(operation.body)
    if operation.versioned:
        call.version = _read_version()
    if operation.method != "GET" and operation.transactional:
        call.key = _read_key(operation)


def _count(operation: Operation, actor: Actor) -> None:
    limits: Limits = current_app.extensions["amani-limits"]
    kind = operation.quota or ("read" if operation.method == "GET" else "write")
    # Guessing passwords is counted by where it comes from, whoever is asked for.
    here = operation.roles is None or kind == "sign-in"
    limits.count(kind, actor.remote_addr if here else actor.user)


def _write(operation: Operation, call: Call, authorizer: Authorizer, handler: Handler) -> Response:
    key = call.key
    whole = b"\n".join(
        (request.method.encode(), request.path.encode(), request.get_data(cache=True))
    )
    fingerprint = _fingerprint(operation, whole)

    if operation.prepare and not (key and _was_answered(call, key, fingerprint)):
        call.prepared = operation.prepare(call)

    def change(unit: stores.UnitOfWork) -> tuple[BaseModel | None, str]:
        if key:
            unit.idempotency.foresee(call.actor.user, key)
        authorizer.enter(unit)
        found = key and unit.idempotency.claim(call.actor.user, key, fingerprint)
        if found:
            return None, found.body
        model = handler(call)
        body = model.model_dump_json()
        if key:
            kept = stores.StoredResponse(operation.status, body)
            unit.idempotency.keep(call.actor.user, key, fingerprint, kept, call.parts.context.now())
        return model, body

    model, body = call.parts.store.run(change)
    if model is not None and operation.complete:
        model, body = _complete(operation.complete, call, model, key)
    response = _json(operation, body)
    if model is None:
        response.headers["Idempotent-Replayed"] = "true"
        model = operation.answer.model_validate_json(body)
    return _tagged(response, model)


def _fingerprint(operation: Operation, whole: bytes) -> str:
    """Tells requests apart. Of a short number in one, a digest without a key could be guessed.

    After a change of the signing key a repeat of a private request is another request.
    """
    if operation.private:
        key = t.cast(str, current_app.secret_key).encode()
        return hmac.new(key, b"idempotency\n" + whole, hashlib.sha256).hexdigest()
    return hashlib.sha256(whole).hexdigest()


def _was_answered(call: Call, key: str, fingerprint: str) -> bool:
    """Whether the transaction will find the answer: then nothing need be prepared for it."""
    claim = call.parts.store.read
    found = claim(lambda unit: unit.idempotency.claim(call.actor.user, key, fingerprint))
    return found is not None


def _complete(
    complete: t.Callable[[Call, t.Any], BaseModel], call: Call, model: BaseModel, key: str
) -> tuple[BaseModel, str]:
    """The bettered answer; a repeat of the request is given the same."""
    model = complete(call, model)
    body = model.model_dump_json()
    if key:
        call.parts.store.run(lambda unit: unit.idempotency.amend(call.actor.user, key, body))
    return model, body


def _recognized(operation: Operation, parts: Container) -> Claims | None:
    """What the token says of the caller; ``None`` where anyone may call."""
    if operation.roles is None:
        return None
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        if scheme.lower() != "bearer" or not token:
            raise InvalidToken
        claims = parts.people.recognize(token, second_factor=operation.quota == "pay-out")
    except InvalidToken:
        raise RequestRefused(UNAUTHENTICATED) from None
    structlog.contextvars.bind_contextvars(actor=claims.user)
    return claims


def _actor(claims: Claims | None) -> Actor:
    """The caller, in no role that matters: that is told when they are let in."""
    where = (request_id(), request.remote_addr or "")
    return Actor(claims.user if claims else "anonymous", Role.MEMBER, *where)


def _read_body(model: type[BaseModel]) -> BaseModel:
    raw = request.get_data(cache=True)
    if not model.model_fields and not raw:
        return model()
    if request.mimetype != "application/json":
        words = "The body must be application/json."
        raise RequestRefused(ProblemDetails(415, "unsupported-media-type", words))
    try:
        return model.model_validate_json(raw)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if any(each["type"] == "json_invalid" for each in found):
            raise RequestRefused(
                ProblemDetails(400, "invalid-json", "The body is no valid JSON.")
            ) from None
        fields = tuple(
            {"field": ".".join(map(str, e["loc"])), "message": e["msg"], "code": e["type"]}
            for e in found
        )
        words = "Some fields are not valid."
        raise RequestRefused(ProblemDetails(422, "invalid-request", words, errors=fields)) from None


def _read_version() -> int:
    given = request.headers.get("If-Match", "")
    if not given:
        words = "If-Match must name the version that was read."
        raise RequestRefused(ProblemDetails(428, "precondition-required", words))
    found = re.fullmatch(r'"([0-9]{1,9})"', given)
    if not found:
        raise RequestRefused(
            ProblemDetails(412, "stale-version", "If-Match names no version of this.")
        )
    return int(found[1])


def _read_key(operation: Operation) -> str:
    given = request.headers.get("Idempotency-Key", "")
    if len(given) > 2 and given[0] == given[-1] == '"':
        given = given[1:-1]
    if not given and not operation.money:
        return ""
    if not KEYS.fullmatch(given):
        words = "An Idempotency-Key of 8 to 255 printable characters is needed."
        raise RequestRefused(ProblemDetails(400, "idempotency-key-missing", words))
    return given


def _read_page(call: Call, operation: Operation) -> None:
    if unknown := set(request.args) - {"limit", "cursor", *operation.filters}:
        raise _invalid_query(min(unknown), "no parameter of this list", "extra_forbidden")
    given = request.args.get("limit", str(DEFAULT_PAGE)).lstrip("0")
    cursor = request.args.get("cursor")
    if not re.fullmatch(r"[0-9]+", given):
        raise _invalid_query("limit", "a whole number from 1 on", "int")
    call.limit = min(int(given[:9]), LARGEST_PAGE)
    call.filters = {name: request.args[name] for name in operation.filters if name in request.args}
    for name, value in call.filters.items():
        if value not in operation.filters[name]:
            words = f"one of {', '.join(operation.filters[name])}"
            raise _invalid_query(name, words, "enum")
    if cursor is None:
        return
    try:
        *owner, last = _cursors().loads(cursor)
    except (BadSignature, ValueError, TypeError):
        owner, last = [], ""
    if owner != [call.operation, call.actor.user, call.path_key()]:
        raise _invalid_query("cursor", "not one of this list", "cursor")
    call.cursor = last


def _invalid_query(name: str, message: str, code: str) -> RequestRefused:
    fields = ({"field": name, "message": message, "code": code},)
    return RequestRefused(
        ProblemDetails(422, "invalid-request", "The page is not valid.", errors=fields)
    )


def _cursors() -> URLSafeSerializer:
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"][::-1], current_app.secret_key]
    return URLSafeSerializer(keys, salt="cursor")  # the last one signs


def _rendered(operation: Operation, model: BaseModel) -> Response:
    return _tagged(_json(operation, model.model_dump_json()), model)


def _json(operation: Operation, body: str) -> Response:
    return Response(body, operation.status, content_type="application/json")


def _tagged(response: Response, model: BaseModel) -> Response:
    if (version := getattr(model, "version", None)) is not None:
        response.set_etag(str(version))
    return response


def _not_modified(response: Response) -> Response:
    if response.headers.get("ETag"):
        response.make_conditional(request)
    return response
