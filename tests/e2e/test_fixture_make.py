"""The golden set can be made again: `tests/fixtures/make.py` with flite, espeak-ng and sox.

On Debian 12, whose versions made it, every byte is the same. Other versions may speak a little differently: there the
clips made anew are held against the committed ones by their length, their rate and their loudness.
"""

from __future__ import annotations

import json
import subprocess
import sys
import wave
from functools import cache
from pathlib import Path

import numpy as np
import pytest

TESTS = Path(__file__).resolve().parents[1]
CLIPS = (
    "clean/river",
    "fast/bicycle",
    "accents/cake",
    "digits/code",
    "names/london",
    "noise_20db/window",
    "noise_10db/bank",
    "noise_5db/friend",
    "music/money",
    "low_level/winter",
    "telephone/airport",
    "silence/breath",
    "silence/line",
)
"""Of each condition and each kind of noise: `window` lies in brown, `bank` in babble, `friend` in white noise."""


def make(*arguments: object) -> subprocess.CompletedProcess[str]:
    script = TESTS / "fixtures" / "make.py"
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, timeout=100, check=False
    )


@cache
def same_programs() -> bool:
    """Whether these are the versions that made the set, Debian 12's."""
    return make("--programs").returncode == 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with some clips of each kind, made now."""
    root = tmp_path_factory.mktemp("made")
    done = make("--root", root, *CLIPS)
    assert done.returncode == 0, done.stderr
    return root


def sound(path: Path) -> tuple[int, np.ndarray]:
    with wave.open(str(path)) as file:
        return file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float64)


@pytest.mark.parametrize("clip", CLIPS)
def test_a_clip_made_anew_is_the_committed_one(made: Path, clip: str) -> None:
    new, kept = (root / "fixtures" / f"{clip}.wav" for root in (made, TESTS))
    if same_programs():
        assert new.read_bytes() == kept.read_bytes()
        return
    (rate, mine), (kept_rate, theirs) = sound(new), sound(kept)
    assert rate == kept_rate
    assert len(mine) == pytest.approx(len(theirs), rel=0.15)
    assert np.sqrt(np.mean(mine**2)) == pytest.approx(np.sqrt(np.mean(theirs**2)), rel=0.3)


def test_a_check_names_the_files_that_differ(made: Path) -> None:
    """Against what was just made, with these programs: the same wherever this runs."""
    clips = ("names/london", "digits/code")
    same = make("--check", "--root", made, *clips)
    assert (same.returncode, "the same, all 2 clips" in same.stderr) == (0, True), same.stderr
    (made / "fixtures" / "names" / "london.wav").write_bytes(b"")
    manifest = made / "golden" / "digits.json"
    described = json.loads(manifest.read_text("utf-8"))
    described["clips"][0]["text"] = "Something else."
    manifest.write_text(json.dumps(described), "utf-8")
    different = make("--check", "--root", made, *clips)
    assert different.returncode == 1
    named = [line for line in different.stderr.splitlines() if line.startswith("differs: ")]
    assert named == ["differs: fixtures/names/london.wav", "differs: golden/digits.json: digits/code"]
    assert "made with espeak-ng" in different.stderr


def test_a_part_of_the_set_never_replaces_the_whole() -> None:
    refused = make("clean/river")
    assert refused.returncode == 2
    assert "a part of the set can be checked" in refused.stderr
    assert "the set has no clean/nobody" in make("--check", "clean/nobody").stderr
