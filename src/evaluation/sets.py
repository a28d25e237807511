"""Sets of clips: loading one from a manifest or a folder, and taking a part of it.

What a set looks like on the disk is stated in `docs/golden-sets.md`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from random import Random
from typing import Any

from asr.errors import ASRError, Code
from evaluation.clip_audio import SUFFIXES, joined, samples
from evaluation.clips import Clip, ClipSet
from evaluation.manifests import manifests_in, read_manifests
from evaluation.set_layouts import fleurs, librispeech, plain

__all__ = ["joined", "load_set", "only", "sampled", "samples"]

_FINGERPRINT_CHARS = 12


def load_set(path: Path) -> ClipSet:
    """The set in a folder, or of one manifest.

    A folder is, in this order: one with manifests directly in it, LibriSpeech's layout, FLEURS' layout, or audio files
    with a text beside each. Only headers of audio are read. Blocking.

    Raises:
        ASRError: `not_found` where nothing is there or no clip is; `bad_request` where a file of it cannot be used;
            `too_large` for a folder of more than 200000 clips.
    """
    try:
        return _loaded(path)
    except OSError as error:
        raise ASRError(Code.BAD_REQUEST, f"{str(path)!r} cannot be read: {error.strerror}.", param="set") from None


def _loaded(path: Path) -> ClipSet:
    if not path.exists():
        raise ASRError(Code.NOT_FOUND, f"There is no set at {str(path)!r}. Name a folder or a manifest.", param="set")
    notes: tuple[str, ...] = ()
    if path.is_file():
        if path.suffix.lower() != ".json":
            raise ASRError(Code.BAD_REQUEST, f"{str(path)!r} is no set: name a folder or a manifest.", param="set")
        beside = _manifests_beside(path)
        clips = read_manifests([path], beside)
        name = path.stem
    else:
        name = path.resolve().name or "set"
        if manifests := manifests_in(path):
            clips = read_manifests(manifests)
        else:
            found = librispeech(path) or fleurs(path) or plain(path)
            clips, notes = tuple(found.clips), found.told()
    if not clips:
        told = " ".join(notes) or (
            f"A set is a folder with a manifest, or with {', '.join(SUFFIXES)} files and a .txt or .json of the same "
            "name beside each."
        )
        raise ASRError(Code.NOT_FOUND, f"There is no clip in {str(path)!r}. {told}", param="set")
    return _set(name, clips, notes)


def _manifests_beside(path: Path) -> tuple[Path, ...]:
    try:
        return manifests_in(path.parent)
    except ASRError:
        return ()  # what is broken beside it is no matter of this manifest, unless it names it


def only(clip_set: ClipSet, conditions: Sequence[str]) -> ClipSet:
    """The clips of some conditions; names may hold `*` and `?` (`noise_*`). None named: the set as it is.

    Raises:
        ASRError: `not_found` where a name fits no condition; the message names those there are.
    """
    if not conditions:
        return clip_set
    there = tuple(dict.fromkeys(clip.condition for clip in clip_set.clips))
    for pattern in conditions:
        if not any(fnmatchcase(condition, pattern) for condition in there):
            raise ASRError(
                Code.NOT_FOUND, f"No condition of the set is called {pattern!r}. There are: {', '.join(there)}."
            )
    kept = {condition for condition in there if any(fnmatchcase(condition, pattern) for pattern in conditions)}
    return _set(clip_set.name, tuple(clip for clip in clip_set.clips if clip.condition in kept), clip_set.notes)


def sampled(clip_set: ClipSet, count: int, seed: int) -> ClipSet:
    """`count` of the clips, drawn with `seed`, each condition having its turn; in the set's order.

    Raises:
        ASRError: `bad_request` for a count below 1.
    """
    if count < 1:
        raise ASRError(Code.BAD_REQUEST, f"A sample of {count} clips is none. Ask for 1 or more.", param="sample")
    if count >= len(clip_set.clips):
        return clip_set
    by_condition: dict[str, list[int]] = {}
    for index, clip in enumerate(clip_set.clips):
        by_condition.setdefault(clip.condition, []).append(index)
    chance = Random(seed)  # noqa: S311 - a draw that can be repeated, not a secret
    groups = [by_condition[condition] for condition in sorted(by_condition)]  # the same sample in whichever order
    for group in groups:
        chance.shuffle(group)
    turns = sorted((turn, order, index) for order, group in enumerate(groups) for turn, index in enumerate(group))
    chosen = sorted(index for _, _, index in turns[:count])
    note = f"A sample: {count} of {len(clip_set.clips)} clips (seed {seed})."
    return _set(clip_set.name, tuple(clip_set.clips[index] for index in chosen), (*clip_set.notes, note))


def _set(name: str, clips: tuple[Clip, ...], notes: tuple[str, ...]) -> ClipSet:
    known = hashlib.sha256()
    for clip in sorted(clips, key=lambda clip: clip.id):  # a set in another order is the same set
        known.update(json.dumps(_identity(clip)).encode())
    return ClipSet(name, clips, known.hexdigest()[:_FINGERPRINT_CHARS], notes)


def _identity(clip: Clip) -> list[Any]:
    """What makes a clip the same clip on another machine. Without a hash, the file's name and size stand for it."""
    source: list[Any]
    if isinstance(clip.source, Path):
        source = [clip.sha256.lower()] if clip.sha256 else [clip.source.name, clip.source.stat().st_size]
    else:
        source = [part if isinstance(part, int) else _identity(part) for part in clip.source]
    return [clip.id, clip.condition, clip.text, clip.audio_ms, clip.sample_rate_hz, source]
