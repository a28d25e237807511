"""Everything that can go wrong, as one family of errors.

An engine or the library raises `ASRError`; a face translates its code with one table
(`server.refusals`) and never invents its own. Messages are written for people and never hold
upstream host names or credentials.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """What kind of failure it is. The values are spelled on the wire and never change."""

    BAD_REQUEST = "bad_request"
    """The request cannot be understood, or comes in the wrong order."""
    BAD_AUDIO = "bad_audio"
    """The audio is not what it claims to be, is empty, or cannot be decoded."""
    UNSUPPORTED = "unsupported"
    """The engine cannot do what was asked (and the caller chose to fail, not to be warned)."""
    UNAUTHORIZED = "unauthorized"
    """A credential is missing, wrong or expired."""
    FORBIDDEN = "forbidden"
    """The credential is good and does not allow this."""
    NOT_FOUND = "not_found"
    """No such model, language, session or job. The message names those there are."""
    SUPERSEDED = "superseded"
    """A newer connection has taken the session over."""
    EXPIRED = "expired"
    """The session can no longer be resumed: its window is over."""
    TOO_LARGE = "too_large"
    """A message, file or session is over a stated limit."""
    IDLE_TIMEOUT = "idle_timeout"
    """The client said nothing for longer than the stated bound."""
    SLOW_READER = "slow_reader"
    """The client does not read what it is sent."""
    STORAGE_FULL = "storage_full"
    """There is no room on the disk for what was sent."""
    RATE_LIMITED = "rate_limited"
    """The caller's own quota is used up."""
    OVERLOADED = "overloaded"
    """The engine or gateway is full; another may not be."""
    UNAVAILABLE = "unavailable"
    """The recognizer cannot be reached, or died."""
    TIMEOUT = "timeout"
    """The recognizer did not answer within its deadline."""
    INTERNAL = "internal"
    """A defect of ours or of the recognizer."""


class Action(StrEnum):
    """What the caller should do next."""

    RESUME = "resume"
    RESTART = "restart"
    WAIT = "wait"
    FIX_REQUEST = "fix_request"
    REAUTHENTICATE = "reauthenticate"
    NONE = "none"


_RETRYABLE = {
    Code.STORAGE_FULL,
    Code.RATE_LIMITED,
    Code.OVERLOADED,
    Code.UNAVAILABLE,
    Code.TIMEOUT,
    Code.IDLE_TIMEOUT,
    Code.SLOW_READER,
}

_ACTIONS = {
    Code.BAD_REQUEST: Action.FIX_REQUEST,
    Code.BAD_AUDIO: Action.FIX_REQUEST,
    Code.UNSUPPORTED: Action.FIX_REQUEST,
    Code.UNAUTHORIZED: Action.REAUTHENTICATE,
    Code.FORBIDDEN: Action.NONE,
    Code.NOT_FOUND: Action.FIX_REQUEST,
    Code.SUPERSEDED: Action.NONE,
    Code.EXPIRED: Action.RESTART,
    Code.TOO_LARGE: Action.FIX_REQUEST,
    Code.IDLE_TIMEOUT: Action.RESTART,
    Code.SLOW_READER: Action.RESTART,
    Code.STORAGE_FULL: Action.WAIT,
    Code.RATE_LIMITED: Action.WAIT,
    Code.OVERLOADED: Action.WAIT,
    Code.UNAVAILABLE: Action.RESTART,
    Code.TIMEOUT: Action.RESTART,
    Code.INTERNAL: Action.RESTART,
}


class ASRError(Exception):
    """A failure with a code, a sentence for people, and what to do about it.

    Attributes:
        code: the kind of failure.
        message: what happened and what to do, in one or two sentences.
        retryable: whether the same request may succeed later, as it is.
        retry_after_ms: how long to wait before that, where known.
        action: what the caller should do next.
        param: the name of the offending field or setting, where there is one.
        earlier: failures of earlier attempts at the same thing, oldest first.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        retryable: bool | None = None,
        retry_after_ms: int | None = None,
        action: Action | None = None,
        param: str | None = None,
        earlier: tuple[ASRError, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.retryable = code in _RETRYABLE if retryable is None else retryable
        self.retry_after_ms = retry_after_ms
        self.action = _ACTIONS[code] if action is None else action
        self.param = param
        self.earlier = earlier

    def __repr__(self) -> str:
        return f"ASRError({self.code.value}: {self.message!r})"


MAX_QUOTED_CHARS = 100


def quoted(name: str) -> str:
    """A caller's own words in quotes for a message, cut where they are no name any more."""
    return repr(name if len(name) <= MAX_QUOTED_CHARS else name[:MAX_QUOTED_CHARS] + "…")
