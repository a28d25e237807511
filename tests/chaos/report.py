"""Results of the chaos suite as a Markdown table, put between the marks of a document.

`python -m chaos.report docs/reliability.md` (from `tests/`, or with it on the path) replaces what stands between
`<!-- chaos:begin -->` and `<!-- chaos:end -->`, and what the drills have shown between marks of their own; without a
document it prints. `--relay` adds what the plain relay made of the same rows, `--drills` writes nothing but the drills.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from chaos.figures import figures_table, load_figures
from chaos.play import RESULTS

BEGIN, END = "<!-- chaos:begin -->", "<!-- chaos:end -->"
DRILLS_BEGIN, DRILLS_END = "<!-- drills:begin -->", "<!-- drills:end -->"
DRILL = "drill-"
"""So begin the names of their figures."""


def load(target: str, folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """The lines of a target by the number of the row."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in (folder / f"chaos-{target}").glob("*.json")}


def in_order(row: str) -> tuple[int, str]:
    """6a before 10."""
    match = re.match(r"(\d+)(.*)", row)
    return (int(match[1]), match[2]) if match else (10**6, row)


def table(gateway: dict[str, dict[str, Any]], relay: dict[str, dict[str, Any]] | None = None) -> str:
    """The table and a line above it."""
    head = ["row", "fault", "how", "streams", "whole / refused / broken / hung", "lost / repeated / reordered",
            "longest without a word ms (bound)", "longest pause ms", "verdict"]  # fmt: skip
    if relay is not None:
        head.append("plain relay: whole / refused / broken / hung, lost")
    rows = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for number in sorted(gateway, key=in_order):
        one = gateway[number]
        bad = one["failures"] + one["late"]
        cells = [
            number, one["fault"], one["injected"], str(one["streams"]), _ends(one),
            f"{one['lost']} / {one['repeated']} / {one['reordered']}", f"{one['answer_ms']} ({one['answer_bound_ms']})",
            str(one["wait_ms"]), "as promised" if not bad else f"**{len(bad)} failures**",
        ]  # fmt: skip
        if relay is not None:
            other = relay.get(number)
            cells.append("–" if other is None else f"{_ends(other)}, {other['lost']} lost")
        rows.append(f"| {' | '.join(cells)} |")
    return (
        f"{summary(gateway, 'gateway')}\n" + (f"{summary(relay, 'relay')}\n" if relay else "") + "\n" + "\n".join(rows)
    )


def summary(lines: dict[str, dict[str, Any]], target: str) -> str:
    """One sentence with N, failures, the worst case and the seed."""
    name = "The gateway" if target == "gateway" else "The plain relay"
    streams = sum(one["streams"] for one in lines.values())
    bad = sum(bool(one["failures"] or one["late"]) for one in lines.values())
    lost, repeated, hung = (sum(one[key] for one in lines.values()) for key in ("lost", "repeated", "hung"))
    worst = max(lines.values(), key=lambda one: one["answer_ms"], default={"answer_ms": 0, "row": "–"})
    seeds = ", ".join(sorted({str(one["seed"]) for one in lines.values()}))
    return (
        f"{name}: {len(lines)} rows, {streams} streams, {bad} rows not as promised; {lost} words lost, {repeated} "
        f"repeated, {hung} clients hung; longest without a word {worst['answer_ms']} ms (row {worst['row']}); "
        f"seed {seeds}."
    )


def between_marks(document: str, text: str, begin_mark: str = BEGIN, end_mark: str = END) -> str:
    """`document` with `text` between the marks. Raises `ValueError` where there are none."""
    begin, end = document.find(begin_mark), document.find(end_mark)
    if not 0 <= begin < end:
        raise ValueError(f"the document needs {begin_mark} and {end_mark}")
    return f"{document[: begin + len(begin_mark)]}\n{text}\n{document[end:]}"


def _ends(one: dict[str, Any]) -> str:
    return f"{one['whole']} / {one['refused']} / {one['broken']} / {one['hung']}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("document", type=Path, nargs="?")
    parser.add_argument("--relay", action="store_true", help="add what the plain relay made of it")
    parser.add_argument("--drills", action="store_true", help="only the drills")
    chosen = parser.parse_args()
    gateway, figures = load("gateway"), load_figures()
    drills = figures_table([one for one in figures if one["row"].startswith(DRILL)])
    text = ""
    if not chosen.drills:
        if not gateway:
            sys.exit("There are no results yet: run the tests in tests/chaos first.")
        text = table(gateway, load("relay") if chosen.relay else None)
        if proofs := [one for one in figures if not one["row"].startswith(DRILL)]:
            text += f"\n\n{figures_table(proofs)}"
    if chosen.document is None:
        sys.stdout.write(f"{text}\n\n{drills}\n")
        return
    document = chosen.document.read_text("utf-8")
    if text:
        document = between_marks(document, text)
    chosen.document.write_text(between_marks(document, drills, DRILLS_BEGIN, DRILLS_END), "utf-8")


if __name__ == "__main__":
    main()
