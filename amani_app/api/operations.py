"""Operations: each route is declared once, and all share one request pipeline.

An `Operation` declares its bodies, who may call it, and whether it moves money. Routing, checks
of token, headers and body, idempotency, and the OpenAPI document follow from it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Mapping
from typing import Any, cast
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
    "A valid bearer token is required.",
    headers={"WWW-Authenticate": 'Bearer realm="amani"'},
)
DEFAULT_PAGE = 50
LARGEST_PAGE = 100


@dataclass(frozen=True)
class Operation:
    """One route of the API; its handler gets a `Call` and returns the response body."""

    method: str
    path: str
    name: str
    summary: str
    answer: type[BaseModel]
    body: type[BaseModel] | None = None
    status: int = 200
    roles: frozenset[Role] | None = frozenset(Role)
    """Roles that may call it; `None` needs no token."""
    money: bool = False
    """An Idempotency-Key is required; on any other POST it is optional."""
    versioned: bool = False
    """If-Match is required, and the response is an escrow with an ETag."""
    paged: bool = False
    filters: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Query parameters that filter a list, with their allowed values."""
    quota: Kind | None = None
    """The quota that it counts against; by default `read` for GET and `write` for POST."""
    problems: tuple[int, ...] = ()
    transactional: bool = True
    """False if the handler manages its own transactions, for example around password hashing."""
    prepare: Callable[[Call], Any] | None = None
    """Slow work before the transaction; its result is the call's `prepared`."""
    complete: Callable[[Call, Any], BaseModel] | None = None
    """Slow work after the commit that may complete the response; it must not fail."""
    private: bool = False
    """The body holds personal data: with an Idempotency-Key only a keyed digest of it is stored."""
    raw: bool = False
    """The handler reads the body itself; `body` is for the OpenAPI document only."""
    headers: tuple[str, ...] = ()
    """Further required headers."""

    @property
    def slow(self) -> bool:
        """Whether the caller is authorized before the transaction instead of inside it.

        True if the operation works before the transaction (`prepare`) or without one.
        """
        return not self.transactional or self.prepare is not None


@dataclass
class Call:
    parts: Container
    actor: Actor
    path: Mapping[str, str]
    body: Any = None
    version: int | None = None
    limit: int = DEFAULT_PAGE
    cursor: str | None = None
    filters: Mapping[str, str] = field(default_factory=dict)
    operation: str = ""
    key: str = ""
    """The Idempotency-Key."""
    prepared: Any = None
    unit: stores.UnitOfWork = field(default=cast(stores.UnitOfWork, None))

    def next_cursor(self, last: str | int | None) -> str | None:
        """The signed cursor of the page after `last`, for this caller and this operation."""
        if last is None:
            return None
        return _cursors().dumps([self.operation, self.actor.user, self.path_key(), str(last)])

    def path_key(self) -> str:
        return "/".join([*self.path.values(), *(f"{k}={v}" for k, v in self.filters.items())])


@dataclass
class Authorizer:
    """Authorizes the caller with their current role."""

    operation: Operation
    call: Call
    claims: Claims | None

    def ask(self) -> None:
        """Authorize in a unit of work of its own. Raises `RequestRefused` and `Forbidden`."""
        if self.claims:
            self.call.parts.store.look(self._admit)

    def enter(self, unit: stores.UnitOfWork) -> None:
        """Begin `unit`, and authorize in it unless `ask` has."""
        if self.claims and not self.operation.slow:
            self._admit(unit)
        self.call.unit = unit

    def _admit(self, unit: stores.UnitOfWork) -> None:
        known, roles = self.call.actor, self.operation.roles or ()
        try:
            role = self.call.parts.people.admit(unit, cast(Claims, self.claims))
        except InvalidToken:
            raise RequestRefused(UNAUTHENTICATED) from None
        if role not in roles:
            raise Forbidden("your role does not allow this")
        self.call.actor = Actor(known.user, role, known.request_id, known.remote_addr)


Handler = Callable[[Call], BaseModel]


def register_operation(blueprint: Blueprint, operation: Operation, handler: Handler) -> None:
    def view(**path: str) -> Response:
        return _answer(operation, handler, path)

    rule = re.sub(r"{(\w+)}", r"<\1>", operation.path)
    blueprint.add_url_rule(rule, operation.name, view, methods=[operation.method])


def _answer(operation: Operation, handler: Handler, path: Mapping[str, str]) -> Response:
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
        authorizer.ask()  # A caller without access gets no details of the request's errors.
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
    """Fill `call` from the request. Raises `RequestRefused`."""
    if not operation.raw:
        # All notices come from one address, and a refused notice would delay money.
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
    # Password guesses are counted by client address, not by account.
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
    """A digest that identifies the request.

    For a private request it is keyed, because a digest of a short number (a BVN) could be reversed
    by trying all of them. After a change of the signing key, a repeated private request counts as
    another request.
    """
    if operation.private:
        key = cast(str, current_app.secret_key).encode()
        return hmac.new(key, b"idempotency\n" + whole, hashlib.sha256).hexdigest()
    return hashlib.sha256(whole).hexdigest()


