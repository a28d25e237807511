"""The table is made from the lines, in the catalogue's order, and put where it belongs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from chaos.catalogue import UPSTREAM
from chaos.play import Outcome
from chaos.report import BEGIN, DRILLS_BEGIN, DRILLS_END, END, between_marks, in_order, load, table


def line(row: str, **more: object) -> dict[str, object]:
    made = asdict(Outcome(row, "a fault", "somehow", "gateway", 7, 20, 2_000, whole=20))
    return {**made, **more}


def test_the_table() -> None:
    gateway = {n: line(n) for n in ("10", "6b", "6a")}
    gateway["6b"] = line("6b", lost=3, whole=19, broken=1, answer_ms=99, failures=["lost"])
    text = table(gateway, {"10": line("10", whole=0, hung=20)})
    rows = [row.split(" | ") for row in text.splitlines() if row.startswith("| ")]
    assert [row[0] for row in rows] == ["| row", "| 6a", "| 6b", "| 10"]
    assert rows[2][4:6] == ["19 / 0 / 1 / 0", "3 / 0 / 0"]
    assert rows[3][-1] == "0 / 0 / 0 / 20, 0 lost |"
    assert "3 rows, 60 streams, 1 rows not as promised; 3 words lost" in text
    assert "99 ms (row 6b); seed 7." in text


def test_it_stands_between_the_marks(tmp_path: Path) -> None:
    assert between_marks(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(ValueError, match="needs"):
        between_marks("nothing", "new")
    (tmp_path / "chaos-gateway").mkdir()
    (tmp_path / "chaos-gateway" / "1.json").write_text(json.dumps(line("1")))
    assert load("gateway", tmp_path)["1"]["seed"] == 7


def test_the_catalogue_covers_every_row() -> None:
    numbers = {in_order(row.number)[0] for row in UPSTREAM}
    assert numbers == set(range(1, 37))
    assert len({row.number for row in UPSTREAM}) == len(UPSTREAM)
    for row in UPSTREAM:
        assert row.why or not row.settings, row.number
        assert row.codes or row.expect == "whole", row.number


def test_the_drills_have_marks_of_their_own() -> None:
    document = f"{BEGIN}\na\n{END}\n{DRILLS_BEGIN}\nold\n{DRILLS_END}\n"
    assert between_marks(document, "new", DRILLS_BEGIN, DRILLS_END) == document.replace("old", "new")
