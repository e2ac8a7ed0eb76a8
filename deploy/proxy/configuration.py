"""The proxy's configuration as text. Pure: from settings and weights to `haproxy.cfg`."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import PurePosixPath

from deploy.proxy.settings import (
    BACKEND,
    CERTIFICATES,
    FOLDER,
    MAINTENANCE,
    PUBLIC,
    ProxySettings,
)
from deploy.state.facts import FULL_WEIGHT, SLOTS, Slot, Weights

RETRY = 0.1
"""Seconds between two checks of a slot that is down: a booted slot is found within this time."""

HTTP, HTTPS, METRICS = 8080, 8443, 8404
"""Ports inside the container, none of which needs a capability. `METRICS` is never published."""

_PROBLEM = "application/problem+json"

_ERRORS = {
    400: ("Bad Request", "The request could not be read."),
    408: ("Request Timeout", "The request did not arrive in time."),
    500: ("Internal Server Error", "The proxy failed."),
    502: ("Bad Gateway", "The service gave no valid answer."),
    503: ("Service Unavailable", "The service is not available at the moment."),
    504: ("Gateway Timeout", "The service did not answer in time."),
}
_RETRY_AFTER = {503: 5}
_MAINTENANCE_RETRY_AFTER = 60


def hash_configuration(settings: ProxySettings) -> str:
    """A hash of the configuration without the weights: a shift leaves it unchanged."""
    return hashlib.sha256(_body(settings, {}).encode()).hexdigest()[:16]


def render(settings: ProxySettings, weights: Weights) -> str:
    """The whole `haproxy.cfg`. A slot without a weight gets no traffic; without any weight the
    proxy answers 503 to every request.

    The running proxy repeats the hash in `show info`, so that its loaded configuration can be
    compared with the wanted one.
    """
    head = f"""\
# Written by the deployer; changes by hand are overwritten.
global
    description "{hash_configuration(settings)}"
"""
    return head + _body(settings, weights)


def read_weights(text: str) -> Weights:
    """The weights that a rendered configuration starts with: the slots that get traffic."""
    found: dict[Slot, int] = {}
    for slot in SLOTS:
        line = re.search(rf"^ +server {slot} \S+(?: weight (\d+))?$", text, re.MULTILINE)
        if line and (weight := int(line[1] or FULL_WEIGHT)):
            found[slot] = weight
    return found


def with_weights(text: str, weights: Weights) -> str:
    """A rendered configuration with other weights and no other change."""
    for slot in SLOTS:
        share = _share(slot, weights)
        text = re.sub(rf"^( +server {slot} \S+).*$", rf"\1{share}", text, flags=re.MULTILINE)
    return text


def _share(slot: Slot, weights: Weights) -> str:
    weight = weights.get(slot, 0)
    return f" weight {weight}" + ("" if weight else " disabled")


def _body(settings: ProxySettings, weights: Weights) -> str:
    parts = (
        _global(settings),
        _defaults(settings),
        *_frontends(settings),
        _metrics(),
        _backend(settings, weights),
    )
    return "\n".join(parts)


def _global(settings: ProxySettings) -> str:
    return f"""\
    log stdout format raw local0 info
    # If the engine allows fewer open files, serve fewer connections instead of not starting.
    no strict-limits
    maxconn {settings.max_connections}
    hard-stop-after {_time(settings.timeouts.server + settings.timeouts.http_keep_alive)}
    user haproxy
    group haproxy
    ssl-default-bind-options ssl-min-ver TLSv1.2 no-tls-tickets
"""


def _defaults(settings: ProxySettings) -> str:
    timeouts = settings.timeouts
    errors = "\n".join(
        f"    http-error status {status} {_problem(status, *words, _RETRY_AFTER.get(status))}"
        for status, words in _ERRORS.items()
    )
    return f"""\