def _was_answered(call: Call, key: str, fingerprint: str) -> bool:
    """Whether the response is stored, so that `prepare` is not needed."""
    claim = call.parts.store.read
    found = claim(lambda unit: unit.idempotency.claim(call.actor.user, key, fingerprint))
    return found is not None


def _complete(
    complete: Callable[[Call, Any], BaseModel], call: Call, model: BaseModel, key: str
) -> tuple[BaseModel, str]:
    """The completed response, which a repeated request gets as well."""
    model = complete(call, model)
    body = model.model_dump_json()
    if key:
        call.parts.store.run(lambda unit: unit.idempotency.amend(call.actor.user, key, body))
    return model, body


def _recognized(operation: Operation, parts: Container) -> Claims | None:
    """The claims of the token; `None` if the operation needs no token."""
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
    """The caller with a provisional role; `Authorizer` sets the current one."""
    where = (request_id(), request.remote_addr or "")
    return Actor(claims.user if claims else "anonymous", Role.MEMBER, *where)


def _read_body(model: type[BaseModel]) -> BaseModel:
    raw = request.get_data(cache=True)
    if not model.model_fields and not raw:
        return model()
    if request.mimetype != "application/json":
        detail = "The body must be application/json."
        raise RequestRefused(ProblemDetails(415, "unsupported-media-type", detail))
    try:
        return model.model_validate_json(raw)
    except pydantic.ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        if any(each["type"] == "json_invalid" for each in found):
            raise RequestRefused(
                ProblemDetails(400, "invalid-json", "The body is not valid JSON.")
            ) from None
        fields = tuple(
            {"field": ".".join(map(str, e["loc"])), "message": e["msg"], "code": e["type"]}
            for e in found
        )
        detail = "Some fields are invalid; see `errors`."
        raise RequestRefused(
            ProblemDetails(422, "invalid-request", detail, errors=fields)
        ) from None


def _read_version() -> int:
    given = request.headers.get("If-Match", "")
    if not given:
        detail = "The If-Match header must hold the version that was read."
        raise RequestRefused(ProblemDetails(428, "precondition-required", detail))
    found = re.fullmatch(r'"([0-9]{1,9})"', given)
    if not found:
        raise RequestRefused(
            ProblemDetails(
                412, "stale-version", "If-Match must hold a version in quotes, as in the ETag."
            )
        )
    return int(found[1])


def _read_key(operation: Operation) -> str:
    given = request.headers.get("Idempotency-Key", "")
    if len(given) > 2 and given[0] == given[-1] == '"':
        given = given[1:-1]
    if not given and not operation.money:
        return ""
    if not KEYS.fullmatch(given):
        detail = "An Idempotency-Key of 8 to 255 printable characters is required."
        raise RequestRefused(ProblemDetails(400, "idempotency-key-missing", detail))
    return given


def _read_page(call: Call, operation: Operation) -> None:
    if unknown := set(request.args) - {"limit", "cursor", *operation.filters}:
        raise _invalid_query(min(unknown), "not a parameter of this list", "extra_forbidden")
    given = request.args.get("limit", str(DEFAULT_PAGE)).lstrip("0")
    cursor = request.args.get("cursor")
    if not re.fullmatch(r"[0-9]+", given):
        raise _invalid_query("limit", "must be an integer of at least 1", "int")
    call.limit = min(int(given[:9]), LARGEST_PAGE)
    call.filters = {name: request.args[name] for name in operation.filters if name in request.args}
    for name, value in call.filters.items():
        if value not in operation.filters[name]:
            detail = f"must be one of {', '.join(operation.filters[name])}"
            raise _invalid_query(name, detail, "enum")
    if cursor is None:
        return
    try:
        *owner, last = _cursors().loads(cursor)
    except (BadSignature, ValueError, TypeError):
        owner, last = [], ""
    if owner != [call.operation, call.actor.user, call.path_key()]:
        raise _invalid_query("cursor", "does not belong to this list", "cursor")
    call.cursor = last


def _invalid_query(name: str, message: str, code: str) -> RequestRefused:
    fields = ({"field": name, "message": message, "code": code},)
    return RequestRefused(
        ProblemDetails(
            422, "invalid-request", "A query parameter is invalid; see `errors`.", errors=fields
        )
    )


def _cursors() -> URLSafeSerializer:
    keys = [*current_app.config["SECRET_KEY_FALLBACKS"][::-1], current_app.secret_key]
    return URLSafeSerializer(keys, salt="cursor")  # the last key signs


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
