"""Check the words of the documentation, docstrings, comments and messages.

    python -m workshop.quality.prose [--all] [--counts] [PATH ...]

Reads Markdown without its code, Python docstrings and comments, messages (string literals of four
words or more, except in tests), the names of tests, and YAML comments. Exits with 1 if a rule
matches more often than it allows, and with 2 if a path does not exist or Python does not parse.

A script of its own, since Vale is no Python package (the one on PyPI downloads a binary at its
first start) and proselint reads plain text only, with its own fixed rules.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from workshop.quality.prose_rules import (
    DOCSTRING_WORDS,
    NAME_LENGTH,
    NAME_WORDS,
    QUOTING,
    RULES,
    SHORT_DOCSTRING,
    TEST_NAME,
    Rule,
)

ROOT = Path(__file__).resolve().parents[2]
PLACES = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "docs",
    "amani_app",
    "deploy",
    "workshop",
    "tasks.py",
    "tests",
    "config",
    ".github",
)
SUFFIXES = {".md", ".py", ".yml", ".yaml"}
MESSAGE_WORDS = 4

_WORD = re.compile(r"[A-Za-z][\w'-]*")
_INLINE_CODE = re.compile(r"(?<!`)(`+)(?!`)(?:.|\n(?!\s*\n))+?(?<!`)\1(?!`)")
_FENCE = re.compile(r"^([ \t>]*)(```+|~~~+).*?(?:^[ \t>]*\2[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_MARKDOWN_OTHER = re.compile(r"<!--.*?-->|\]\([^)\s]*\)|https?://\S+", re.DOTALL)
_PYTHON = re.compile(
    r"(?P<comment>\#[^\n]*)"
    r"|(?P<prefix>\b[rRbBfFuU]{1,2})?"
    r"(?P<quote>'''|\"\"\"|'|\")(?P<body>(?:\\.|(?!(?P=quote)).)*)(?P=quote)",
    re.DOTALL,
)
_IN_STRING = re.compile(r"\\[nrt]|\{[^{}\n]*\}")
_SQL = re.compile(
    r"\s*\(?(?:ALTER|BEGIN|CREATE|DELETE|DROP|FROM|GRANT|INSERT|SELECT|SET|UPDATE|WITH)\b"
)
_PRAGMA = re.compile(r"#\s*(?:noqa|type:|nosec|pragma|pylint|fmt:|!|hadolint|shellcheck).*")
_YAML_COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)
# Decorators that publish the docstring: as the help of a command, as the summary of a route.
_PUBLISHING = {"task", "command", "operation"}
# Bases that define no method which a subclass overrides with its own docstring.
_PLAIN_BASES = {"Protocol", "ABC", "NamedTuple", "TypedDict", "Enum", "StrEnum", "IntEnum"}


@dataclass(frozen=True)
class Source:
    """A file: its path relative to the root, with slashes, and its content."""

    path: str
    content: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree of a Python file. Raises `SyntaxError` if there is none."""
        return ast.parse(self.content, self.path)

    @property
    def is_test(self) -> bool:
        """Whether only docstrings, comments and names are checked: literals in tests are data."""
        return self.path.startswith("tests/")


@dataclass(frozen=True)
class Text:
    """A passage: its file, the line that it begins on, and its prose with the code blanked out."""

    path: str
    line: int
    prose: str


@dataclass(frozen=True)
class WordMatch:
    """A match of a rule at a line of a file."""

    path: str
    line: int
    rule: Rule
    excerpt: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule.name}: {self.excerpt} — {self.rule.write}"


@dataclass(frozen=True)
class Rate:
    """The matches of a rule over all words of a kind."""

    rule: Rule
    kind: str
    count: int
    words: int

    @property
    def per_thousand(self) -> float:
        """Matches per 1,000 words; 0 if there are no words."""
        return 1000 * self.count / self.words if self.words else 0.0

    @property
    def exceeded(self) -> bool:
        """Whether there are more matches than the rule allows."""
        return self.count > self.rule.allowed * self.words / 1000

    def __str__(self) -> str:
        return (
            f"{self.rule.name:<16} {self.kind:<5}{self.count:>6}"
            f"{self.per_thousand:>8.2f} per 1,000 words, allowed {self.rule.allowed:g}"
        )


@dataclass(frozen=True)
class ProseReport:
    """All findings in the order of the files, and one rate for each rule and kind."""

    findings: list[WordMatch]
    rates: list[Rate]

    @property
    def failures(self) -> list[WordMatch]:
        """The findings of the rules that match more often than they allow."""
        exceeded = {(rate.rule.name, rate.kind) for rate in self.rates if rate.exceeded}
        return [f for f in self.findings if (f.rule.name, kind_of(f.path)) in exceeded]


