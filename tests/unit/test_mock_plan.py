"""Mock plans: what is read, what is refused and how, and that docs/mock.md tells all of it."""

from __future__ import annotations

import json
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from asr.errors import ASRError, Code
from asr.mock import sections
from asr.mock.plan import DEFAULT_PLAN, MockPlan, load_plan

DOCS = Path(__file__).parents[2] / "docs" / "mock.md"

SECTIONS: dict[str, Any] = {
    "": MockPlan,
    "utterances[]": sections.Utterance,
    "shape": sections.Shape,
    "delay": sections.Delay,
    "faults[]": sections.Fault,
    "server": sections.ServerSection,
    "server.models[]": sections.ModelRow,
    "http": sections.HttpSection,
    "realtime": sections.RealtimeSection,
}


def test_an_empty_mapping_is_the_default_plan() -> None:
    assert load_plan({}) == DEFAULT_PLAN


def test_toml_json_and_mapping_give_the_same_plan(tmp_path: Path) -> None:
    mapping = {
        "hears": "clock",
        "utterances": ["good morning", {"words": ["good", "bye"], "word_ms": 200}],
        "shape": {"confidence": -2},
        "faults": [{"kind": "unavailable", "at_ms": 500, "streams": [2]}],
    }
    toml = tmp_path / "plan.toml"
    toml.write_text(
        'hears = "clock"\nutterances = ["good morning", {words = ["good", "bye"], word_ms = 200}]\n'
        '[shape]\nconfidence = -2\n[[faults]]\nkind = "unavailable"\nat_ms = 500\nstreams = [2]\n'
    )
    as_json = tmp_path / "plan.json"
    as_json.write_text(json.dumps(mapping))
    plan = load_plan(mapping)
    assert plan == load_plan(toml) == load_plan(str(as_json))
    assert plan.utterances[0].words == ("good", "morning")
    assert plan.utterances[1].word_ms == 200
    assert plan.shape.confidence == -2.0
    assert plan.faults[0].streams == (2,)


@pytest.mark.parametrize(
    ("mapping", "param", "said"),
    [
        ({"utterance": []}, "utterance", "'utterances'"),
        ({"shape": {"final_spaces": "none"}}, "shape.final_spaces", "'final_space'"),
        ({"shape": {"zzz": 1}}, "shape.zzz", "Known here"),
        ({"shape": {"final_space": "trailling"}}, "shape.final_space", "'trailing'"),
        ({"chunk_ms": "160"}, "chunk_ms", "whole number"),
        ({"chunk_ms": 150}, "chunk_ms", "multiple of 20"),
        ({"loop": 1}, "loop", "true or false"),
        ({"chunk_ms": True}, "chunk_ms", "whole number"),
        ({"utterances": [{"word_ms": 0}]}, "utterances[0].word_ms", "1 to"),
        ({"utterances": 7}, "utterances", "list"),
        ({"faults": [{}]}, "faults[0].kind", "must be given"),
        ({"faults": [{"kind": "half_open", "at_ms": 5}]}, "faults[0].kind", "hang"),
        ({"delay": 5}, "delay", "table"),
        ({"server": {"required_metadata": {"a": 1}}}, "server.required_metadata", "texts"),
        ({"realtime": {"idle_close_ms": 1}}, "realtime.idle_close_ms", "10 to"),
    ],
)
def test_a_bad_plan_names_the_key_and_the_way_out(mapping: dict[str, Any], param: str, said: str) -> None:
    with pytest.raises(ASRError) as caught:
        load_plan(mapping)
    assert caught.value.code is Code.BAD_REQUEST
    assert caught.value.param == param
    assert param in caught.value.message
    assert said in caught.value.message


def test_files_that_are_no_plan_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ASRError, match="cannot be read") as caught:
        load_plan(tmp_path / "none.toml")
    assert caught.value.code is Code.NOT_FOUND
    for name, content in (("a.toml", "= 1"), ("a.json", "{"), ("b.json", "[1]")):
        (tmp_path / name).write_text(content)
        with pytest.raises(ASRError) as caught:
            load_plan(tmp_path / name)
        assert caught.value.code is Code.BAD_REQUEST
    (tmp_path / "big.json").write_bytes(b" " * 1_000_001)
    with pytest.raises(ASRError) as caught:
        load_plan(tmp_path / "big.json")
    assert caught.value.code is Code.TOO_LARGE


def test_a_mint_key_is_not_printed() -> None:
    assert "hush" not in repr(load_plan({"realtime": {"mint_api_key": "hush"}}))


def documented() -> dict[str, str]:
    """Keys and defaults of the tables of keys."""
    tables = re.findall(r"^\| key \| default \|.*\n\|---.*\n((?:\|.*\n)+)", DOCS.read_text("utf-8"), re.MULTILINE)
    return dict(re.findall(r"^\| `([^`]+)` \| `?([^|]*?)`? \|", "".join(tables), re.MULTILINE))


def _default(field: Any) -> str | None:
    if field.default is not MISSING:
        return json.dumps(field.default)
    if field.default_factory is MISSING:
        return "required"
    return None


@pytest.mark.parametrize("section", SECTIONS)
def test_the_document_names_every_key_with_its_default(section: str) -> None:
    rows = documented()
    for field in fields(SECTIONS[section]):
        key = f"{section}.{field.name}" if section else field.name
        assert key in rows, f"docs/mock.md has no row for {key}"
        default = None if {key, key + "[]"} & SECTIONS.keys() else _default(field)
        if default is not None:
            assert rows[key] == default, key


def test_the_document_names_no_key_that_is_not_there() -> None:
    known = {f"{s}.{f.name}" if s else f.name for s, record in SECTIONS.items() for f in fields(record)}
    assert documented().keys() <= known


EXAMPLES = re.findall(r"^```(toml|json)\n(.*?)^```", DOCS.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(EXAMPLES)))
def test_every_example_of_the_document_loads(number: int, tmp_path: Path) -> None:
    kind, text = EXAMPLES[number]
    path = tmp_path / f"plan.{kind}"
    path.write_text(text)
    assert load_plan(path) != DEFAULT_PLAN


def test_the_document_has_examples() -> None:
    assert len(EXAMPLES) >= 8
