"""Folders of recordings as others lay them out: LibriSpeech, FLEURS, and plain files with a text beside each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from asr.errors import ASRError, Code
from evaluation.clip_audio import SUFFIXES, header
from evaluation.clips import Clip, Speech, SpokenWord
from evaluation.set_files import MAX_LIST_BYTES, bad, field, read_json, read_text, speech_of, words_of

MAX_CLIPS = 200_000
"""A larger folder is refused: it is no set that somebody wants to stream."""

_TRANSCRIPTS = "*.trans.txt"
_FLEURS_AUDIO = ("{list}", "audio/{list}", "audio", ".")
"""Where the audio of `{list}.tsv` may lie, beside it."""

_HEADINGS = ("file_name", "filename", "file name")
_FLEURS_RULE = (
    "A list of FLEURS' kind has at least an id, an audio file's name and its text, parted by tabs. "
    "Move the list out of the folder if it is of another kind."
)


class Found:
    """Clips and oddities, as they are found.

    Attributes:
        clips: in order.
        notes: for people.
    """

    def __init__(self) -> None:
        self.clips: list[Clip] = []
        self.notes: list[str] = []
        self._ids: set[str] = set()
        self._counts: dict[str, tuple[int, str]] = {}

    def add(
        self,
        clip_id: str,
        condition: str,
        audio: Path,
        text: str,
        words: tuple[SpokenWord, ...] = (),
        speech: tuple[Speech, ...] = (),
    ) -> None:
        """Take a clip; one whose audio cannot be used, or whose id is taken, becomes a note."""
        if clip_id in self._ids:
            self.odd("with the name of another clip", audio.name)
            return
        if len(self._ids) >= MAX_CLIPS:
            raise ASRError(Code.TOO_LARGE, f"There are more than {MAX_CLIPS} clips. Name a part of the folder.")
        self._ids.add(clip_id)
        if not audio.is_file():
            self.odd("whose audio is missing", audio.name)
            return
        try:
            length_ms, rate_hz = header(audio)
        except ASRError as error:
            self.odd("whose audio cannot be used", error.message)
            return
        self.clips.append(Clip(clip_id, condition, text, audio, length_ms, rate_hz, words, speech))

    def odd(self, what: str, example: str) -> None:
        """Something is left out; of each kind, the number and one example are told."""
        count, first = self._counts.get(what, (0, example))
        self._counts[what] = (count + 1, first)

    def told(self) -> tuple[str, ...]:
        """The notes."""
        return tuple(
            f"Left out: {count} {'file' if count == 1 else 'files'} {what} ({example})."
            for what, (count, example) in self._counts.items()
        )


def librispeech(folder: Path) -> Found | None:
    """`speaker/chapter/speaker-chapter.trans.txt` beside its FLAC files, under the folder; None where there is none.

    The condition is what lies above the speaker (`test-clean`), else the folder's name.
    """
    lists = sorted(folder.rglob(_TRANSCRIPTS))
    if not lists:
        return None
    found = Found()
    for path in lists:
        above = path.relative_to(folder).parts[:-3]
        condition = "/".join(above) or _name(folder)
        for line in read_text(path, MAX_LIST_BYTES).splitlines():
            utterance, _, text = line.strip().partition(" ")
            if not utterance:
                continue
            if "/" in utterance or "\\" in utterance:
                raise bad(path, f"names an utterance {utterance[:40]!r}: it is no list of LibriSpeech's kind.")
            beside = (path.parent / f"{utterance}{suffix}" for suffix in (".flac", *SUFFIXES))
            audio = next((file for file in beside if file.is_file()), path.parent / f"{utterance}.flac")
            found.add(f"{condition}/{utterance}", condition, audio, text.strip())
    return found


def fleurs(folder: Path) -> Found | None:
    """`test.tsv` (id, file name, transcription …) with its audio in `test/` or `audio/test/`; None where there is none.

    The condition is the list's name. The third column is taken: the transcription as it was written.
    """
    lists = sorted(folder.glob("*.tsv"))
    if not lists:
        return None
    found = Found()
    for path in lists:
        rows = list(_rows(path))
        places = [path.parent / place.format(list=path.stem) for place in _FLEURS_AUDIO]
        for name, text in rows:
            audio = next((file for place in places if (file := place / name).is_file()), places[0] / name)
            found.add(f"{path.stem}/{Path(name).stem}", path.stem, audio, text)
    return found


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(read_text(path, MAX_LIST_BYTES).split("\n"), 1):
        columns = line.rstrip("\r").split("\t")
        if columns == [""]:
            continue
        if len(columns) < 3:
            raise bad(path, f"has {len(columns)} columns in line {number}. {_FLEURS_RULE}")
        name = columns[1].strip()
        if not name.lower().endswith(SUFFIXES):
            if number == 1 and name.lower() in _HEADINGS:
                continue
            raise bad(path, f"names no audio file in line {number}: {name[:40]!r}. {_FLEURS_RULE}")
        if Path(name).name != name:
            raise bad(path, f"names a path in line {number}: {name[:40]!r}. Only a file's name belongs there.")
        yield name, columns[2].strip()


def plain(folder: Path) -> Found:
    """Audio files under the folder, each with its text beside it: the same name with `.txt`, or `.json` ({"text": …}).

    The condition is the sub-folder, else "all".
    """
    found = Found()
    for path in _audio_under(folder):
        relative = path.relative_to(folder)
        condition = relative.parent.as_posix() if len(relative.parts) > 1 else "all"
        clip_id = relative.with_suffix("").as_posix()
        if (beside := path.with_suffix(".txt")).is_file():
            found.add(clip_id, condition, path, " ".join(read_text(beside).split()))
        elif (beside := path.with_suffix(".json")).is_file():
            entry = read_json(beside)
            if not isinstance(entry, dict):
                raise bad(beside, 'is no object with a "text".')
            text = " ".join(field(beside, "its audio", entry, "text", str).split())
            words, speech = words_of(beside, "its audio", entry), speech_of(beside, "its audio", entry)
            found.add(clip_id, condition, path, text, words, speech)
        else:
            found.odd("without a text beside it", relative.as_posix())
    return found


def _audio_under(folder: Path) -> Iterable[Path]:
    paths = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file():
            paths.append(path)
            if len(paths) > MAX_CLIPS:
                raise ASRError(Code.TOO_LARGE, f"There are more than {MAX_CLIPS} clips. Name a part of the folder.")
    return sorted(paths)


def _name(folder: Path) -> str:
    return folder.resolve().name or "all"
