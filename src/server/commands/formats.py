"""How transcripts are written out, and where to. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from asr.captions import to_srt, to_text, to_vtt
from asr.errors import ASRError
from asr.transcript import Transcript, to_json


class Format(StrEnum):
    """What `transcribe` writes."""

    TEXT = "text"
    JSON = "json"
    SRT = "srt"
    VTT = "vtt"


_SUFFIX = {Format.TEXT: ".txt", Format.JSON: ".json", Format.SRT: ".srt", Format.VTT: ".vtt"}


def render(name: str, transcript: Transcript, format_: Format, *, several: bool) -> str:
    """A transcript as text: whole lines, or nothing at all where nothing was said.

    With `several` a text is headed by its file's name, and JSON is one line that holds it.
    """
    match format_:
        case Format.TEXT:
            text = to_text(transcript)
            return f"==> {name} <==\n{text}\n" if several else text
        case Format.JSON:
            body = to_json(transcript)
            if several:
                return json.dumps({"file": name, **body}, ensure_ascii=False) + "\n"
            return json.dumps(body, indent=2, ensure_ascii=False) + "\n"
        case Format.SRT:
            return to_srt(transcript)
        case Format.VTT:
            return to_vtt(transcript)


def render_error(name: str, error: ASRError) -> str:
    """The JSON line of a file that failed among several, so that lines and files still match."""
    body = {"file": name, "error": {"code": error.code.value, "message": error.message}}
    return json.dumps(body, ensure_ascii=False) + "\n"


def destinations(names: Sequence[str], directory: Path, format_: Format) -> dict[str, Path]:
    """Where each input's transcript goes in `directory`.

    `talk.wav` becomes `talk.srt`; where two inputs would meet in one file their own suffix stays
    (`talk.wav.srt`), and a number tells apart what is then still alike. stdin becomes `stdin.srt`.
    """
    suffix = _SUFFIX[format_]
    stems = {name: "stdin" if name == "-" else Path(name).stem for name in dict.fromkeys(names)}
    alike = [stem for stem in stems.values() if list(stems.values()).count(stem) > 1]
    taken: set[str] = set()
    result: dict[str, Path] = {}
    for name, stem in stems.items():
        base = Path(name).name if stem in alike and name != "-" else stem
        candidate, number = base, 2
        while candidate in taken:
            candidate, number = f"{base}-{number}", number + 1
        taken.add(candidate)
        result[name] = directory / f"{candidate}{suffix}"
    return result
