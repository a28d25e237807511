import struct

import pytest

from asr.config import LocalConfig
from asr.engines.local_wire import MAX_PAYLOAD_BYTES, Frame, Kind, Tuning, Unpacker, pack
from asr.options import Endpointing, Options


def test_frames_survive_any_tearing():
    frames = [Frame(Kind.AUDIO, 7, b"abc"), Frame(Kind.CUT, 7), Frame(Kind.FINISH, 2**32 - 1, b"x" * 300)]
    line = b"".join(pack(f.kind, f.stream, f.payload) for f in frames)
    for size in (1, 2, 9, 10, 1000):
        unpacker = Unpacker()
        got = [f for start in range(0, len(line), size) for f in unpacker.feed(line[start : start + size])]
        assert got == frames


def test_a_payload_over_the_limit_is_refused_before_it_is_read():
    with pytest.raises(ValueError, match="over the limit"):
        Unpacker().feed(struct.pack(">BII", Kind.AUDIO, 1, MAX_PAYLOAD_BYTES + 1))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="99"):
        Unpacker().feed(struct.pack(">BII", 99, 1, 0))


def test_tuning_takes_the_callers_wishes_before_the_configuration():
    config = LocalConfig(silence_ms=500, max_utterance_ms=9000)
    plain = Tuning.of(config, Options())
    assert (plain.silence_ms, plain.manual, plain.max_utterance_ms, plain.language) == (500, False, 9000, "en-US")
    asked = Tuning.of(
        config, Options(partials=False, words=False, endpointing=Endpointing(manual=True, silence_ms=900))
    )
    assert (asked.silence_ms, asked.manual, asked.partials, asked.words) == (900, True, False, False)
    assert Tuning.decode(asked.encode()) == asked
