from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

import speech
from asr.engines.local_recognizer import Decoders
from asr.engines.local_wire import Frame, Kind, Tuning, Unpacker
from asr.engines.local_worker import Session, Worker
from asr.events import Event, Final, FinalReason, Flushed, Partial, Progress, SpeechEnded, SpeechStarted

GREETING = speech.pcm("greeting")


@dataclass
class Segment:
    word: str
    start_frame: int
    end_frame: int
    prob: float = 0.5


@dataclass
class ScriptedDecoder:
    """Says the same words of any sound, and keeps a diary."""

    said: list[Segment]
    diary: list[str] = field(default_factory=list)
    heard: bytearray = field(default_factory=bytearray)
    pieces: list[int] = field(default_factory=list)

    def reinit_feat(self) -> None:
        self.diary.append("reinit")

    def set_cmn(self, mean: str) -> None:
        self.diary.append(f"mean {mean}")

    def start_utt(self) -> None:
        self.diary.append("start")

    def process_raw(self, pcm: bytes) -> None:
        assert pcm
        self.heard += pcm
        self.pieces.append(len(pcm))

    def end_utt(self) -> None:
        self.diary.append("end")

    def seg(self) -> list[Segment]:
        return self.said


class ScriptedDecoders(Decoders):
    def __init__(self, *said: Segment) -> None:
        super().__init__()
        self.said = list(said)
        self.made: list[ScriptedDecoder] = []
        self.free: list[ScriptedDecoder] = []

    def take(self) -> ScriptedDecoder:
        if self.free:
            return self.free.pop()
        self.made.append(ScriptedDecoder(self.said))
        return self.made[-1]

    def give_back(self, decoder: ScriptedDecoder) -> None:
        self.free.append(decoder)

    def mean(self, pcm: bytes) -> str:
        return str(len(pcm))


HELLO = (Segment("<s>", 0, 9), Segment("new(2)", 30, 59), Segment("++BREATH++", 60, 64), Segment("[NOISE]", 65, 69))


def play(decoders: Decoders, *items: bytes | Kind, tuning: Tuning | None = None) -> list[Event]:
    session, events = Session(tuning or Tuning(), decoders), []
    for item in (*items, Kind.FINISH):
        if isinstance(item, bytes):
            session.add(item)
        else:
            session.mark(item)
        while session.busy:
            events += session.step()
    assert session.over
    session.release()
    return events


def finals(events: Sequence[Event]) -> list[Final]:
    return [event for event in events if isinstance(event, Final)]


def test_fillers_and_variants_do_not_show_and_times_are_on_the_stream_clock():
    [final] = finals(play(ScriptedDecoders(*HELLO), speech.silence(1000) + GREETING + speech.silence(700)))
    assert (final.text, final.reason, final.language, final.confidence) == ("new", FinalReason.ENDPOINT, "en-US", 0.5)
    [word] = final.words
    assert word.end_ms - word.start_ms == 300
    assert final.start_ms == word.start_ms == pytest.approx(1000 + 30 + 300 - 200, abs=60)


def test_every_utterance_starts_with_a_clean_decoder_that_is_used_again():
    decoders = ScriptedDecoders(*HELLO)
    events = play(decoders, GREETING + speech.silence(1000) + GREETING + speech.silence(1000))
    assert [final.utterance for final in finals(events)] == [0, 1]
    [decoder] = decoders.made
    assert decoder.diary == ["reinit", "mean 32000", "start", "end"] * 2
    assert sum(size != 960 for size in decoder.pieces) <= 2


def test_only_noise_makes_no_final():
    events = play(ScriptedDecoders(Segment("[NOISE]", 1, 50)), GREETING)
    assert [type(e) for e in events if not isinstance(e, Progress)] == [SpeechStarted, SpeechEnded]


def test_a_guess_that_comes_to_nothing_is_taken_back():
    decoders = ScriptedDecoders(*HELLO)
    session, events = Session(Tuning(), decoders), []
    session.add(GREETING)
    while session.busy:
        events += session.step()
    assert any(isinstance(event, Partial) for event in events)
    decoders.made[0].said = []
    session.mark(Kind.FINISH)
    [final] = finals(list(session.step()))
    assert (final.text, final.words, final.confidence) == ("", (), None)


