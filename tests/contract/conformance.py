"""The table of `docs/conformance.md`: which unmodified client was seen to do what, written by the tests themselves.

A test that drives a client records a row when it has passed. At the end of a run in which every contract test has
passed, the table is compared with the document; `CONFORMANCE=write` writes it anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
BEGIN = "<!-- conformance:begin (made by the tests: CONFORMANCE=write make test ARGS=tests/contract) -->"
END = "<!-- conformance:end -->"


@dataclass(frozen=True, order=True)
class Row:
    """One client, and one thing that it was seen to do."""

    dialect: str
    client: str
    version: str
    exercised: str
    result: str


class Conformance:
    """Collects the rows of a run."""

    def __init__(self) -> None:
        self.rows: set[Row] = set()

    def record(self, *, dialect: str, client: str, version: str, exercised: str, result: str = "works") -> None:
        """Note that `client` did what `exercised` says: for the end of a test, when all of it has been asserted."""
        self.rows.add(Row(dialect, client, version, exercised, result))


def table(rows: Iterable[Row]) -> str:
    """The rows as the document shows them."""
    lines = ["| dialect | client | version | exercised | result |", "|---|---|---|---|---|"]
    lines += [f"| {r.dialect} | {r.client} | {r.version} | {r.exercised} | {r.result} |" for r in sorted(rows)]
    return "\n".join(lines)


def replaced(text: str, rows: Iterable[Row]) -> str:
    """The document with a new table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"
