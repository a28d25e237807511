"""What the guides say is true: every example of docs/library.md runs, docs/event-schema.md has every field."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import speech
from asr import wire
from asr.choice import Credentials, choose
from asr.errors import Code
from asr.wishes import Wishes
from server.refusals import refusal

DOCS = Path(__file__).resolve().parents[2] / "docs"
LIBRARY, EVENTS = ((DOCS / name).read_text("utf-8") for name in ("library.md", "event-schema.md"))
EXAMPLES = re.findall(r"^```python\n(.*?)^```", LIBRARY, re.M | re.S)


@pytest.mark.parametrize("code", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_of_the_guide_runs(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(speech.path("greeting.wav"), tmp_path / "talk.wav")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASR_ENGINE", "mock")
    exec(compile(code, "docs/library.md", "exec"), {"__name__": "example"})
    assert ("print(" in code) == bool(capsys.readouterr().out)


def test_every_way_to_choose_a_recognizer_is_real() -> None:
    ways = re.findall(r"^\| `RivaASRClient\((.*?)\)` \|", LIBRARY, re.M)
    assert len(ways) == 7

    def arguments(endpoint: str | None = None, engine: Any = None, mock_mode: bool = False, **more: Any) -> object:
        return choose(endpoint, engine, mock_mode, None, Credentials(**more))

    for way in ways:
        assert eval(f"arguments({way})", {"arguments": arguments, "my_engine": object()}) is not None


def test_every_wish_and_code_is_in_the_guide() -> None:
    for name in (*Wishes.__annotations__, *(code.value for code in Code)):
        assert f"`{name}`" in LIBRARY, name


def _rows(section: str) -> dict[str, bool]:
    """Field → whether it is marked optional."""
    return {name: mark == "optional" for name, mark in re.findall(r"^\| `([\w.]+)` \|.*?\| *(\w*) *\| ", section, re.M)}


def _fields(schema: dict[str, Any], prefix: str = "") -> dict[str, bool]:
    fields: dict[str, bool] = {}
    for name, body in schema.get("properties", {}).items():
        if name == "type" and not prefix:
            continue
        fields[prefix + name] = name not in schema.get("required", ())
        fields |= _fields(body, f"{prefix}{name}.")
    return fields


def test_the_page_of_messages_has_every_field() -> None:
    sections = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##|\Z)", EVENTS, re.M | re.S))
    titles = {"client_ack": "`ack` (from the client)", "word": "word", "alternative": "alternative", "phrase": "phrase"}
    for name, schema in wire.schema()["$defs"].items():
        if "properties" not in schema or name == "server_message":
            continue
        section = sections.pop(titles.get(name, f"`{name}`"))
        assert schema["description"] in section, name
        assert _rows(section) == _fields(schema), name
    assert not sections


def test_the_page_of_messages_has_every_close_code() -> None:
    for code in Code:
        row = re.search(rf"^\| `{code.value}` \| (.*?) \|", EVENTS, re.M)
        assert row is not None
        assert str(refusal(code).close_code) in row[1]