defaults
    mode http
    log global
    timeout connect {_time(timeouts.connect)}
    timeout client {_time(timeouts.client)}
    timeout server {_time(timeouts.server)}
    timeout http-request {_time(timeouts.http_request)}
    timeout http-keep-alive {_time(timeouts.http_keep_alive)}
    timeout queue {_time(timeouts.queue)}
    timeout check {_time(settings.health.timeout)}
    option http-ignore-probes
{errors}
"""


def _frontends(settings: ProxySettings) -> list[str]:
    if not settings.tls:
        return [_public(settings, f"bind :{HTTP}", "http")]
    certificate = PurePosixPath(CERTIFICATES) / PurePosixPath(settings.certificate or "").name
    bind = f"bind :{HTTPS} ssl crt {certificate} alpn h2,http/1.1"
    hsts = (
        "    http-after-response set-header Strict-Transport-Security"
        ' "max-age=31536000; includeSubDomains"\n'
    )
    return [_redirect(settings), _public(settings, bind, "https") + hsts]


def _redirect(settings: ProxySettings) -> str:
    port = "" if settings.https_port == 443 else f":{settings.https_port}"
    location = f"https://%[req.hdr(Host),regsub(:[0-9]+$,)]{port}%[pathq]"
    return f"""\
frontend redirect
    bind :{HTTP}
    http-request redirect code 308 location {location}
"""


def _public(settings: ProxySettings, bind: str, scheme: str) -> str:
    maintenance = _problem(503, *_ERRORS[503], _MAINTENANCE_RETRY_AFTER)
    hidden = _problem(404, "Not Found", "There is nothing here.")
    return f"""\
frontend public
    {bind}
    # A reload must not close a kept-alive connection while its client sends a request.
    option idle-close-on-response
    log-format "%{{+json}}o {_LOG}"
    acl one_request_id req.hdr_cnt(X-Request-ID) eq 1
    acl good_request_id req.hdr(X-Request-ID) -m reg ^[A-Za-z0-9._-]{{8,64}}$
    http-request set-header X-Request-ID %[uuid] unless one_request_id good_request_id
    http-request set-var(txn.request_id) req.hdr(X-Request-ID)
    acl has_request_id var(txn.request_id) -m found
    http-after-response set-header X-Request-ID %[var(txn.request_id)] if has_request_id
    acl maintenance str(on) -m str -f {FOLDER}/{MAINTENANCE}
    http-request return status 503 {maintenance} if maintenance
    # Forwarding headers from clients are not trusted, in any spelling.
    http-request del-header ^(x[-_](forwarded|real)|forwarded$) -m reg
    http-request set-header X-Forwarded-For %[src]
    http-request set-header X-Forwarded-Proto {scheme}
    acl known path,url_dec -m beg {" ".join(PUBLIC)}
    http-request return status 404 {hidden} unless known
    default_backend {BACKEND}
"""


def _metrics() -> str:
    return f"""\
frontend metrics
    bind :{METRICS}
    no log
    http-request use-service prometheus-exporter if {{ path /metrics }}
    http-request return status 404
"""


_LOG = " ".join(
    (
        "%(time)[accept_date(ms),ms_utime(%Y-%m-%dT%H:%M:%S.%3NZ)]",
        "%(client)ci",
        "%(method)HM",
        "%(path)HPO",
        "%(status:sint)ST",
        "%(bytes:sint)B",
        "%(slot)s",
        "%(connect_ms:sint)Tc",
        "%(response_ms:sint)Tr",
        "%(ms:sint)Ta",
        "%(end)ts",
        "%(retries:sint)rc",
        "%(request_id)[var(txn.request_id)]",
    )
)


def _backend(settings: ProxySettings, weights: Weights) -> str:
    health = settings.health
    servers = "\n".join(
        f"    server {slot} {settings.slot_addresses[slot]}:{health.port}{_share(slot, weights)}"
        for slot in SLOTS
    )
    return f"""\
backend {BACKEND}
    balance roundrobin
    # Only a request that never reached a slot is sent again, at once and to the other slot if
    # that one serves. This is safe for requests that must not happen twice.
    retries 3
    retry-on conn-failure
    option redispatch 1
    http-reuse safe
    option httpchk
    http-check send meth GET uri {health.path} ver HTTP/1.1 hdr Host {settings.check_host}
    http-check expect status 200
    # A booting slot is checked often. A serving slot that begins to fail is checked at the same
    # interval and is given time: no other slot serves, so taking a busy one out helps no request.
    default-server inter {_time(health.interval)} downinter {_time(RETRY)}
    default-server check rise 1 fall 5 pool-purge-delay 5s
{servers}
"""


def _problem(status: int, title: str, detail: str, retry_after: int | None = None) -> str:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    header = f" hdr Retry-After {retry_after}" if retry_after else ""
    return f"content-type {_PROBLEM} string '{json.dumps(body)}'{header}"


def _time(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"
