"""Sets with a manifest: JSON of the schema `riva-gateway.golden-set/1`, one file per condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from asr.errors import ASRError, Code
from evaluation.clip_audio import header, joined
from evaluation.clips import Clip
from evaluation.set_files import MAX_LIST_BYTES, bad, field, read_json, speech_of, words_of

SCHEMA = "riva-gateway.golden-set/1"

UNORDERED = 1_000_000
"""Where a manifest without an `order` stands: behind those that have one."""

_Entries = dict[str, tuple[Path, str, dict[str, Any]]]
"""Clip id → its manifest, condition and entry."""


def manifests_in(folder: Path) -> tuple[Path, ...]:
    """The manifests that lie directly in a folder, sorted by name.

    Raises:
        ASRError: `bad_request` where some are manifests and another JSON file beside them cannot be read.
    """
    found, broken = [], None
    for path in sorted(folder.glob("*.json")):
        try:
            document = read_json(path, MAX_LIST_BYTES)
        except ASRError as error:
            broken = broken or error
            continue
        if isinstance(document, dict) and document.get("schema") == SCHEMA:
            found.append(path)
    if found and broken is not None:
        raise broken
    return tuple(found)


def read_manifests(paths: Sequence[Path], beside: Sequence[Path] = ()) -> tuple[Clip, ...]:
    """The clips of these manifests, by the manifests' `order`, and where it is equal or missing as they are given.

    Their joins may also name clips of the manifests `beside` them.

    Raises:
        ASRError: `bad_request` or `not_found`: the message names the manifest and the clip.
    """
    entries: _Entries = {}
    wanted: list[tuple[int, str]] = []
    for path in (*paths, *(path for path in beside if path not in paths)):
        document = read_json(path, MAX_LIST_BYTES)
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            found = document.get("schema") if isinstance(document, dict) else type(document).__name__
            raise bad(path, f"is no set of clips: its schema is {found!r}, not {SCHEMA!r}.")
        condition = field(path, "its condition", document, "condition", str)
        order = field(path, "its place among the others", document, "order", int, UNORDERED)
        for index, entry in enumerate(field(path, "its clips", document, "clips", list)):
            if not isinstance(entry, dict):
                raise bad(path, f"has a clip that is no object (number {index}).")
            clip_id = field(path, f"clip number {index}", entry, "id", str)
            if clip_id in entries:
                where = "" if entries[clip_id][0] == path else f" and in {entries[clip_id][0].name}"
                raise bad(path, f"has the clip {clip_id!r} twice{where}. Ids must be unique in a set.")
            entries[clip_id] = (path, condition, entry)
            if path in paths:
                wanted.append((order, clip_id))
    made: dict[str, Clip] = {}
    ordered = [clip_id for _, clip_id in sorted(wanted, key=itemgetter(0))]
    for clip_id in ordered:
        _make(clip_id, entries, made, ())
    return tuple(made[clip_id] for clip_id in ordered)


def _make(
    clip_id: str, entries: Mapping[str, tuple[Path, str, dict[str, Any]]], made: dict[str, Clip], via: tuple[str, ...]
) -> Clip:
    if clip_id in made:
        return made[clip_id]
    path, condition, entry = entries[clip_id]
    what = f"the clip {clip_id!r}"
    if "join" not in entry:
        made[clip_id] = _single(path, condition, entry, clip_id)
        return made[clip_id]
    if clip_id in via or len(via) > 8:
        raise bad(path, f"joins {what} of itself, or of joins nested too deep.")
    parts: list[Clip | int] = []
    for part in field(path, what, entry, "join", list):
        if isinstance(part, int) and not isinstance(part, bool):
            parts.append(part)
        elif isinstance(part, str) and part in entries:
            parts.append(_make(part, entries, made, (*via, clip_id)))
        else:
            raise bad(path, f"joins {what} of {part!r}: there is no clip with this id in the set.")
    made[clip_id] = joined(clip_id, condition, tuple(parts))
    return made[clip_id]


def _single(path: Path, condition: str, entry: dict[str, Any], clip_id: str) -> Clip:
    what = f"the clip {clip_id!r}"
    audio = path.parent / field(path, what, entry, "audio", str)
    if not audio.is_file():
        raise ASRError(Code.NOT_FOUND, f"{str(path)!r} names audio for {what} that is not there: {str(audio)!r}.")
    text = field(path, what, entry, "text", str)
    length_ms = field(path, what, entry, "audio_ms", int, -1)
    rate_hz = field(path, what, entry, "sample_rate_hz", int, -1)
    if length_ms < 0 or rate_hz < 0:
        told = header(audio)
        length_ms = told[0] if length_ms < 0 else length_ms
        rate_hz = told[1] if rate_hz < 0 else rate_hz
    if not rate_hz:
        raise bad(path, f"says 0 Hz of {what}.")
    return Clip(
        id=clip_id,
        condition=condition,
        text=text,
        source=audio,
        audio_ms=length_ms,
        sample_rate_hz=rate_hz,
        words=words_of(path, what, entry),
        speech=speech_of(path, what, entry),
        sha256=field(path, what, entry, "sha256", str, ""),
    )
