"""The golden set as it is committed: its manifests say the truth about its sounds, and it covers what it promises."""

from __future__ import annotations

import hashlib
import json
import wave
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import speech

GOLDEN = Path(__file__).parents[1] / "golden"
CONDITIONS = {
    "clean": 500,
    "fast": 140,
    "accents": 200,
    "digits": 100,
    "names": 90,
    "noise_20db": 120,
    "noise_10db": 140,
    "noise_5db": 100,
    "music": 100,
    "low_level": 100,
    "telephone": 140,
    "silence": 0,
}
"""Condition → the words it has at least, so that its word error rate says something."""
FLITE = {f"flite {voice}" for voice in ("kal16", "awb", "rms", "slt")}
ACCENTS = {
    f"espeak-ng {voice}"
    for voice in (
        "en-us",
        "en-gb",
        "en-gb-scotland",
        "en-gb-x-rp",
        "en-gb-x-gbclan",
        "en-gb-x-gbcwmd",
        "en-029",
        "en-us-nyc",
    )
}
BUDGET_BYTES = 20_000_000


@cache
def manifest(condition: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((GOLDEN / f"{condition}.json").read_text("utf-8"))
    return found


@cache
def clips() -> dict[str, dict[str, Any]]:
    """Those with a sound of their own, by id."""
    return {clip["id"]: clip for condition in CONDITIONS for clip in manifest(condition)["clips"]}


def audio(clip: dict[str, Any]) -> Path:
    return (GOLDEN / str(clip["audio"])).resolve()


@cache
def samples(clip_id: str) -> NDArray[np.float64]:
    clip = clips()[clip_id]
    with wave.open(str(audio(clip))) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, clip["sample_rate_hz"])
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


