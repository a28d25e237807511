"""Logs: structlog's lines on stderr, for people or as JSON. stdout stays clean.

Every line goes through here, those of libraries too: what clients wrote cannot pass for a line of ours, and lines that
say the same over and over are bounded (`server.telemetry.repeats`).
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, WrappedLogger

from server.log_output import LogOutput
from server.telemetry.repeats import Repeats

LEFT_OUT = "lines left out"
ALWAYS = frozenset({"stream opened", "stream closed", "final", "nim", LEFT_OUT})
"""Never left out: the lines that a stream has once, what was said, for those who ask for that, and what a NIM prints,
which has a bound of its own."""

_KIND = "_kind"
"""What a line is counted as where its text is not always the same; it is not printed."""
# What a terminal would obey, or show as the end of a line, or as text that runs the other way.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_MAX_DEPTH = 6
_repeated: RepeatedLines | None = None


def configure_logs(
    level: str, style: Literal["console", "json"], *, clock: Callable[[], float] = time.monotonic
) -> RepeatedLines:
    """Set up logging for the process, once, from its settings.

    Tracebacks come without the values of variables: those are what clients said, and keys.

    Args:
        level: `debug`, `info`, `warning`, `error` or `critical`.
        style: `console` for people (coloured on a terminal), `json` for machines, one object a line.
        clock: steady seconds, for the bound of lines that repeat.

    Returns:
        What counts the lines that were left out; `tell` it when the process ends.
    """
    number = logging.getLevelNamesMapping()[level.upper()]
    finish: list[structlog.typing.Processor]
    if style == "json":
        told = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        finish = [structlog.processors.ExceptionRenderer(told), _what_first, structlog.processors.JSONRenderer()]
    else:
        plain = structlog.dev.plain_traceback
        render = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
        finish = [structlog.processors.format_exc_info, escape, render]
    repeated = RepeatedLines(clock)
    output = LogOutput(clock, lambda: repeated.on_left_out(), _tell_unread)
    global _repeated
    _repeated = repeated
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            repeated,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *finish,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _Stderr(output),
        cache_logger_on_first_use=False,
    )
    # Our own library speaks to the standard module, as libraries do; here its lines look like all others.
    own = logging.getLogger("asr")
    own.setLevel(number)
    own.propagate = False
    own.handlers = [_ToStructlog()]
    # Libraries that use the standard module speak up when something is wrong, and otherwise not.
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[_ToStructlog()])
    return repeated


def on_left_out(told: Callable[[], None]) -> None:
    """Call `told` for each line that says the same too often and is not written, in whatever thread that is."""
    if _repeated is not None:
        _repeated.on_left_out = told


class RepeatedLines:
    """A processor that drops what is said too often, and says how much that was.

    Attributes:
        on_left_out: called for each line that is dropped.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._repeats = Repeats()
        self._lock = threading.RLock()  # as that of `LogOutput`
        self.on_left_out: Callable[[], None] = _nobody

    def __call__(self, logger: WrappedLogger, name: str, event: EventDict) -> EventDict:
        """A line, or `structlog.DropEvent`."""
        what = str(event.get("event", ""))
        kind = str(event.pop(_KIND, what))
        if what in ALWAYS:
            return event
        self.tell()
        with self._lock:
            passes = self._repeats.admit(f"{event.get('level', name)}: {kind}", self._clock())
        if not passes:
            self.on_left_out()
            raise structlog.DropEvent
        return event

    def tell(self, *, all_of_them: bool = False) -> None:
        """Say how many lines were left out in each window that is over; `all_of_them`: in those that last, too."""
        with self._lock:
            told = self._repeats.over(self._clock(), all_of_them=all_of_them)
        for kind, count in told:
            structlog.get_logger("server.logs").warning(LEFT_OUT, like=kind, count=count)


class _Stderr:
    """A logger of structlog's: its lines go to the file that is stderr when it is made."""

    def __init__(self, output: LogOutput) -> None:
        self._output = output
        self._file = sys.stderr

    def msg(self, message: str) -> None:
        """Write a line, if it can be written."""
        self._output.write(self._file, message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


def _nobody() -> None:
    pass


def _tell_unread(count: int) -> None:
    structlog.get_logger("server.logs").warning(LEFT_OUT, like="all: nobody read the log", count=count)


def _what_first(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    # For people who read JSON.
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def escape(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    r"""A processor: signs that a terminal obeys become `\x1b` and the like.

    A traceback keeps its line ends and is indented: its message may have several lines, which a client wrote, and none
    of them must begin like a line of ours.
    """
    trace = event.pop("exception", None)
    safe: EventDict = {_safe_text(str(key)): _safe(value, _MAX_DEPTH) for key, value in event.items()}
    if trace is not None:
        safe["exception"] = "\n".join("    " + _safe_text(line) for line in str(trace).split("\n"))
    return safe


def _safe(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return _safe_text(value)
    if value is None or isinstance(value, int | float):
        return value
    if depth and isinstance(value, dict):
        return {_safe(key, 0): _safe(inner, depth - 1) for key, inner in value.items()}
    if depth and isinstance(value, list | tuple):
        return [_safe(inner, depth - 1) for inner in value]
    return _safe_text(repr(value))


def _safe_text(text: str) -> str:
    return _UNSAFE.sub(_spelled, text) if _UNSAFE.search(text) else text


def _spelled(found: re.Match[str]) -> str:
    number = ord(found[0])
    return {9: "\\t", 10: "\\n", 13: "\\r"}.get(number) or (f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}")


class _ToStructlog(logging.Handler):
    """Lines of the standard module, in the house's format."""

    def emit(self, record: logging.LogRecord) -> None:
        """Pass a line on."""
        try:
            trace = {"exc_info": record.exc_info} if record.exc_info else {}
            kind = {_KIND: f"{record.name}: {record.msg}"[:200]}
            line = structlog.get_logger(record.name)
            line.log(record.levelno, record.getMessage(), logger=record.name, **kind, **trace)
        except Exception:
            self.handleError(record)
