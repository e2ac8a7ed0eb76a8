"""Fincra's notices (webhooks): the signature over the raw bytes, and the content.

Fincra's sample verifies JSON that was parsed and serialized again. That differs from the body for
names that are not ASCII and for whole amounts, so the signature is verified over the raw bytes.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from typing import Any

from amani_app.ports.payments import ForgedNotice, ProviderNotice, NoticeKind

KINDS: Mapping[str, NoticeKind] = {
    "charge": NoticeKind.COLLECTION,
    "collection": NoticeKind.COLLECTION,
    "payout": NoticeKind.PAYOUT,
    # Fincra's documentation is inconsistent about the names of account events.
    "account": NoticeKind.ACCOUNT,
    "virtualaccount": NoticeKind.ACCOUNT,
    **dict.fromkeys(("approved", "declined", "issued", "changed", "closed"), NoticeKind.ACCOUNT),
}
REFERENCES = ("customerReference", "merchantReference", "reference", "chargeReference")
"""Fields that may hold our reference, the most reliable first."""
THEIRS: Mapping[NoticeKind, tuple[str, ...]] = {
    NoticeKind.INFLOW: ("reference",),
    NoticeKind.ACCOUNT: ("id", "_id"),
}
"""Fields that hold Fincra's id, for kinds that have no reference of ours."""
LABEL = re.compile(r"[A-Za-z0-9._-]{1,32}")
REFERENCE = re.compile(r"[A-Za-z0-9._-]{1,64}")


def sign(secret: str, raw: bytes) -> str:
    """The value of the `signature` header: hexadecimal HMAC-SHA512."""
    return hmac.new(secret.encode(), raw, hashlib.sha512).hexdigest()


def read(secret: str, raw: bytes, signature: str) -> ProviderNotice:
    if not hmac.compare_digest(sign(secret, raw).encode(), signature.encode("utf-8", "replace")):
        raise ForgedNotice
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("the notice is no JSON") from None
    match body:
        case {"event": str(event), "data": dict(data)} if LABEL.fullmatch(event):
            return _notice(event, data)
    raise ValueError("a notice has an event and its data")


def _notice(event: str, data: Mapping[str, Any]) -> ProviderNotice:
    kind = KINDS.get(event.partition(".")[0], NoticeKind.OTHER)
    if event.startswith("collection.") and data.get("virtualAccount"):
        kind = NoticeKind.INFLOW
    named = (str(data.get(name) or "") for name in THEIRS.get(kind, REFERENCES))
    reference = next((name for name in named if REFERENCE.fullmatch(name)), "")
    if kind is NoticeKind.ACCOUNT and not reference:
        # An event like "approved" without an id may concern something else.
        kind = NoticeKind.OTHER
    if kind is not NoticeKind.OTHER and not reference:
        raise ValueError(f"a notice of {event} names what it is about")
    status = str(data.get("status", ""))
    return ProviderNotice(kind, event, reference, status if LABEL.fullmatch(status) else "")
