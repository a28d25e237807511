"""What the stand-in recognizer does wrong, as one record that may be exchanged while it runs."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

START_FLAG = (
    "in ensemble 'riva', inference request for sequence 42 to model 'riva' must specify the START flag on the first "
    "request of the sequence"
)
UNAVAILABLE_MODEL = (
    "Error: Unavailable model requested given these parameters: language_code=en; sample_rate=16000; type=online; "
)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Numbers of frames count what one stream has received; -1 is never, 0 at once. Streams read it as they go.

    Attributes:
        finals_every: an utterance ends after so many frames; 0 for never before the audio does.
        partials: a partial with each frame.
        final_on_stop: what is open becomes a final when the audio ends.
        audio_processed: results carry it.
        start_delay_s: nothing is said before.
        delay_s: each response waits for so long.
        lag_free_streams, lag_s: each stream beyond that number adds so much delay to every response.
        stuck_after: says nothing any more, and goes on reading.
        deaf_after: reads no more either.
        end_after: ends cleanly in mid-stream.
        abort_after, abort_status, abort_text: ends with that status.
        undecodable_after: sends a message that is no protobuf.
        die_after: the process exits.
        die_on_stop: the process exits when an audio has ended.
        abort_on_stop: the status sent in place of the last results.
        shuffle_after: from there on finals come repeated, out of order, empty and with times of nonsense.
        faults: how often one of the above strikes each client, told by its frames; -1 for every time.
        max_streams: more are refused as RESOURCE_EXHAUSTED; 0 for any number.
        loading: no model is listed, and streams are refused as UNAVAILABLE.
        idle_abort_s: a stream without audio for so long ends with the text of the START flag; 0 for never.
    """

    finals_every: int = 10
    partials: bool = True
    final_on_stop: bool = True
    audio_processed: bool = True
    start_delay_s: float = 0.0
    delay_s: float = 0.0
    lag_free_streams: int = 0
    lag_s: float = 0.0
    stuck_after: int = -1
    deaf_after: int = -1
    end_after: int = -1
    abort_after: int = -1
    abort_status: str = "UNAVAILABLE"
    abort_text: str = "the stand-in was told to"
    undecodable_after: int = -1
    die_after: int = -1
    die_on_stop: bool = False
    abort_on_stop: str = ""
    shuffle_after: int = -1
    faults: int = -1
    max_streams: int = 0
    loading: bool = False
    idle_abort_s: float = 0.0


def as_message(behaviour: Behaviour) -> dict[str, Any]:
    """For the control port."""
    return asdict(behaviour)


def from_message(message: dict[str, Any]) -> Behaviour:
    """The same back. Raises `ValueError` for a name that does not exist."""
    unknown = set(message) - {f.name for f in fields(Behaviour)}
    if unknown:
        raise ValueError(f"no such behaviour: {sorted(unknown)}")
    return Behaviour(**message)
