"""Ogg and WebM as streams: the same sound as libav finds in the whole file."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr.audio import AudioDecoder, AudioFormat, Encoding
from asr.audio.ogg import page_checksum
from asr.audio.opus import packet_samples
from asr.errors import ASRError, Code
from sound import decoded, encoded, noise, pieces, run, tone

SNIFF = AudioFormat(Encoding.AUTO, None)
MONO = (tone(440, 0.733, 48_000) * 32767).astype("i2")
STEREO = np.stack([MONO, MONO // 2], axis=1)
OGG = encoded(MONO, 48_000, "libopus", "ogg")
WEBM = encoded(MONO, 48_000, "libopus", "webm")
LIVE_WEBM = encoded(MONO, 48_000, "libopus", "webm", options={"live": "1"})


def outcome(data: bytes, cuts: list[int]) -> tuple[Any, Any]:
    decoder = AudioDecoder(SNIFF)
    try:
        return run(decoder, pieces(data, cuts)), decoder.warnings
    except ASRError as error:
        return error.code, error.message


def patched(old: bytes, new: bytes) -> bytes:
    """The Ogg file with its first page changed, and its checksum right."""
    end = OGG.index(b"OggS", 4)
    page = OGG[:end].replace(old, new)
    return page[:22] + page_checksum(page) + page[26:] + OGG[end:]


def reference(data: bytes) -> bytes:
    sound = decoded(data).astype("<f4")
    return run(AudioDecoder(AudioFormat(Encoding.PCM_F32LE, 48_000, sound.shape[1])), [sound.tobytes()])


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(["ogg", "webm", "live"]), st.lists(st.integers(0, 20_000), max_size=8))
def test_opus_equals_the_whole_file_however_it_is_cut(kind: str, cuts: list[int]) -> None:
    data = {"ogg": OGG, "webm": WEBM, "live": LIVE_WEBM}[kind]
    assert outcome(data, cuts) == (reference(data), [])


def test_the_length_is_that_of_the_input() -> None:
    for data in (OGG, WEBM):
        assert abs(len(run(AudioDecoder(SNIFF), [data])) / 32 - 733) < 1


CLUSTER = b"\x1fC\xb6u"
VOID = b"\xec\x01\0\0\0\0\0\0\x05" + CLUSTER + b"\xa3"
CUES = b"\x1cS\xbbk\x86" + b"\xa3\x84" + bytes(4)
TAGS = b"\x12T\xc3g\x40\x03abc"


@pytest.mark.parametrize("extra", [VOID, CUES, TAGS, VOID + CUES + TAGS])
def test_what_browsers_put_between_clusters_is_passed_over(extra: bytes) -> None:
    assert LIVE_WEBM.count(CLUSTER) >= 1
    assert outcome(LIVE_WEBM.replace(CLUSTER, extra + CLUSTER) + extra, []) == (reference(LIVE_WEBM), [])


def test_a_first_piece_may_hold_the_header_alone() -> None:
    decoder = AudioDecoder(AudioFormat(Encoding.WEBM_OPUS, None))
    begin = LIVE_WEBM.index(CLUSTER)
    assert decoder.feed(LIVE_WEBM[:begin]) == b""
    assert decoder.feed(LIVE_WEBM[begin:]) + decoder.finish() == reference(LIVE_WEBM)


def test_clusters_of_unknown_and_of_known_size_may_follow_each_other() -> None:
    begin = LIVE_WEBM.index(CLUSTER)
    head, cluster = LIVE_WEBM[:begin], LIVE_WEBM[begin:]
    length = 9 - cluster[4].bit_length()
    body = cluster[4 + length :]
    unknown = head + CLUSTER + b"\x01" + b"\xff" * 7 + body
    known = head + CLUSTER + (1 << 56 | len(body)).to_bytes(8, "big") + body
    for data in (unknown, known):
        assert outcome(data, list(range(0, len(data), 333)))[0] == reference(LIVE_WEBM)


@pytest.mark.parametrize("container", ["ogg", "webm"])
def test_stereo_opus_is_mixed_or_refused(container: str) -> None:
    data = encoded(STEREO, 48_000, "libopus", container)
    encoding = Encoding.OGG_OPUS if container == "ogg" else Encoding.WEBM_OPUS
    decoder = AudioDecoder(AudioFormat(encoding, None))
    assert run(decoder, [data]) == reference(data)
    assert decoder.warnings == ["2 channels were mixed down to one."]
    assert decoder.detected == AudioFormat(encoding, 48_000, 2)
    with pytest.raises(ASRError, match="2 channels"):
        run(AudioDecoder(SNIFF, stereo="refuse"), [data])


def test_flac_in_ogg_comes_out_bit_for_bit() -> None:
    samples = np.frombuffer(noise(20_000), "<i2")
    data = encoded(samples, 16_000, "flac", "ogg")
    decoder = AudioDecoder(SNIFF)
    assert run(decoder, pieces(data, list(range(0, len(data), 777)))) == samples.tobytes()
    assert decoder.detected == AudioFormat(Encoding.FLAC, 16_000, 1)


def test_recordings_one_after_another_are_joined() -> None:
    assert len(run(AudioDecoder(SNIFF), [OGG + OGG])) == 2 * len(run(AudioDecoder(SNIFF), [OGG]))


def test_sound_comes_out_while_it_goes_in() -> None:
    for data in (OGG, LIVE_WEBM):
        decoder = AudioDecoder(SNIFF)
        early = b"".join(decoder.feed(data[at : at + 100]) for at in range(0, len(data) * 9 // 10, 100))
        assert len(early) > 0 or data is OGG  # a page of Ogg may hold a second


def test_damage_is_told_and_what_follows_is_heard() -> None:
    second_page = OGG.index(b"OggS", OGG.index(b"OggS", 4) + 4)
    made, warnings = outcome(OGG[:second_page] + b"rubbish" + OGG[second_page:], [])
    assert made == reference(OGG)
    assert warnings == ["Damaged parts of the Ogg data were replaced by silence."]
    cut, warnings = outcome(OGG + OGG[:40], [])
    assert cut == reference(OGG)
    assert "cut off" in warnings[0]


def test_tracks_without_an_end_are_not_remembered() -> None:
    endless = b"\x01\xff\xff\xff\xff\xff\xff\xff"
    decoder = AudioDecoder(SNIFF)
    decoder.feed(b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67" + endless + b"\x16\x54\xae\x6b" + endless)
    for _ in range(100):
        decoder.feed(b"\xae" + endless + b"\x86\x10\x00\xea\x60" + b"X" * 60_000)
    with pytest.raises(ASRError, match="Only Opus") as caught:
        decoder.feed(b"\x1f\x43\xb6\x75" + endless)
    assert len(caught.value.message) < 500


@pytest.mark.parametrize(
    ("data", "code", "words"),
    [
        (OGG[:20], Code.BAD_AUDIO, "ends before any sound"),
        (WEBM[:60], Code.BAD_AUDIO, "ends before any sound"),
        (b"\x1aE\xdf\xa3\x00" + bytes(20), Code.BAD_AUDIO, "damaged"),
        (patched(b"OpusHead", b"OpusXXXX"), Code.UNSUPPORTED, "neither Opus nor FLAC"),
        (WEBM.replace(b"A_OPUS", b"A_MPEG"), Code.UNSUPPORTED, "A_MPEG"),
        (patched(b"OpusHead\x01\x01", b"OpusHead\x01\x63"), Code.BAD_AUDIO, "Opus header"),
    ],
    ids=["short ogg", "short webm", "no webm", "no codec", "another codec", "bad header"],
)
def test_what_cannot_be_decoded_gets_a_clear_answer(data: bytes, code: Code, words: str) -> None:
    with pytest.raises(ASRError, match=words) as caught:
        run(AudioDecoder(SNIFF), [data])
    assert caught.value.code is code


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["ogg", "webm"]), st.integers(30, 4000), st.binary(min_size=1, max_size=20))
def test_damage_anywhere_ends_in_an_answer(kind: str, at: int, damage: bytes) -> None:
    data = OGG if kind == "ogg" else WEBM
    broken = data[:at] + damage + data[at + len(damage) :]
    whole, cut = outcome(broken, []), outcome(broken, [at, at + 3])
    # What libav makes of a damaged packet differs from time to time; how long it is does not.
    assert (len(whole[0]), whole[1]) == (len(cut[0]), cut[1])


def test_a_lost_page_becomes_silence_and_the_clock_goes_on() -> None:
    sound = (tone(440, 3.2, 48_000) * 32767).astype("i2")
    data = bytearray(encoded(sound, 48_000, "libopus", "ogg", options={"page_duration": "200000"}))
    whole, _ = outcome(bytes(data), [])
    assert whole == reference(bytes(data))
    data[len(data) // 2] ^= 0xFF
    made, warnings = outcome(bytes(data), [])
    assert len(made) == len(whole)
    assert made[:16_000] == whole[:16_000]
    assert bytes(3200) in made
    assert warnings == ["Damaged parts of the Ogg data were replaced by silence."]


def test_pages_that_only_cost_time_end_in_an_error() -> None:
    # Each claims 255 segments, and so a checksum of many kilobytes, only to be wrong.
    flood = (b"OggS\0\0" + bytes(20) + b"\xff") * 4_000
    made, message = outcome(OGG + flood, [])
    assert (made, "many pages in a row" in str(message)) == (Code.BAD_AUDIO, True)


@pytest.mark.parametrize(
    ("first", "second", "samples"), [(0x08, 0, 960), (0x78, 0, 960), (0x81, 0, 240), (0xFF, 3, 2880)]
)
def test_an_opus_packet_says_how_long_it_is(first: int, second: int, samples: int) -> None:
    assert packet_samples(bytes([first, second])) == samples