def level(sound: NDArray[np.float64], clip: dict[str, Any]) -> float:
    """dBFS (RMS) over the clip's speech."""
    rate = clip["sample_rate_hz"]
    spoken = np.concatenate([sound[start * rate // 1000 : end * rate // 1000] for start, end in clip["speech"]])
    return float(20 * np.log10(np.sqrt(np.mean(spoken**2)) / 32768))


def test_there_is_one_manifest_for_each_condition() -> None:
    found = {path.stem for path in GOLDEN.glob("*.json")}
    assert found == {*CONDITIONS, "long"}
    for condition in found:
        assert manifest(condition)["schema"] == "riva-gateway.golden-set/1"
        assert manifest(condition)["condition"] == condition
        assert len(manifest(condition)["about"]) > 10
        assert all(clip["id"].startswith(f"{condition}/") for clip in manifest(condition)["clips"])


def test_the_conditions_stand_in_an_order_for_readers() -> None:
    orders = {manifest(condition)["order"]: condition for condition in (*CONDITIONS, "long")}
    assert [orders[number] for number in range(1, 14)] == [
        "clean", "fast", "accents", "digits", "names", "telephone", "low_level",
        "noise_20db", "noise_10db", "noise_5db", "music", "long", "silence",
    ]  # fmt: skip


def test_every_clip_has_its_own_id_and_its_file_unchanged() -> None:
    ids = [clip["id"] for condition in CONDITIONS for clip in manifest(condition)["clips"]]
    assert len(ids) == len(set(ids)) >= 200
    for clip in clips().values():
        assert clip["audio"] == f"../fixtures/{clip['id']}.wav"
        assert hashlib.sha256(audio(clip).read_bytes()).hexdigest() == clip["sha256"], clip["id"]


def test_every_sound_is_in_a_manifest_and_all_are_small() -> None:
    files = {path.resolve() for path in speech.FIXTURES.glob("*/*.wav")}
    assert files == {audio(clip) for clip in clips().values()}
    assert sum(path.stat().st_size for path in files) <= BUDGET_BYTES


@pytest.mark.parametrize("condition", CONDITIONS)
def test_lengths_rates_and_places_are_those_of_the_sounds(condition: str) -> None:
    for clip in manifest(condition)["clips"]:
        assert clip["audio_ms"] == len(samples(clip["id"])) * 1000 // clip["sample_rate_hz"], clip["id"]
        edge = 0
        for start, end in clip["speech"]:
            assert edge <= start < end <= clip["audio_ms"], clip["id"]
            edge = end
        if clip["speech"]:
            assert 200 <= clip["speech"][0][0] <= 300
            assert clip["audio_ms"] - edge >= 180


def test_both_rates_are_there() -> None:
    rates = Counter((clip["id"].split("/")[0], clip["sample_rate_hz"]) for clip in clips().values())
    assert {rate for _, rate in rates} == {8_000, 16_000}
    assert rates["telephone", 8_000] == len(manifest("telephone")["clips"])
    assert rates["silence", 8_000] >= 1


@pytest.mark.parametrize("condition", sorted(set(CONDITIONS) - {"silence"}))
def test_a_condition_has_enough_words_and_voices(condition: str) -> None:
    entries = manifest(condition)["clips"]
    assert sum(len(speech.normalized(clip["text"]).split()) for clip in entries) >= CONDITIONS[condition]
    assert {clip["voice"] for clip in entries} == (ACCENTS if condition == "accents" else FLITE)
    for clip in entries:
        assert clip["text"][0].isupper()
        assert clip["text"][-1] in ".?"
        assert not any(letter.isdigit() for letter in clip["text"]), "digits are written as they are spoken"
    assert len({clip["text"] for clip in entries}) == len(entries)


def test_words_are_those_of_the_text_in_their_places() -> None:
    placed = [clip for clip in clips().values() if clip.get("words")]
    spoken = [clip for clip in clips().values() if clip["text"]]
    assert len(placed) >= 0.95 * len(spoken)
    for clip in placed:
        assert [word for word, _, _ in clip["words"]] == speech.normalized(clip["text"]).split(), clip["id"]
        edge = clip["speech"][0][0]
        for _, start, end in clip["words"]:
            assert edge <= start < end <= clip["speech"][-1][1], clip["id"]
            edge = start


def test_nobody_speaks_in_silence() -> None:
    entries = manifest("silence")["clips"]
    assert len(entries) >= 6
    assert all(clip["text"] == "" and clip["speech"] == [] and clip["words"] == [] for clip in entries)
    assert not samples("silence/zeros").any()
    assert all(samples(clip["id"]).any() for clip in entries if clip["id"] != "silence/zeros")


@pytest.mark.parametrize("condition", ["noise_20db", "noise_10db", "noise_5db", "music"])
def test_noise_is_as_loud_as_the_name_says(condition: str) -> None:
    beds: set[tuple[str, str]] = set()
    for clip in manifest(condition)["clips"]:
        dry = clips()[clip["of"]]
        assert (dry["text"], dry["speech"], dry["words"]) == (clip["text"], clip["speech"], clip["words"])
        noise = samples(clip["id"]) - samples(dry["id"])
        measured = level(samples(dry["id"]), dry) - level(noise, dry)
        assert measured == pytest.approx(clip["snr_db"], abs=1.0), clip["id"]
        assert condition == "music" or condition == f"noise_{clip['snr_db']}db"
        assert noise[: clip["speech"][0][0] * 16].any(), "the noise is there before the voice"
        beds.add((clip["noise"], clip["voice"]))
    kinds = {"music"} if condition == "music" else {"white", "pink", "brown", "babble"}
    assert {kind for kind, _ in beds} == kinds


def test_levels_are_those_that_are_stated() -> None:
    for clip in clips().values():
        condition = clip["id"].split("/")[0]
        if condition in ("clean", "fast", "accents", "digits", "names"):
            assert level(samples(clip["id"]), clip) == pytest.approx(-26, abs=0.6), clip["id"]
        elif condition == "low_level":
            assert 20 * np.log10(np.abs(samples(clip["id"])).max() / 32768) == pytest.approx(-45, abs=0.2)


def test_a_telephone_line_carries_its_band_alone() -> None:
    for clip in manifest("telephone")["clips"]:
        power = np.abs(np.fft.rfft(samples(clip["id"]))) ** 2
        hz = np.fft.rfftfreq(len(samples(clip["id"])), 1 / 8_000)
        assert power[(hz < 200) | (hz > 3_600)].sum() < 0.01 * power.sum(), clip["id"]


def test_long_clips_are_joined_of_others() -> None:
    joined = {clip["id"]: clip for clip in manifest("long")["clips"]}
    lengths = {}
    for clip_id, clip in joined.items():
        assert set(clip) == {"id", "join"}
        parts = [clips()[part] for part in clip["join"] if isinstance(part, str)]
        assert {part["sample_rate_hz"] for part in parts} == {16_000}
        assert len({part["id"] for part in parts}) == len(parts)
        pauses = [part for part in clip["join"] if isinstance(part, int)]
        assert min(pauses) >= 400
        lengths[clip_id] = sum(part["audio_ms"] for part in parts) + sum(pauses)
    assert 120_000 <= lengths["long/two_minutes"] < 140_000
    assert 600_000 <= lengths["long/ten_minutes"] < 640_000
