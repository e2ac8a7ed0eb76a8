from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amani_app.domain.errors import MoneyError
from amani_app.domain.money import EXPONENTS, LARGEST, Money, total

currencies = st.sampled_from(sorted(EXPONENTS))
monies = st.builds(Money, st.integers(-LARGEST, LARGEST), currencies)


@given(monies)
def test_formatted_amount_parses_to_itself(money: Money) -> None:
    assert Money.parse(money.major, money.currency) == money


@given(
    st.integers(0, LARGEST),
    st.lists(st.integers(0, 10_000), min_size=1, max_size=20).filter(any),
)
def test_allocation_loses_nothing_and_is_proportional(minor: int, weights: list[int]) -> None:
    money = Money(minor, "NGN")
    parts = money.allocate(weights)
    assert total(parts, "NGN") == money
    for part, weight in zip(parts, weights, strict=True):
        exact = minor * weight // sum(weights)
        assert exact <= part.minor <= exact + 1


@given(st.integers(-(10**12), 10**12), st.integers(-(10**12), 10**12))
def test_arithmetic_matches_integers(a: int, b: int) -> None:
    x, y = Money(a, "NGN"), Money(b, "NGN")
    assert (x + y).minor == a + b
    assert (x - y).minor == a - b
    assert (-x).minor == -a
    assert (x < y) is (a < b)
    assert bool(x) is bool(a)


@pytest.mark.parametrize(
    ("text", "currency", "minor"),
    [("1500.50", "NGN", 150050), ("0.5", "NGN", 50), ("-7", "USD", -700), ("12", "XOF", 12)],
)
def test_major_units_are_parsed(text: str, currency: str, minor: int) -> None:
    assert Money.parse(text, currency) == Money(minor, currency)


@pytest.mark.parametrize(
    ("text", "currency"),
    [
        ("1.005", "NGN"),
        ("1.0", "XOF"),
        ("1e3", "NGN"),
        ("", "NGN"),
        ("1,000", "NGN"),
        (" 1", "NGN"),
        ("1.", "NGN"),
        ("NaN", "NGN"),
        ("١٢", "NGN"),
        ("9" * 16, "NGN"),
        ("9" * 17, "NGN"),
    ],
)
def test_anything_but_a_plain_decimal_is_rejected(text: str, currency: str) -> None:
    with pytest.raises(MoneyError):
        Money.parse(text, currency)


@pytest.mark.parametrize("minor", [1.0, True, "1", None, LARGEST + 1])
def test_only_integers_within_bounds_are_amounts(minor: Any) -> None:
    with pytest.raises(MoneyError):
        Money(minor, "NGN")


def test_unknown_currency_is_rejected() -> None:
    with pytest.raises(MoneyError, match="'ABC' is none of the currencies NGN"):
        Money(1, "ABC")


@pytest.mark.parametrize(
    "across", [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a < b, lambda a, b: a >= b]
)
def test_currencies_do_not_mix(across: Callable[[Money, Money], object]) -> None:
    with pytest.raises(MoneyError, match="not of one currency"):
        across(Money(1, "NGN"), Money(1, "USD"))


def test_plain_number_is_not_money() -> None:
    with pytest.raises(MoneyError):
        Money(1, "NGN") + 1  # type: ignore[operator]


@pytest.mark.parametrize(("minor", "weights"), [(-1, [1]), (1, [0, 0]), (1, [2, -1])])
def test_invalid_allocation_is_rejected(minor: int, weights: list[int]) -> None:
    with pytest.raises(MoneyError):
        Money(minor, "NGN").allocate(weights)


def test_rest_goes_to_largest_remainder_then_to_first_part() -> None:
    assert [m.minor for m in Money(100, "NGN").allocate([1, 1, 1])] == [34, 33, 33]
    assert [m.minor for m in Money(10, "NGN").allocate([15, 85])] == [2, 8]


def test_amount_is_formatted_with_currency() -> None:
    assert str(Money(-5, "NGN")) == "NGN -0.05"
    assert str(Money(1500, "XOF")) == "XOF 1500"