def check(sources: Iterable[Source]) -> ProseReport:
    """Check all sources but those that quote forbidden words.

    Raises `SyntaxError` if a Python file cannot be parsed.
    """
    findings: list[WordMatch] = []
    words: Counter[str] = Counter()
    for source in sources:
        if source.path in QUOTING:
            continue
        here: list[WordMatch] = []
        for text in texts(source):
            words[kind_of(text.path)] += len(_WORD.findall(text.prose))
            here += matches(text)
        if source.path.endswith(".py"):
            here += definitions(source)
        findings += sorted(here, key=lambda finding: finding.line)
    counts = Counter((finding.rule.name, kind_of(finding.path)) for finding in findings)
    rates = [
        Rate(rule, kind, counts[rule.name, kind], words[kind])
        for rule in (*RULES, SHORT_DOCSTRING, TEST_NAME)
        for kind in ("docs", "code")
    ]
    return ProseReport(findings, rates)


def kind_of(path: str) -> str:
    """`docs` for a Markdown file, `code` for any other."""
    return "docs" if path.endswith(".md") else "code"


def texts(source: Source) -> Iterator[Text]:
    """The passages of a file that a person reads as prose; their lines are those of the file."""
    path, content = source.path, source.content
    if path.endswith(".md"):
        yield Text(path, 1, _blank(content, _FENCE, _INLINE_CODE, _MARKDOWN_OTHER))
    elif path.endswith(".py"):
        yield from _python_texts(source)
    else:
        yield from _joined(path, content, [m.span() for m in _YAML_COMMENT.finditer(content)])


def matches(text: Text) -> Iterator[WordMatch]:
    """The findings of the rules that have a pattern."""
    for rule, pattern in _COMPILED:
        for match in pattern.finditer(text.prose):
            before = text.prose[max(0, match.start() - 80) : match.start()].lower().split()
            if before and before[-1] in rule.not_after:
                continue
            line = text.line + text.prose.count("\n", 0, match.start())
            yield WordMatch(text.path, line, rule, _excerpt(text.prose, match))


def definitions(source: Source) -> Iterator[WordMatch]:
    """Too short docstrings of public definitions outside tests; unclear names of tests."""
    if source.is_test:
        for each in _statements(source.tree.body):
            if isinstance(each, ast.FunctionDef) and _unclear(each.name):
                yield WordMatch(source.path, each.lineno, TEST_NAME, each.name)
        return
    for node in _public(source.tree.body):
        doc = ast.get_docstring(node)
        if doc is not None and len(doc.split()) < DOCSTRING_WORDS and not _is_published(node):
            line = node.body[0].lineno
            yield WordMatch(source.path, line, SHORT_DOCSTRING, f'{node.name}: "{doc}"')


def files(places: Sequence[str], root: Path = ROOT) -> list[Path]:
    """The files to read below `places`, each once, in order.

    Raises `FileNotFoundError` for a place that does not exist.
    """
    found: dict[Path, None] = {}
    for place in places:
        path = root / place
        if not path.exists():
            raise FileNotFoundError(f"{place} does not exist in {root}")
        below = sorted(path.rglob("*")) if path.is_dir() else [path]
        found |= dict.fromkeys(each for each in below if each.suffix in SUFFIXES)
    return list(found)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the failures and the rates; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workshop.quality.prose")
    parser.add_argument("paths", nargs="*", metavar="PATH", help="default: the whole repository")
    parser.add_argument("--all", action="store_true", help="list the allowed matches, too")
    parser.add_argument("--counts", action="store_true", help="print counts per folder only")
    options = parser.parse_args(arguments)
    if options.paths:
        places = [str(Path(path).resolve()) for path in options.paths]
    else:
        places = [place for place in PLACES if (ROOT / place).exists()]
    try:
        listed = files(places)
        report = check(Source(_name(path), path.read_text(encoding="utf-8")) for path in listed)
    except (FileNotFoundError, SyntaxError) as error:
        print(f"cannot check the words: {error}", file=sys.stderr)
        return 2
    if options.counts:
        print(_table(report))
        return 0
    for finding in report.findings if options.all else report.failures:
        print(finding)
    for rate in report.rates:
        if rate.count:
            print(f"{rate}{': FAILED' if rate.exceeded else ''}")
    return 1 if report.failures else 0


def _python_texts(source: Source) -> Iterator[Text]:
    path, content = source.path, source.content
    bare = _bare_strings(source.tree)
    comments: list[tuple[int, int]] = []
    docstrings: list[tuple[int, int]] = []
    literals: list[tuple[int, int]] = []
    for token in _PYTHON.finditer(content):
        if token["comment"] is not None:
            if not _PRAGMA.match(token["comment"]):
                comments.append(token.span())
        elif "b" in (token["prefix"] or "").lower():
            continue
        elif content.count("\n", 0, token.start()) + 1 in bare:
            docstrings.append(token.span())
        elif not source.is_test:
            literals.append(token.span())
    yield from _joined(path, content, comments)
    yield from _joined(path, content, docstrings)
    for text in _joined(path, content, literals):
        if len(_WORD.findall(text.prose)) >= MESSAGE_WORDS and not _SQL.match(text.prose):
            yield text


def _bare_strings(tree: ast.Module) -> set[int]:
    """The lines that a string which is a whole statement begins on: docstrings, notes on names."""
    return {
        node.lineno
        for node in _statements(tree.body)
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }


def _statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """All statements, nested ones included; `ast.walk` visits each expression and takes longer."""
    for node in body:
        yield node
        for field in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(node, field, []))
        for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
            yield from _statements(part.body)


def _joined(path: str, content: str, spans: list[tuple[int, int]]) -> Iterator[Text]:
    """One text for spans with only white space between: a comment of several lines, or the
    parts of one literal. A blank line ends it."""
    start, parts, last = 0, list[str](), 0
    for begin, end in spans:
        gap = content[last:begin]
        if parts and gap.count("\n") < 2 and not gap.strip():
            parts.append(gap)
        else:
            if parts:
                yield _text(path, content, start, parts)
            start, parts = begin, []
        parts.append(_unquoted(content[begin:end]))
        last = end
    if parts:
        yield _text(path, content, start, parts)


def _text(path: str, content: str, start: int, parts: list[str]) -> Text:
    return Text(path, content.count("\n", 0, start) + 1, _blank("".join(parts), _INLINE_CODE))


def _unquoted(token: str) -> str:
    """A comment without its mark, or a literal without its quotes and replacement fields."""
    if token.startswith("#"):
        return token.lstrip("#")
    match = _PYTHON.fullmatch(token)
    body = match["body"] if match else token
    return _IN_STRING.sub(lambda m: " " if m[0][0] == "\\" else "·", body)


def _blank(text: str, *patterns: re.Pattern[str]) -> str:
    """Replace code by dots, so that lines stay and no rule matches in it."""
    for pattern in patterns:
        text = pattern.sub(lambda match: re.sub(r"\S", "·", match[0]), text)
    return text


def _excerpt(prose: str, match: re.Match[str]) -> str:
    start = max(0, match.start() - 25)
    end = min(len(prose), match.start() + 45)
    return "“" + " ".join(prose[start:end].split()) + "”"


def _public(
    body: list[ast.stmt], override: bool = False
) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if not isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if node.name.startswith("_"):
            continue
        if isinstance(node, ast.ClassDef):
            yield node
            bases = {ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases}
            yield from _public(node.body, override=bool(bases - _PLAIN_BASES))
        elif not override:
            yield node


def _is_published(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = (each.func if isinstance(each, ast.Call) else each for each in node.decorator_list)
    return any(ast.unparse(name).split(".")[-1] in _PUBLISHING for name in names)


def _unclear(name: str) -> bool:
    return name.startswith("test_") and bool(len(name) > NAME_LENGTH or NAME_WORDS.search(name))


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.as_posix()


def _table(report: ProseReport) -> str:
    """Counts of each rule for each top folder; all files at the top are one column."""
    counts = Counter((f.rule.name, _top(f.path)) for f in report.findings)
    tops = sorted({top for _, top in counts})
    lines = ["".join([f"{'':<16}", *(f"{top:>12}" for top in [*tops, "all"])])]
    for name in dict.fromkeys(rate.rule.name for rate in report.rates):
        row = [counts[name, top] for top in tops]
        lines.append("".join([f"{name:<16}", *(f"{count:>12}" for count in [*row, sum(row)])]))
    return "\n".join(lines)


def _top(path: str) -> str:
    return path.split("/")[0] if "/" in path else "(top)"


_COMPILED = [(rule, rule.compiled()) for rule in RULES]


if __name__ == "__main__":
    sys.exit(main())
