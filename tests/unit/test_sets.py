"""Sets of clips: every layout, what is wrong with one, joins, samples, and taking a part."""

from __future__ import annotations

import hashlib
import json
import re
import wave
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sound
from asr.errors import ASRError, Code
from evaluation import clip_audio, set_layouts
from evaluation.clips import Clip, ClipSet, Speech, SpokenWord
from evaluation.sets import joined, load_set, only, sampled, samples

PAGE = (Path(__file__).parents[2] / "docs" / "golden-sets.md").read_text("utf-8")


def wav(path: Path, ms: int = 100, rate_hz: int = 16_000, channels: int = 1, value: int = 1) -> Path:
    """A WAV file of one value throughout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(value.to_bytes(2, "little") * (ms * rate_hz // 1000 * channels))
    return path


def text(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, "utf-8")
    return path


def manifest(folder: Path, name: str, clips: list[dict[str, Any]], **more: Any) -> Path:
    document = {"schema": "riva-gateway.golden-set/1", "condition": name, "about": "", "clips": clips, **more}
    return text(folder / f"{name}.json", json.dumps(document))


def entry(clip_id: str = "clean/a", **more: Any) -> dict[str, Any]:
    return {"id": clip_id, "audio": "a.wav", "text": "Hello there.", **more}


def refusal(path: Path) -> ASRError:
    with pytest.raises(ASRError) as caught:
        load_set(path)
    return caught.value


# Manifests.


def test_the_documents_manifest_can_be_loaded(tmp_path: Path) -> None:
    example = re.search(r"example: manifest -->\n```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    text(tmp_path / "clean.json", example[1])
    audio = wav(tmp_path / "audio" / "hello.wav", 1200)
    one, two = load_set(tmp_path).clips
    words = (SpokenWord("Hello", 100, 480), SpokenWord("there", 480, 1050))
    assert one == Clip("clean/hello", "clean", "Hello there.", audio, 1200, 16_000, words, (Speech(100, 1050),))
    assert two.source == (one, 900, one)
    assert two.text == "Hello there. Hello there."
    assert two.audio_ms == 3300
    assert two.words[2:] == (SpokenWord("Hello", 2200, 2580), SpokenWord("there", 2580, 3150))
    assert two.speech == (Speech(100, 1050), Speech(2200, 3150))
    assert len(samples(two)) == 3300 * 32


def test_the_repositorys_own_set_can_be_loaded_and_its_sounds_are_the_noted_ones() -> None:
    golden = load_set(Path(__file__).parents[1] / "golden")
    assert golden.notes == ()
    assert len({clip.id for clip in golden.clips}) == len(golden.clips) > 100
    for clip in sampled(golden, 8, seed=1).clips:
        assert (
            abs(len(samples(clip)) - 2 * clip.audio_ms * clip.sample_rate_hz // 1000) <= 2 * clip.sample_rate_hz // 1000
        )


def test_lengths_and_rates_come_from_the_header_where_the_manifest_tells_none(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav", 250, 8_000)
    manifest(tmp_path, "clean", [entry()])
    (clip,) = load_set(tmp_path).clips
    assert (clip.audio_ms, clip.sample_rate_hz, clip.words, clip.speech, clip.sha256) == (250, 8_000, (), (), "")
    assert samples(clip) == b"\1\0" * 2000


def test_one_manifest_is_a_set_whose_joins_see_the_others(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    manifest(tmp_path, "clean", [entry()])
    long = manifest(tmp_path, "long", [{"id": "long/a", "join": ["long/b"]}, {"id": "long/b", "join": ["clean/a", 50]}])
    text(tmp_path / "other.json", '{"no": "set"}')
    assert [clip.id for clip in load_set(long).clips] == ["long/a", "long/b"]
    both = load_set(tmp_path)
    assert [clip.id for clip in both.clips] == ["clean/a", "long/a", "long/b"]
    assert [clip.audio_ms for clip in both.clips] == [100, 150, 150]
    assert both.name == tmp_path.name


@pytest.mark.parametrize(
    ("clips", "said"),
    [
        ([entry(audio=3)], "audio"),
        ([entry(text=None)], "text"),
        ([{"audio": "a.wav", "text": ""}], "clip number 0"),
        (["clean/a"], "no object"),
        ([entry(audio_ms=-1)], "audio_ms"),
        ([entry(audio_ms=True)], "audio_ms"),
        ([entry(sample_rate_hz=0)], "0 Hz"),
        ([entry(words=[["a", 5]])], "words"),
        ([entry(words=[[1, 5, 6]])], "words"),
        ([entry(speech=[[6, 5]])], "speech"),
        ([entry(speech=[["a", "b"]])], "speech"),
        ([entry(speech=7)], "speech"),
        ([entry(), entry()], "twice"),
        ([{"id": "a", "join": ["b"]}], "no clip with this id"),
        ([{"id": "a", "join": [True]}], "True"),
        ([{"id": "a", "join": ["a"]}], "of itself"),
        ([{"id": "a", "join": ["b"]}, {"id": "b", "join": ["a"]}], "of itself"),
        ([{"id": "a", "join": [100]}], "no other clip"),
        ([entry(), {"id": "a", "join": ["clean/a", -1]}], "below 0"),
    ],
)
def test_a_manifest_that_is_wrong_is_named_with_what_is_wrong(tmp_path: Path, clips: list[Any], said: str) -> None:
    wav(tmp_path / "a.wav")
    manifest(tmp_path, "clean", clips)
    error = refusal(tmp_path)
    assert error.code is Code.BAD_REQUEST
    assert said in error.message
    assert "\n" not in error.message


def test_ids_are_unique_over_all_manifests(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    manifest(tmp_path, "clean", [entry()])
    manifest(tmp_path, "noise", [entry()])
    assert "twice and in clean.json" in refusal(tmp_path).message


def test_audio_that_a_manifest_names_must_be_there(tmp_path: Path) -> None:
    manifest(tmp_path, "clean", [entry(audio="gone.wav")])
    error = refusal(tmp_path)
    assert error.code is Code.NOT_FOUND
    assert "gone.wav" in error.message
    assert "clean/a" in error.message


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b'{"schema": "riva-gateway.golden-set/9"}', "golden-set/9"),
        (b"[]", "'list'"),
        (b'{"schema": "riva-gateway.golden-set/1", "clips": []}', "condition"),
        (b'{"schema": "riva-gateway.golden-set/1", "condition": "a"}', "clips"),
    ],
)
def test_a_file_that_is_no_manifest(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "set.json"
    path.write_bytes(content)
    error = refusal(path)
    assert error.code is Code.BAD_REQUEST
    assert said in error.message
    assert "set.json" in error.message


def test_a_broken_file_beside_manifests_stops_the_folder_and_no_single_manifest(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    clean = manifest(tmp_path, "clean", [entry()])
    text(tmp_path / "noise.json", '{"schema": ')
    assert "noise.json" in refusal(tmp_path).message
    assert len(load_set(clean).clips) == 1


def test_another_sound_than_the_noted_one_is_refused_when_it_is_played(tmp_path: Path) -> None:
    audio = wav(tmp_path / "a.wav")
    manifest(tmp_path, "clean", [entry(sha256=hashlib.sha256(audio.read_bytes()).hexdigest().upper())])
    (clip,) = load_set(tmp_path).clips
    assert len(samples(clip)) == 3200
    wav(audio, value=2)
    with pytest.raises(ASRError, match="not the audio that the set was made with"):
        samples(clip)
    audio.unlink()
    with pytest.raises(ASRError, match=r"There is no file .*clean/a") as caught:
        samples(clip)
    assert caught.value.code is Code.NOT_FOUND
    with pytest.raises(ASRError, match="hex digits"):
        samples(replace(clip, sha256="abc"))


# Other people's layouts.


def test_librispeech(tmp_path: Path) -> None:
    chapter = tmp_path / "test-clean" / "84" / "121123"
    chapter.mkdir(parents=True)
    (chapter / "84-121123-0000.flac").write_bytes(sound.encoded(np.zeros(3200, np.int16), 16_000, "flac", "flac"))
    wav(chapter / "84-121123-0001.wav", 300)
    text(
        chapter / "84-121123.trans.txt",
        "84-121123-0000 GO DO YOU HEAR\n84-121123-0001 BUT IN LESS\n84-121123-0002 IT WAS\n",
    )
    loaded = load_set(tmp_path)
    assert [(clip.id, clip.condition, clip.text, clip.audio_ms) for clip in loaded.clips] == [
        ("test-clean/84-121123-0000", "test-clean", "GO DO YOU HEAR", 200),
        ("test-clean/84-121123-0001", "test-clean", "BUT IN LESS", 300),
    ]
    assert loaded.notes == ("Left out: 1 file whose audio is missing (84-121123-0002.flac).",)
    assert samples(loaded.clips[0]) == bytes(6400)
    assert {clip.condition for clip in load_set(tmp_path / "test-clean").clips} == {"test-clean"}
    assert {clip.condition for clip in load_set(chapter).clips} == {"121123"}


@pytest.mark.parametrize("place", ["test", "audio/test", "audio", "."])
def test_fleurs(tmp_path: Path, place: str) -> None:
    wav(tmp_path / place / "98.wav")
    wav(tmp_path / place / "99.wav", 200)
    text(tmp_path / "test.tsv", "7\t98.wav\tHello, there.\thello there\th e l\t1600\tMALE\r\n7\t99.wav\tHello\thello\n")
    loaded = load_set(tmp_path)
    assert [(clip.id, clip.condition, clip.text, clip.audio_ms) for clip in loaded.clips] == [
        ("test/98", "test", "Hello, there.", 100),
        ("test/99", "test", "Hello", 200),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("7\t98.wav\n", "2 columns in line 1"),
        ("7\t98.wav\tHi\n7\tnothing\tHi\n", "no audio file in line 2"),
        ("7\t../98.wav\tHi\n", "a path in line 1"),
        ("client\tpath\tnumber\tsentence\n7\t98.wav\t12\tHi\n", "no audio file in line 1"),
    ],
)
def test_a_list_that_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    wav(tmp_path / "test" / "98.wav")
    text(tmp_path / "test.tsv", content)
    assert said in refusal(tmp_path).message


def test_a_list_may_name_its_columns(tmp_path: Path) -> None:
    wav(tmp_path / "test" / "98.wav")
    text(tmp_path / "test.tsv", "id\tfile_name\traw_transcription\n7\t98.wav\tHi\r\n\r\n\n")
    assert [clip.id for clip in load_set(tmp_path).clips] == ["test/98"]


def test_any_folder_of_audio_with_texts(tmp_path: Path) -> None:
    wav(tmp_path / "top.wav", 100)
    text(tmp_path / "top.txt", "\ufeffOn top,\n of all. \n")
    wav(tmp_path / "calls" / "sales" / "one.WAV", 200, 8_000)
    text(tmp_path / "calls" / "sales" / "one.json", '{"text": "Hi", "words": [["Hi", 10, 90]], "speech": [[10, 90]]}')
    (tmp_path / "calls" / "two.mp3").write_bytes(sound.encoded(np.zeros(16_000, np.int16), 16_000, "libmp3lame", "mp3"))
    text(tmp_path / "calls" / "two.txt", "")
    wav(tmp_path / "calls" / "stereo.wav", 100, 44_100, channels=2)
    text(tmp_path / "calls" / "stereo.txt", "both")
    wav(tmp_path / "calls" / "mute.wav")
    text(tmp_path / "calls" / "broken.wav", "no sound")
    text(tmp_path / "calls" / "broken.txt", "no sound")
    wav(tmp_path / "calls" / "stereo.flac")
    wav(tmp_path / "calls" / "._two.wav")
    loaded = load_set(tmp_path)
    found = {clip.id: clip for clip in loaded.clips}
    assert list(found) == ["calls/sales/one", "calls/stereo", "calls/two", "top"]
    assert [clip.condition for clip in loaded.clips] == ["calls/sales", "calls", "calls", "all"]
    assert found["top"].text == "On top, of all."
    assert found["calls/sales/one"].words == (SpokenWord("Hi", 10, 90),)
    assert found["calls/sales/one"].speech == (Speech(10, 90),)
    assert found["calls/sales/one"].sample_rate_hz == 8_000
    assert found["calls/two"].text == ""
    assert abs(found["calls/two"].audio_ms - 1000) < 120
    assert len(samples(found["calls/stereo"])) == pytest.approx(3200, abs=64)
    assert sum("Left out: 1 file" in note for note in loaded.notes) == len(loaded.notes) == 3
    assert any("without a text" in note and "calls/mute.wav" in note for note in loaded.notes)
    assert any("name of another clip" in note for note in loaded.notes)
    assert any("cannot be used" in note and "broken.wav" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b"{", "no JSON"),
        ("a.json", b"[]", "no object"),
        ("a.json", b"{}", "text"),
        ("a.txt", b"\xff", "UTF-8"),
        ("a.txt", b"a" * (1 << 20) + b"b", "longer than 1 MiB"),
    ],
)
def test_a_text_that_cannot_be_used_is_named(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    wav(tmp_path / "a.wav")
    (tmp_path / name).write_bytes(content)
    error = refusal(tmp_path)
    assert said in error.message
    assert name in error.message


def test_places_without_a_set(tmp_path: Path) -> None:
    assert refusal(tmp_path / "gone").code is Code.NOT_FOUND
    assert refusal(tmp_path).code is Code.NOT_FOUND
    assert "name a folder or a manifest" in refusal(wav(tmp_path / "a.wav")).message
    without = refusal(tmp_path)
    assert without.code is Code.NOT_FOUND
    assert "without a text beside it (a.wav)" in without.message


def test_a_folder_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(set_layouts, "MAX_CLIPS", 2)
    for index in range(3):
        wav(tmp_path / f"{index}.wav")
        text(tmp_path / f"{index}.txt", "")
    assert refusal(tmp_path).code is Code.TOO_LARGE


# Joins, samples, parts of a set.


def clip(clip_id: str, audio: Path, ms: int, **more: Any) -> Clip:
    return Clip(clip_id, "clean", more.pop("text", clip_id), audio, ms, **more)


def test_joined_clips_have_their_words_and_stretches_moved(tmp_path: Path) -> None:
    one = clip("one", wav(tmp_path / "1.wav", 500), 500, words=(SpokenWord("one", 50, 400),), speech=(Speech(50, 400),))
    hush = clip("hush", wav(tmp_path / "2.wav", 200, value=2), 200, text="")
    made = joined("all", "long", (100, one, 299, one, hush, 100, one))
    assert (made.id, made.condition, made.text, made.audio_ms) == ("all", "long", "one one one", 2199)
    assert [(word.start_ms, word.end_ms) for word in made.words] == [(150, 500), (949, 1299), (1749, 2099)]
    # 449 and 450 ms apart: two stretches. Nearer than 400 ms they are one.
    assert made.speech == (Speech(150, 500), Speech(949, 1299), Speech(1749, 2099))
    assert joined("near", "long", (one, 249, one)).speech == (Speech(50, 1149),)
    assert joined("far", "long", (one, 250, one)).speech == (Speech(50, 400), Speech(800, 1150))
    pcm = samples(made)
    assert len(pcm) == 2199 * 32
    assert pcm[:3200] == bytes(3200)
    assert pcm[1398 * 32 : 1400 * 32] == b"\1\0" * 16 + b"\2\0" * 16


def test_what_one_part_does_not_know_the_join_does_not_know(tmp_path: Path) -> None:
    audio = wav(tmp_path / "1.wav", 500)
    knows = clip("one", audio, 500, words=(SpokenWord("one", 50, 400),), speech=(Speech(50, 400),))
    made = joined("all", "long", (knows, clip("two", audio, 500)))
    assert made.words == ()
    assert made.speech == ()


def test_parts_of_a_join_are_as_long_as_they_say(tmp_path: Path) -> None:
    short = clip("short", wav(tmp_path / "1.wav", 100), 150)
    long = clip("long", wav(tmp_path / "2.wav", 100, value=2), 50)
    assert samples(joined("all", "long", (short, long))) == b"\1\0" * 1600 + bytes(1600) + b"\2\0" * 800


def test_clips_of_two_rates_cannot_be_joined(tmp_path: Path) -> None:
    audio = wav(tmp_path / "1.wav")
    with pytest.raises(ASRError, match="8000 Hz and 16000 Hz"):
        joined("all", "long", (clip("a", audio, 100), clip("b", audio, 100, sample_rate_hz=8_000)))


def test_samples_of_another_rate_than_the_set_says_are_refused(tmp_path: Path) -> None:
    audio = wav(tmp_path / "1.wav", rate_hz=8_000)
    with pytest.raises(ASRError, match="22050 Hz"):
        samples(clip("a", audio, 100, sample_rate_hz=22_050))
    assert len(samples(clip("a", audio, 100))) == pytest.approx(3200, abs=64)


def test_samples_of_a_file_that_went_away(tmp_path: Path) -> None:
    with pytest.raises(ASRError) as caught:
        samples(clip("a", tmp_path / "gone.wav", 100))
    assert caught.value.code is Code.NOT_FOUND


def test_a_header_may_lie_about_the_length(tmp_path: Path) -> None:
    audio = tmp_path / "a.wav"
    audio.write_bytes(sound.wav(b"\1\0" * 1600, size=0x7FFF_F000))
    text(tmp_path / "a.txt", "")
    (found,) = load_set(tmp_path).clips
    assert found.audio_ms == 100
    assert samples(found) == b"\1\0" * 1600


def test_clips_that_would_fill_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_audio, "MAX_CLIP_MS", 1000)
    plain, packed = wav(tmp_path / "a.wav", 1100), wav(tmp_path / "b.wav", 1100, channels=2)
    for audio, told_ms in ((plain, 1100), (plain, 10), (packed, 10)):
        with pytest.raises(ASRError, match="longer than") as caught:
            samples(clip("a", audio, told_ms))
        assert caught.value.code is Code.TOO_LARGE


@pytest.fixture
def mixed(tmp_path: Path) -> ClipSet:
    for condition, count in (("clean", 6), ("noise_5db", 3), ("noise_10db", 1)):
        for index in range(count):
            wav(tmp_path / condition / f"{index}.wav")
            text(tmp_path / condition / f"{index}.txt", "Hello")
    return load_set(tmp_path)


def test_only_some_conditions(mixed: ClipSet) -> None:
    assert only(mixed, []) is mixed
    noisy = only(mixed, ["noise_*"])
    assert [clip.id for clip in noisy.clips] == ["noise_10db/0", "noise_5db/0", "noise_5db/1", "noise_5db/2"]
    assert noisy.fingerprint != mixed.fingerprint
    assert only(mixed, ["clean", "noise_*"]) == mixed
    with pytest.raises(ASRError, match=r"'nosie'.*There are: clean, noise_10db, noise_5db") as caught:
        only(mixed, ["clean", "nosie"])
    assert caught.value.code is Code.NOT_FOUND


def test_a_sample_has_some_of_each_condition_and_can_be_drawn_again(mixed: ClipSet) -> None:
    few = sampled(mixed, 5, seed=7)
    assert few == sampled(mixed, 5, seed=7)
    assert few.clips != sampled(mixed, 5, seed=8).clips
    assert [clip.condition for clip in few.clips] == ["clean", "clean", "noise_10db", "noise_5db", "noise_5db"]
    assert few.notes == ("A sample: 5 of 10 clips (seed 7).",)
    assert sampled(mixed, 10, seed=7) is mixed
    with pytest.raises(ASRError, match="1 or more"):
        sampled(mixed, 0, seed=7)


def test_the_fingerprint_is_of_the_content_and_not_of_the_place(tmp_path: Path) -> None:
    for place in ("one", "two"):
        wav(tmp_path / place / "a.wav")
        text(tmp_path / place / "a.txt", "Hello")
    first = load_set(tmp_path / "one").fingerprint
    assert first == load_set(tmp_path / "two").fingerprint
    text(tmp_path / "two" / "a.txt", "Hallo")
    assert first != load_set(tmp_path / "two").fingerprint
    text(tmp_path / "two" / "a.txt", "Hello")
    with (tmp_path / "two" / "a.wav").open("ab") as file:
        file.write(b"more")
    assert first != load_set(tmp_path / "two").fingerprint


def test_conditions_come_in_the_order_of_their_manifests_and_then_by_name(tmp_path: Path) -> None:
    wav(tmp_path / "a.wav")
    orders: dict[str, dict[str, Any]] = {"alone": {}, "beta": {"order": 2}, "clean": {"order": 1}, "last": {}}
    for name, more in orders.items():
        manifest(tmp_path, name, [entry(f"{name}/{n}") for n in range(3)], **more)
    ordered = load_set(tmp_path)
    assert list(dict.fromkeys(clip.condition for clip in ordered.clips)) == ["clean", "beta", "alone", "last"]
    assert [clip.id for clip in ordered.clips[:3]] == ["clean/0", "clean/1", "clean/2"]
    for name in orders:
        manifest(tmp_path, name, [entry(f"{name}/{n}") for n in range(3)])
    by_name = load_set(tmp_path)
    assert [clip.condition for clip in by_name.clips[::3]] == ["alone", "beta", "clean", "last"]
    assert ordered.fingerprint == by_name.fingerprint
    assert {clip.id for clip in sampled(ordered, 6, 1).clips} == {clip.id for clip in sampled(by_name, 6, 1).clips}
    manifest(tmp_path, "clean", [entry()], order="first")
    assert '"order" for its place among the others: it must be a whole number' in refusal(tmp_path).message
