"""What an operator wants: the position of the switch and the canary's percentage, and how both are spelled. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from asr.errors import ASRError, Code

OFF_RETRY_MS = 30_000
MAX_STATE_BYTES = 64 * 1024
MAX_REASON_CHARS = 500
MAX_NAME_CHARS = 200


class Position(StrEnum):
    """Where new streams go. Streams under way are left alone."""

    ON = "on"
    """To the recognizer that the settings name."""
    OFF = "off"
    """Nowhere: they are refused."""
    FORMER = "former"
    """To the recognizer of before."""


class SwitchedOff(ASRError):
    """`unavailable`: the operator wants no streams. It may last; whoever can wait, waits."""

    def __init__(self, reason: str = "") -> None:
        why = f" ({reason})" if reason else ""
        super().__init__(
            Code.UNAVAILABLE,
            f"Transcription is switched off by the operator{why}. Try again later.",
            retry_after_ms=OFF_RETRY_MS,
        )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be, and who said so.

    Attributes:
        position: of the switch.
        canary_percent: of new streams, those that try the canary.
        changed_at: when it was said, ISO 8601 in UTC; "" for what the settings say.
        by: who said it.
        reason: why.
    """

    position: Position = Position.ON
    canary_percent: int = 0
    changed_at: str = ""
    by: str = ""
    reason: str = ""

    def to_json(self) -> str:
        """As the state file has it."""
        return json.dumps(
            {
                "position": self.position.value,
                "canary_percent": self.canary_percent,
                "changed_at": self.changed_at,
                "by": self.by,
                "reason": self.reason,
            },
            indent=2,
            ensure_ascii=False,
        )


def read_state(data: bytes, present: Wanted) -> Wanted:
    """What a state file says. Of what it leaves out, position and percentage stay as they are at present.

    Raises:
        ValueError: it is no such file; says in one sentence why.
    """
    if len(data) > MAX_STATE_BYTES:
        raise ValueError(f"it has more than {MAX_STATE_BYTES} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError("it is not JSON") from error
    if not isinstance(found, dict):
        raise ValueError("it is not a JSON object")
    unknown = sorted(set(found) - {"position", "canary_percent", "changed_at", "by", "reason"})
    if unknown:
        raise ValueError(f"it has the key {unknown[0][:MAX_NAME_CHARS]!r}, which there is not")
    return Wanted(
        position_of(found.get("position", present.position.value)),
        percent_of(found.get("canary_percent", present.canary_percent)),
        _text(found, "changed_at", MAX_NAME_CHARS),
        _text(found, "by", MAX_NAME_CHARS),
        _text(found, "reason", MAX_REASON_CHARS),
    )


def position_of(value: object) -> Position:
    """Raises:
    ValueError: there is no such position.
    """
    if not isinstance(value, str) or value not in set(Position):
        raise ValueError("position is not on, off or former")
    return Position(value)


def percent_of(value: object) -> int:
    """Raises:
    ValueError: it is no whole number from 0 to 100.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 100:
        raise ValueError("canary_percent is not a whole number from 0 to 100")
    return value


def in_words(wanted: Wanted) -> str:
    """For a status page: one sentence."""
    match wanted.position:
        case Position.OFF:
            return "Transcription is switched off by the operator."
        case Position.FORMER:
            return "New streams go to the former recognizer."
    if wanted.canary_percent:
        return f"{wanted.canary_percent} % of new streams try the canary."
    return "New streams go to the usual recognizer."


def _text(found: dict[str, object], name: str, most: int) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        raise ValueError(f"{name} is not a text")
    return clean(value, most)


def clean(text: str, most: int) -> str:
    """One line of printable characters, cut."""
    line = " ".join(text.split())
    return "".join(char for char in line if char.isprintable())[:most]
