"""Money: an integer of minor units in one ISO 4217 currency, never a float."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import total_ordering

from amani_app.domain.errors import MoneyError

EXPONENTS: Mapping[str, int] = {
    "NGN": 2,
    "GHS": 2,
    "KES": 2,
    "ZAR": 2,
    "USD": 2,
    "EUR": 2,
    "GBP": 2,
    "UGX": 0,
    "XOF": 0,
}
"""Currency -> digits after the decimal point (ISO 4217). Stored amounts depend on it."""

LARGEST = 10**15
"""The largest amount in minor units. Sums of thousands of them still fit a 64-bit integer."""

_DECIMAL = re.compile(r"(-?)(\d{1,16})(?:\.(\d{1,4}))?", re.ASCII)


@total_ordering
@dataclass(frozen=True)
class Money:
    """`minor` units of `currency`; may be negative. Compares and adds within one currency only."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise MoneyError(f"an amount is an integer of minor units, not {self.minor!r}")
        if self.currency not in EXPONENTS:
            known = ", ".join(EXPONENTS)
            raise MoneyError(f"{self.currency!r} is none of the currencies {known}")
        if abs(self.minor) > LARGEST:
            raise MoneyError(f"{self.minor} is beyond {LARGEST} minor units")

    @classmethod
    def zero(cls, currency: str) -> Money:
        return cls(0, currency)

    @classmethod
    def parse(cls, text: str, currency: str) -> Money:
        """The amount that `text` writes in major units, such as `"1500.50"`.

        Raises `MoneyError` when it is no plain decimal or has more digits than the currency.
        """
        found = _DECIMAL.fullmatch(text)
        exponent = cls.zero(currency).exponent
        if not found or len(found[3] or "") > exponent:
            raise MoneyError(f"{text!r} is no amount of {currency} ({exponent} decimals at most)")
        minor = int(found[2] + (found[3] or "").ljust(exponent, "0"))
        return cls(-minor if found[1] else minor, currency)

    @property
    def exponent(self) -> int:
        return EXPONENTS[self.currency]

    @property
    def major(self) -> str:
        """In major units, with all the digits: `1500.50`."""
        sign = "-" if self.minor < 0 else ""
        digits = str(abs(self.minor)).rjust(self.exponent + 1, "0")
        if not self.exponent:
            return sign + digits
        return f"{sign}{digits[: -self.exponent]}.{digits[-self.exponent:]}"

    def __str__(self) -> str:
        return f"{self.currency} {self.major}"

    def __add__(self, other: Money) -> Money:
        return Money(self.minor + self._same(other).minor, self.currency)

    def __sub__(self, other: Money) -> Money:
        return Money(self.minor - self._same(other).minor, self.currency)

    def __neg__(self) -> Money:
        return Money(-self.minor, self.currency)

    def __lt__(self, other: Money) -> bool:
        return self.minor < self._same(other).minor

    def __bool__(self) -> bool:
        return self.minor != 0

    def allocate(self, weights: Sequence[int]) -> tuple[Money, ...]:
        """Divide by `weights` without a loss (largest remainder): 100 by (1, 2) is 33 and 67.

        Ties go to the earlier part. Raises `MoneyError` for a negative amount, a negative
        weight, or weights without a sum.
        """
        total = sum(weights)
        if self.minor < 0 or total <= 0 or min(weights) < 0:
            raise MoneyError(f"{self} cannot be divided by the weights {list(weights)}")
        parts = [self.minor * weight // total for weight in weights]
        by_remainder = sorted(
            range(len(weights)), key=lambda i: (-(self.minor * weights[i] % total), i)
        )
        for index in by_remainder[: self.minor - sum(parts)]:
            parts[index] += 1
        return tuple(Money(part, self.currency) for part in parts)

    def _same(self, other: Money) -> Money:
        if not isinstance(other, Money) or other.currency != self.currency:
            raise MoneyError(f"{self} and {other!s} are not of one currency")
        return other


def total(amounts: Iterable[Money], currency: str) -> Money:
    """The sum of `amounts`, all in `currency`."""
    return sum(amounts, Money.zero(currency))
