"""The lines and records that docs/logs-and-traces.md shows are such as the gateway writes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jsonschema

from server.telemetry.log_schema import schema
from server.telemetry.records import row_of, row_of_refusals
from unit.test_records import RECORD

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "logs-and-traces.md").read_text("utf-8")


def test_the_lines_of_the_log_fit_their_schema() -> None:
    lines, records = (block.splitlines() for block in re.findall(r"```json\n(.*?)```", TEXT, re.S))
    for line in lines:
        jsonschema.Draft202012Validator(schema()).validate(json.loads(line))
    assert [json.loads(line)["event"] for line in lines] == ["stream opened", "stream closed"]
    stream, refused = map(json.loads, records)
    assert list(stream) == list(row_of(RECORD))
    assert list(refused) == list(row_of_refusals("native", "overloaded", 1, 0.0))


def test_a_line_about_a_stream_that_says_more_or_less_does_not_fit() -> None:
    fits = jsonschema.Draft202012Validator(schema())
    (line, *_) = re.findall(r"```json\n(.*?)\n", TEXT)
    opened = json.loads(line)
    assert fits.is_valid(opened)
    assert not fits.is_valid(opened | {"text": "what was said"})
    assert not fits.is_valid({name: value for name, value in opened.items() if name != "trace_id"})
    assert fits.is_valid({name: opened[name] for name in ("timestamp", "level")} | {"event": "stopped", "more": 1})
    assert not fits.is_valid({"event": "stopped"})
