"""Logs: structlog's lines on stderr, for people or as JSON. stdout stays clean."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure_logs(level: str, style: Literal["console", "json"]) -> None:
    """Set up logging for the process, once, from its settings.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`.
        style: `console` for people (coloured on a terminal), `json` for machines, one object a line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    finish: list[structlog.typing.Processor]
    if style == "json":
        finish = [structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()]
    else:
        finish = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *finish,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries that use the standard module speak up when something is wrong, and otherwise not.
    logging.basicConfig(
        level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )
