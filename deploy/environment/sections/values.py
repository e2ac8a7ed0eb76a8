"""Values of keys (durations, sizes, names, paths, addresses) and the base of all sections."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import math
import re
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from deploy.environment import quantities

Role = Literal["web", "worker"]
T = TypeVar("T")


class Section(BaseModel):
    # `defer_build`: only the whole `Environment` is ever validated, and it builds its parts once.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


def check_absolute(path: str) -> str:
    """The path without a slash at its end. Raises ValueError if it is not absolute."""
    if not path.startswith("/") or ".." in path.split("/"):
        raise ValueError("must be an absolute path")
    return path.rstrip("/") or "/"


def check_folder(path: str) -> str:
    """As `check_absolute`; the path may start with `~/`."""
    return "~" + check_absolute(path[1:]) if path.startswith("~/") else check_absolute(path)


def check_filled(values: tuple[T, ...]) -> tuple[T, ...]:
    """The values. Raises ValueError if there are none."""
    if not values:
        raise ValueError("must name at least one")
    return values


def check_subnet(text: str) -> str:
    """The network. Raises ValueError unless it is private IPv4 and has 14 addresses or more."""
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError:
        raise ValueError('must be an IPv4 network such as "172.29.10.0/24"') from None
    if not network.is_private or network.prefixlen > 28:
        raise ValueError("must be a private network with room for 14 addresses (/28 or larger)")
    return str(network)


def _check_ip(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        raise ValueError("must be an IP address") from None


def _check_host_key(text: str) -> str:
    kind, _, rest = text.partition(" ")
    try:
        blob = base64.b64decode(rest.split(" ")[0], validate=True)
    except binascii.Error:
        blob = b""
    if not kind or blob[4 : 4 + len(kind)] != kind.encode():
        raise ValueError('must be a public host key such as "ssh-ed25519 AAAA..."')
    return text


def _match(pattern: str, wanted: str) -> AfterValidator:
    """Accepts text that `pattern` matches as a whole; `wanted` names such text in the error."""
    compiled = re.compile(pattern, re.ASCII)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"must be {wanted}")
        return text

    return AfterValidator(check)


Seconds = Annotated[float, BeforeValidator(quantities.parse_duration)]
WholeSeconds = Annotated[
    int, BeforeValidator(lambda value: math.ceil(quantities.parse_duration(value)))
]
Bytes = Annotated[int, BeforeValidator(quantities.parse_size)]
Port = Annotated[int, Field(ge=1, le=65535)]
Name = Annotated[
    str, _match(r"[a-z][a-z0-9-]{0,30}", "lower-case letters, digits and dashes, at most 31")
]
Variable = Annotated[
    str, _match(r"[A-Za-z_][A-Za-z0-9_]*", "the name of a variable: letters, digits and _")
]
Value = Annotated[str, BeforeValidator(lambda v: str(v) if type(v) is int else v)]
AbsolutePath = Annotated[str, AfterValidator(check_absolute)]
HttpPath = Annotated[str, _match(r"/\S*", "a path that begins with /")]
JsonPointer = Annotated[str, _match(r"(/[^/]*)+", "a JSON pointer such as /checks/0/value")]
Address = Annotated[str, _match(r"[A-Za-z0-9:][A-Za-z0-9.:-]*", "a DNS name or an IP address")]
IpAddress = Annotated[str, AfterValidator(_check_ip)]
HostKey = Annotated[str, AfterValidator(_check_host_key)]
Command = Annotated[tuple[str, ...], AfterValidator(check_filled)]
Platform = Annotated[
    str, _match(r"linux/[a-z0-9]+(/v[0-9]+)?", "a platform such as linux/amd64 or linux/arm64")
]
Recipient = Annotated[
    str, _match(r"age1[a-z0-9]{50,}|ssh-(ed25519|rsa) \S+( .*)?", "a public age or SSH key")
]
Repository = Annotated[
    str,
    _match(
        r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]+)?(/[a-z0-9][a-z0-9._-]*)*",
        "a repository such as ghcr.io/owner/name, without a tag",
    ),
]
