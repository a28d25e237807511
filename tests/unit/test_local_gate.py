import numpy as np
import pytest

import speech
from asr.engines.local_gate import FRAME_BYTES, LEAD_MS, Gate, onset

GREETING = speech.pcm("greeting")


def utterances(audio: bytes, silence_ms: int = 500, manual: bool = False) -> list[tuple[int, bytes]]:
    """Where each closed utterance was noticed to be over (ms), and what the recognizer was given of it."""
    gate, heard, found = Gate(silence_ms, manual), bytearray(), []
    for start in range(0, len(audio) // FRAME_BYTES * FRAME_BYTES, FRAME_BYTES):
        heard += gate.frame(audio[start : start + FRAME_BYTES]) or b""
        if gate.paused:
            found.append(((start + FRAME_BYTES) // 32, bytes(heard)))
            gate.end()
            heard.clear()
    return found


@pytest.mark.parametrize("name", ["silence", "noise"])
def test_no_speech_opens_nothing(name):
    gate, audio = Gate(500, False), speech.pcm(name)
    assert all(gate.frame(audio[s : s + FRAME_BYTES]) is None for s in range(0, len(audio) - FRAME_BYTES, FRAME_BYTES))
    assert gate.late_word(b"") is None


def test_nothing_of_the_beginning_is_lost_and_silence_leads():
    [(_, heard)] = utterances(speech.silence(700) + GREETING + speech.silence(1000))
    first = 2 * onset(np.frombuffer(GREETING, "<i2"))
    lead = LEAD_MS * 32
    assert heard[lead : lead + 16000] == GREETING[first : first + 16000]


@pytest.mark.parametrize("before_bytes", [0, 2, 38, 960, 12_346, 40_000])
def test_what_is_heard_does_not_depend_on_how_frames_fall(before_bytes):
    [(_, alone)] = utterances(speech.silence(300) + GREETING + speech.silence(1000))
    [(_, moved)] = utterances(bytes(before_bytes) + speech.silence(300) + GREETING + speech.silence(1000))
    body = len(GREETING)
    assert len(alone) > body
    assert moved[:body] == alone[:body]


@pytest.mark.parametrize("silence_ms", [150, 300, 500, 1000])
def test_the_pause_is_as_long_as_asked(silence_ms):
    [(closed_ms, _)] = utterances(GREETING[: 32 * 1000] + speech.silence(2000), silence_ms)
    # Where speech ends is the endpointer's judgement, to about its window.
    assert closed_ms == pytest.approx(1000 + silence_ms, abs=330)


def test_manual_never_closes():
    assert utterances(GREETING + speech.silence(3000), manual=True) == []


def test_a_word_too_short_for_the_endpointer_is_found_at_a_cut():
    gate = Gate(500, False)
    word = GREETING[32 * 400 : 32 * 550]
    for start in range(0, len(word), FRAME_BYTES):
        assert gate.frame(word[start : start + FRAME_BYTES]) is None
    heard = gate.late_word(b"\1\0")
    assert heard is not None
    assert heard.endswith(word[-960:] + b"\1\0")


def test_onset_is_the_first_loud_sample():
    samples = np.zeros(1000, np.int16)
    samples[400:] = 15
    samples[600:] = -32768
    assert onset(samples) == 600
    assert onset(samples[:500]) == onset(samples[:0]) == 0