def test_no_sample_is_lost_or_heard_twice_at_a_cut():
    decoders = ScriptedDecoders(*HELLO)
    audio = GREETING + GREETING[: len(GREETING) // 2]
    cut = 32 * 1500 + 333
    whole = play(decoders, audio, tuning=Tuning(manual=True))
    uncut = bytes(decoders.made[0].heard)
    decoders = ScriptedDecoders(*HELLO)
    events = play(decoders, audio[:cut], Kind.CUT, audio[cut:], tuning=Tuning(manual=True))
    assert [f.reason for f in finals(events)] == [FinalReason.FINALIZE, FinalReason.STOP]
    assert [e for e in events if isinstance(e, Flushed)] == [Flushed(cut // 32)]
    heard = bytes(decoders.made[0].heard)
    first = uncut.index(heard[6400 : 6400 + 3200])
    assert heard[6400:].startswith(uncut[first : first + 20_000])
    assert heard.endswith(uncut[-20_000:])
    assert whole[-1] == events[-1] == Progress(len(audio) // 32)


def test_input_that_waits_means_the_same_as_input_that_is_awaited():
    audio, cut = GREETING, 32 * 1500 + 333
    awaited, waiting = ScriptedDecoders(*HELLO), ScriptedDecoders(*HELLO)
    events = play(awaited, audio[:cut], Kind.CUT, audio[cut:])
    session, found = Session(Tuning(), waiting), []
    session.add(audio[:cut])
    session.mark(Kind.CUT)
    session.add(audio[cut:])
    session.mark(Kind.FINISH)
    while not session.over:
        found += session.step()
    assert found == events
    assert waiting.made[0].heard == awaited.made[0].heard


def test_a_dropped_stream_is_forgotten():
    worker = Worker(ScriptedDecoders(*HELLO))
    worker.take(Frame(Kind.OPEN, 1, Tuning().encode()))
    worker.take(Frame(Kind.AUDIO, 1, GREETING))
    worker.take(Frame(Kind.DROP, 1))
    assert not worker.busy
    assert worker.turn() == b""


def test_a_long_utterance_is_cut_without_losing_a_sample():
    decoders = ScriptedDecoders(*HELLO)
    events = play(decoders, GREETING, tuning=Tuning(max_utterance_ms=1200))
    assert [f.reason for f in finals(events)] == [FinalReason.MAX_LENGTH] * 2 + [FinalReason.STOP]
    whole = ScriptedDecoders(*HELLO)
    play(whole, GREETING)
    assert decoders.made[0].heard == whole.made[0].heard


def test_partials_keep_their_distance_and_can_be_refused():
    decoders = ScriptedDecoders(*HELLO)
    assert len([e for e in play(decoders, GREETING) if isinstance(e, Partial)]) == 1
    assert not [e for e in play(decoders, GREETING, tuning=Tuning(partials=False)) if isinstance(e, Partial)]


def test_an_abandoned_utterance_leaves_no_open_decoder_behind():
    decoders = ScriptedDecoders(*HELLO)
    session = Session(Tuning(), decoders)
    session.add(GREETING)
    while session.busy:
        list(session.step())
    session.release()
    assert decoders.free == []


def test_empty_audio_ends_cleanly():
    assert play(ScriptedDecoders()) == [Progress(0)]
    assert play(ScriptedDecoders(), b"\1") == [Progress(0)]


def test_a_worker_takes_its_streams_in_turn_and_survives_a_broken_one():
    decoders = ScriptedDecoders(*HELLO)
    worker, unpacker = Worker(decoders), Unpacker()
    for stream in (1, 2):
        worker.take(Frame(Kind.OPEN, stream, Tuning().encode()))
        worker.take(Frame(Kind.AUDIO, stream, speech.silence(300)))
    worker.take(Frame(Kind.AUDIO, 9, b"nobody's"))
    heard = [frame.stream for _ in range(10) for frame in unpacker.feed(worker.turn())]
    assert heard == [1, 2, 1, 2]
    assert not worker.busy
    decoders.take = lambda: None  # type: ignore[method-assign, assignment, return-value]
    worker.take(Frame(Kind.AUDIO, 1, GREETING))
    kinds = []
    while worker.busy:
        kinds += [(frame.kind, frame.stream) for frame in unpacker.feed(worker.turn())]
    assert kinds[-1] == (Kind.FAILED, 1)
    worker.take(Frame(Kind.FINISH, 2))
    assert [frame.kind for frame in unpacker.feed(worker.turn())] == [Kind.ENDED]
