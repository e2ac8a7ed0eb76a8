"""Logging: one JSON object a line on stderr, from our own code and from every library."""

from __future__ import annotations

import logging
import logging.config
import sys
import typing as t

import structlog
from structlog.typing import Processor

_SHARED: tuple[Processor, ...] = (
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


class _Stderr:
    """Whatever ``sys.stderr`` is at the moment of writing; loggers live longer than it."""

    def write(self, line: str) -> None:
        sys.stderr.write(line)

    def flush(self) -> None:
        sys.stderr.flush()


def configure_logging(level: str = "INFO", style: str = "json") -> None:
    """Send everything to stderr from *level* up; *style* is ``json`` or ``console``.

    Stdout belongs to what a command prints: ``flask db current`` is read by programs.
    """
    render = _renderer(style)
    structlog.configure(
        processors=[*_SHARED, structlog.processors.format_exc_info, render],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.WriteLoggerFactory(t.cast(t.TextIO, _Stderr())),
        cache_logger_on_first_use=True,
    )
    logging.config.dictConfig(library_logging(level, render))


def library_logging(level: str, render: Processor | None = None) -> dict[str, t.Any]:
    """The stdlib's configuration: all loggers to the root, the root to stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "line": {
                "()": structlog.stdlib.ProcessorFormatter,
                "processors": [
                    structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                    structlog.processors.format_exc_info,
                    render or _renderer("json"),
                ],
                "foreign_pre_chain": [*_SHARED, structlog.stdlib.add_logger_name],
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "line",
            }
        },
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {
            # gunicorn attaches handlers of its own unless told otherwise.
            "gunicorn.error": {"level": level, "handlers": [], "propagate": True},
            "gunicorn.access": {"level": "ERROR", "handlers": [], "propagate": True},
            "alembic.runtime.plugins": {"level": "WARNING"},
        },
    }


def _renderer(style: str) -> Processor:
    if style == "console":
        return structlog.dev.ConsoleRenderer()
    return structlog.processors.JSONRenderer()
