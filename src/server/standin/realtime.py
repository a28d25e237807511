"""One realtime session of the stand-in NIM: client messages in, server events out. No socket, no clock.

It follows what NIM's realtime server does and what NVIDIA's own client needs, with the deviations that
the plan's `realtime` section asks for.
"""

from __future__ import annotations

import base64
import binascii
import copy
import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from asr.mock.plan import MockPlan
from asr.mock.recognition import HANGS, fault_status
from asr.mock.responses import RawResponse, RawResult, Request
from asr.mock.script import ScriptedRecognizer
from asr.mock.sniff import DEFAULT_RATE_HZ, BadAudioError, Sniffer

Event = dict[str, Any]

_ITEM = "conversation.item.input_audio_transcription"

DEFAULT_SESSION: Mapping[str, Any] = {
    "object": "realtime.transcription_session",
    "modalities": ["text"],
    "input_audio_format": "pcm16",
    "input_audio_transcription": {"language": "en-US", "model": "conformer", "prompt": ""},
    "input_audio_params": {"sample_rate_hz": 16000, "num_channels": 1},
    "recognition_config": {
        "max_alternatives": 1,
        "enable_automatic_punctuation": False,
        "enable_word_time_offsets": False,
        "enable_profanity_filter": False,
        "enable_verbatim_transcripts": False,
    },
    "speaker_diarization": {"enable_speaker_diarization": False, "max_speaker_count": 8},
    "word_boosting": {"enable_word_boosting": False, "word_boosting_list": []},
    "endpointing_config": {
        "start_history": 0,
        "start_threshold": 0,
        "stop_history": 0,
        "stop_threshold": 0,
        "stop_history_eou": 0,
        "stop_threshold_eou": 0,
    },
    "client_secret": None,
}


def new_session(session_id: str, secret: Mapping[str, Any] | None = None) -> Event:
    """The session object that a POST answers with."""
    session = copy.deepcopy(dict(DEFAULT_SESSION))
    return {"id": session_id, **session, "client_secret": dict(secret) if secret else None}


