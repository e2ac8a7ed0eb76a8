"""The rules of `workshop.quality.prose`: words that the documentation and messages do not use.

Each rule follows docs/glossary.md or the style section of CONTRIBUTING.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """A pattern and its replacement.

    `allowed` is the number of matches per 1,000 words that the check accepts, counted over all
    documentation or over all code. A heuristic rule needs some; 0 means that each match fails.
    In `pattern`, one space stands for any run of spaces and line breaks. A match directly after one
    of the words `not_after` does not count. A rule without a pattern has its own function in
    `workshop.quality.prose`.
    """

    name: str
    write: str
    pattern: str = ""
    allowed: float = 0.0
    not_after: frozenset[str] = frozenset()

    def compiled(self) -> re.Pattern[str]:
        """The pattern as `re` takes it, with each space widened to any white space."""
        return re.compile(self.pattern.replace(" ", r"\s+"))


# After these words, "where" introduces a place or an indirect question, which is correct English.
_BEFORE_A_PLACE = frozenset(
    (
        "address bucket column container database directory environment file folder host image"
        " line machine network page part path place places point position region registry row"
        " section server slot somewhere spot step table version"
        " about at by for from in of on to"
        " check checks choose chooses decide decides find finds know knows matters record records"
        " remember remembers report reports say says see show shows tell tells"
    ).split()
)

# A verb of place in the same clause makes the clause one of place: "where the value comes from".
_NOT_PLACED = (
    r"(?![^.;:|]{0,40}?\b(?:(?:come|comes|came|coming) from|copied to|kept|stored|lie|lies|look"
    r"|looks|looked|point|points|listen|listens|found)\b)"
)

RULES = (
    Rule(
        "where",
        'write "if" or "when"; keep "where" for a place',
        rf"(?<![\w.-])[wW]here(?![\w.(=?-])(?! (?:to|and|or)\b){_NOT_PLACED}",
        allowed=0.3,
        not_after=_BEFORE_A_PLACE,
    ),
    Rule(
        "what-opening",
        "write the noun that it stands for, and open the sentence with it",
        # To the end of the sentence, which is no question.
        r"\bWhat(?:'s)? [\w'*`·](?:[^.?!|\n]|\n(?!\s*\n)|[.?!](?=\w))*+(?!\?)",
        allowed=0.05,
    ),
    Rule(
        "nobody",
        "name the role (the user, the operator), or use the passive",
        r"(?i)\b(?:nobody|somebody|whoever|no one)\b(?!-|@| -)",
    ),
    Rule(
        "tell-of",
        'write "report", "describe" or "contain"',
        r"(?i)\b(?:tell|tells|telling|told) of\b",
    ),
    Rule(
        "go-back",
        'write "roll back" for a release, "return" for money or a value',
        r"(?i)\b(?:go|goes|going|gone|went) back\b|\bway back\b",
    ),
    Rule(
        "release-before",
        'write "previous release", or "earlier release" for any before it',
        r"(?i)\brelease(?:'s)? before\b(?! \d)",
    ),
    Rule(
        "away",
        'write "is unreachable"',
        r"(?i)(?:\b(?:is|are|was|were|be|been|being)|'s) away\b",
    ),
    Rule("payout", 'write "payout"', r"(?i)\bpay-outs?\b"),
    Rule("deposit", 'write "deposit"', r"(?i)\bpay-ins?\b"),
    Rule(
        "stand-by",
        'write "standby" for the container, "stays as the standby" for what it does',
        r"(?i)\b(?:stand|stands|standing|stood) by\b(?! itself)",
    ),
    Rule(
        "give-back",
        'write "return"; for a lock, "release"; for a reservation, "void"',
        r"(?i)\b(?:give|gives|giving|given|gave)(?: (?!to\b)\w+){0,2} back\b",
    ),
    Rule(
        "take-back",
        'write "revert" for a step or a run, "restore" for a database',
        r"(?i)\b(?:take|takes|taking|taken|took)(?: (?!to\b)\w+){0,2} back\b",
    ),
    Rule(
        "word",
        'write "status", "answer" or "output"',
        r"(?i)\b(?:\w+'s|its|their)(?: own)? words?\b",
    ),
    Rule("surroundings", 'write "environment"', r"(?i)\bsurroundings\b"),
    Rule("practice-host", 'write "practice host"', r"(?i)\bfleet members?\b"),
)

SHORT_DOCSTRING = Rule(
    "short-docstring",
    "write behaviour, shapes, units or errors, or remove it",
)
TEST_NAME = Rule(
    "test-name",
    "write the condition and the outcome in at most 80 characters, in the words of the docs",
)

NAME_LENGTH = 80
NAME_WORDS = re.compile(r"_(?:nobody|somebody|whoever|what|where)(?:_|$)")
DOCSTRING_WORDS = 6

# Files that quote the words which the rules forbid.
QUOTING = (
    "docs/glossary.md",
    "tests/unit/workshop/quality/test_prose.py",
    "workshop/quality/prose_rules.py",
)
