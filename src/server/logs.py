"""Logs: structlog's lines on stderr, for people or as JSON. stdout stays clean."""

from __future__ import annotations

import logging
import sys
from typing import Literal

import structlog


def configure_logs(level: str, style: Literal["console", "json"]) -> None:
    """Set up logging for the process, once, from its settings.

    Tracebacks come without the values of variables: those are what clients said, and keys.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`.
        style: `console` for people (coloured on a terminal), `json` for machines, one object a line.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    finish: list[structlog.typing.Processor]
    if style == "json":
        told = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        finish = [structlog.processors.ExceptionRenderer(told), structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        finish = [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
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
    # Our own library speaks to the standard module, as libraries do; here its lines look like all others.
    own = logging.getLogger("asr")
    own.setLevel(number)
    own.propagate = False
    own.handlers = [_ToStructlog()]
    # Libraries that use the standard module speak up when something is wrong, and otherwise not.
    logging.basicConfig(
        level=max(number, logging.WARNING), stream=sys.stderr, format="%(levelname)s %(name)s %(message)s"
    )


class _ToStructlog(logging.Handler):
    """Lines of the standard module, in the house's format."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        trace = {"exc_info": record.exc_info} if record.exc_info else {}
        structlog.get_logger(record.name).log(record.levelno, record.getMessage(), logger=record.name, **trace)
