"""The choice of a console: JSON lines, a terminal or plain lines."""

from __future__ import annotations

import os
import sys
from typing import TextIO

from deploy.output.base_console import Console
from deploy.output.json_console import JsonConsole
from deploy.output.plain_console import PlainConsole
from deploy.output.rich_console import RichConsole


def choose_console(json: bool, stream: TextIO | None = None) -> Console:
    """Return the console for a stream (default: standard output).

    It prints JSON lines if `json` is true. It uses Rich if the stream is a capable terminal with
    UTF-8 and `CI` is not set. Otherwise it prints plain lines.
    """
    stream = sys.stdout if stream is None else stream
    if json:
        return JsonConsole(stream)
    capable = os.environ.get("TERM") not in (None, "", "dumb") and not os.environ.get("CI")
    unicode = (getattr(stream, "encoding", None) or "").lower().replace("-", "") == "utf8"
    return RichConsole(stream) if capable and unicode and stream.isatty() else PlainConsole(stream)