class RealtimeSession:
    """What one socket hears and says.

    Attributes:
        close: a WebSocket close code once the server wants to end the connection, else None.
        hung: the kind of hang (`hang`, `half_open`, `stop_reading`) that the plan wants from here on, else None.
    """

    def __init__(self, plan: MockPlan, number: int, new_id: Callable[[str], str]) -> None:
        """`number` counts sessions from 1 (faults may name it); `new_id("item")` makes `item_…`."""
        self.close: int | None = None
        self.hung: str | None = None
        self._plan = plan
        self._number = number
        self._new_id = new_id
        self._session: Event = new_session(new_id("sess"))
        self._sniffer: Sniffer | None = None
        self._request = Request()
        self._script: ScriptedRecognizer | None = None
        self._item = new_id("item")
        self._sent = ""
        self._utterances = 0
        self._texts: list[str] = []
        self._done = False

    def opened(self) -> list[Event]:
        """The first event."""
        conversation = {"id": self._new_id("conv"), "object": "realtime.conversation"}
        return [self._event("conversation.created", conversation=conversation)]

    def received(self, text: str | bytes) -> list[Event]:
        """Answer a client's message; a bad one gives an `error` event and nothing worse."""
        if self.hung or self._done or self.close is not None:
            return []
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            return [self._error("invalid_request_error", "The message is not JSON.")]
        kind = message.get("type") if isinstance(message, dict) else None
        match kind:
            case "transcription_session.update":
                return self._update(message.get("session"))
            case "input_audio_buffer.append":
                return self._append(message)
            case "input_audio_buffer.commit":
                return []
            case "input_audio_buffer.clear":
                return [self._event("input_audio_buffer.cleared")]
            case "input_audio_buffer.done":
                return self._finish()
            case _:
                return [self._error("invalid_request_error", f"Unknown message type {kind!r}.", param="type")]

    def _update(self, session: object) -> list[Event]:
        if self._script is not None:
            return [self._error("invalid_request_error", "The session is already running.", param="session")]
        if not isinstance(session, dict):
            return [self._error("invalid_request_error", "session must be an object.", param="session")]
        merged = _merge(self._session, session)
        try:
            channels = int(merged["input_audio_params"]["num_channels"])
            rate_hz = int(merged["input_audio_params"]["sample_rate_hz"])
            headered = merged["input_audio_format"] == "none"
            request = _request(merged)
            self._sniffer = Sniffer("" if headered else "pcm", 0 if headered else rate_hz, channels)
        except (BadAudioError, TypeError, ValueError, KeyError) as error:
            return [self._error("invalid_request_error", f"The session is not valid: {error}", param="session")]
        self._session, self._request = merged, request
        # The rate is the sniffer's to tell, with the first audio.
        self._begin(DEFAULT_RATE_HZ)
        return [self._event("transcription_session.updated", session=merged)]

    def _begin(self, rate_hz: int) -> ScriptedRecognizer:
        request = dataclasses.replace(self._request, rate_hz=rate_hz)
        self._script = ScriptedRecognizer(self._plan, request, stream=self._number)
        return self._script

    def _append(self, message: Event) -> list[Event]:
        script, sniffer = self._script, self._sniffer
        if script is None or sniffer is None:
            # A real NIM drops what comes before the session is set up.
            return []
        try:
            pcm = sniffer.feed(base64.b64decode(str(message.get("audio", "")), validate=True))
        except binascii.Error:
            return [self._error("invalid_request_error", "audio is not base64.", param="audio")]
        except BadAudioError as error:
            return [self._error("invalid_request_error", str(error), param="audio")]
        if not script.processed_ms and sniffer.rate_hz not in (0, script.rate_hz):
            script = self._begin(sniffer.rate_hz)
        responses = script.feed(pcm)
        config = message.get("runtime_config")
        if isinstance(config, dict) and str(config.get("force_eou", "")).lower() == "true":
            responses += script.force_eou()
        return self._tell(responses) + self._break()

    def _finish(self) -> list[Event]:
        script, sniffer = self._script, self._sniffer
        if script is None or sniffer is None:
            return [self._error("invalid_request_error", "There was no transcription_session.update.")]
        self._done = True
        try:
            pcm = sniffer.finish()
        except BadAudioError as error:
            return [self._error("invalid_request_error", str(error), param="audio")]
        if not script.processed_ms and sniffer.rate_hz not in (0, script.rate_hz):
            script = self._begin(sniffer.rate_hz)
        events = self._tell(script.feed(pcm))
        last = [r for response in script.finish() for r in response.results if r.is_final]
        broken = self._break()
        if broken or self.hung or self.close is not None or self._plan.shape.never_final:
            return events + broken
        for result in last[:-1]:
            events += self._completed(result)
        return events + self._completed(last[-1] if last else RawResult(is_final=True), last=True)

    def _tell(self, responses: list[RawResponse]) -> list[Event]:
        events: list[Event] = []
        for response in responses:
            partial = ""
            for result in response.results:
                if result.is_final:
                    events += self._completed(result)
                elif result.alternatives and result.stability < 1.0:
                    partial += result.alternatives[0].transcript
            if partial:
                events += self._delta(partial)
        return events

    def _delta(self, hypothesis: str) -> list[Event]:
        delta = hypothesis
        if self._plan.realtime.deltas == "incremental":
            if not hypothesis.startswith(self._sent) or hypothesis == self._sent:
                return []
            delta = hypothesis[len(self._sent) :]
            self._sent = hypothesis
        return [self._event(f"{_ITEM}.delta", item_id=self._item, content_index=0, delta=delta)]

    def _completed(self, result: RawResult, *, last: bool = False) -> list[Event]:
        settings = self._plan.realtime
        text = result.alternatives[0].transcript if result.alternatives else ""
        self._texts.append(text)
        self._utterances += 1
        item, self._item, self._sent = self._item, self._new_id("item"), ""
        events: list[Event] = []
        if settings.error_utterance == self._utterances:
            events.append(self._error("server_error", "The recognizer stumbled, as the plan says."))
        if settings.failed_utterance == self._utterances:
            error = {"type": "server_error", "message": "The recognizer lost this utterance, as the plan says."}
            return [*events, self._event(f"{_ITEM}.failed", item_id=item, content_index=0, error=error)]
        whole = last and settings.last_completed == "full"
        fields: Event = {
            "item_id": item,
            "content_index": 0,
            "transcript": _joined(self._texts) if whole else text,
            "is_last_result": last,
        }
        if result.alternatives and result.alternatives[0].words:
            fields["words_info"] = {"words": [_word(w) for w in result.alternatives[0].words]}
        if self._plan.http.usage and self._script is not None:
            fields["usage"] = {"type": "duration", "seconds": self._script.processed_ms / 1000}
        repeats = 2 if settings.duplicate_completed and not last else 1
        return events + [self._event(f"{_ITEM}.completed", **fields) for _ in range(repeats)]

    def _break(self) -> list[Event]:
        fault = self._script.fault if self._script is not None else None
        if fault is None:
            return []
        if fault.kind in HANGS:
            self.hung = fault.kind
            return []
        refusal = fault_status(fault)
        self.close = 1000 if refusal is None else 1011
        return [] if refusal is None else [self._error("server_error", refusal.message, code=fault.kind)]

    def _error(self, kind: str, message: str, *, code: str = "", param: str | None = None) -> Event:
        return self._event("error", error={"type": kind, "code": code or kind, "message": message, "param": param})

    def _event(self, kind: str, **fields: Any) -> Event:
        return {"event_id": self._new_id("event"), "type": kind, **fields}


def _merge(old: Event, new: Mapping[str, Any]) -> Event:
    merged = dict(old)
    for key, value in new.items():
        known = merged.get(key)
        merged[key] = {**known, **value} if isinstance(known, dict) and isinstance(value, dict) else value
    for key, default in DEFAULT_SESSION.items():
        if isinstance(default, dict) and not isinstance(merged.get(key), dict):
            merged[key] = copy.deepcopy(default)
    return merged


def _request(session: Event) -> Request:
    endpointing = session["endpointing_config"]
    silence_ms, eager_ms = (int(endpointing.get(key) or 0) for key in ("stop_history", "stop_history_eou"))
    return Request(
        words=bool(session["recognition_config"].get("enable_word_time_offsets")),
        diarization=bool(session["speaker_diarization"].get("enable_speaker_diarization")),
        silence_ms=silence_ms if silence_ms > 0 else None,
        eager_ms=eager_ms if eager_ms > 0 else None,
    )


def _joined(texts: list[str]) -> str:
    return "".join(t if t.startswith(" ") or t.endswith(" ") else t + " " for t in texts if t).strip()


def _word(word: Any) -> Event:
    return {
        "word": word.text,
        "start_time": word.start_ms,
        "end_time": word.end_ms,
        "confidence": word.confidence,
        "speaker_tag": word.speaker_tag,
    }
