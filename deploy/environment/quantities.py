"""Quantities in an environment file: `30s`, `2m`, `512MB`, `50%`.

`pydantic.ByteSize` is not used: it reads `1,5GB` as one byte and `50%` as 50.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

_DURATIONS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZES = {
    "B": 1,
    **{unit: 1000**power for power, unit in enumerate(("KB", "MB", "GB", "TB"), 1)},
    **{unit: 1024**power for power, unit in enumerate(("KIB", "MIB", "GIB", "TIB"), 1)},
}
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", re.ASCII)


def parse_duration(value: Any) -> float:
    """Seconds from a number of seconds or from text such as `500ms`, `30s`, `2m`, `1h`, `7d`.

    Raises `ValueError` for any other value, including negative numbers.
    """
    return _parse_amount(value, _DURATIONS, "a duration such as 30s, 2m or 1h", str.lower)


def parse_size(value: Any) -> int:
    """Bytes from a number of bytes or from text such as `512MB` (10^6) or `512MiB` (2^20).

    Raises `ValueError` for any other value, including negative numbers.
    """
    return round(_parse_amount(value, _SIZES, "a size such as 512MB, 1.5GB or 512MiB", str.upper))


def parse_batch(value: Any) -> int | str:
    """A number of hosts (1 or more), or a share of them from `1%` to `100%`.

    Raises `ValueError` for any other value.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d?%|100%", value, re.ASCII):
        return value
    raise ValueError('must be a number of hosts such as 1, or a share of them such as "50%"')


def _parse_amount(
    value: Any, units: Mapping[str, float], wanted: str, fold: Callable[[str], str]
) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        return float(value)
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or fold(found[2]) not in units:
        raise ValueError(f"must be {wanted}")
    return float(found[1]) * units[fold(found[2])]
