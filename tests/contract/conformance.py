"""The table of `docs/conformance.md`: which unmodified client was seen to do what, written by the tests themselves.

A test that drives a client records a row when it has passed, and fails where the document does not have that row. A
run of every contract test also fails where the document has a row too many. `CONFORMANCE=write` writes the table anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "conformance.md"
BEGIN = "<!-- conformance:begin (made by the tests: CONFORMANCE=write make test ARGS=tests/contract) -->"
END = "<!-- conformance:end -->"
HOW = "write it anew with CONFORMANCE=write make test ARGS=tests/contract"


@dataclass(frozen=True, order=True)
class Row:
    """One client, and one thing that it was seen to do."""

    dialect: str
    client: str
    version: str
    exercised: str
    result: str


class Conformance:
    """Collects the rows of a run; with `writing` they need not stand in the document yet."""

    def __init__(self, *, writing: bool) -> None:
        self.rows: set[Row] = set()
        self._written = None if writing else set(DOCUMENT.read_text("utf-8").splitlines())

    def record(self, *, dialect: str, client: str, version: str, exercised: str, result: str = "works") -> None:
        """Note that `client` did what `exercised` says: for the end of a test, when all of it has been asserted."""
        row = Row(dialect, client, version, exercised, result)
        self.rows.add(row)
        assert self._written is None or line_of(row) in self._written, f"docs/conformance.md: {HOW}\n{line_of(row)}"

    def finish(self) -> None:
        """Every test has run: write the table, or see that the document says no more than they saw."""
        if self._written is None:
            DOCUMENT.write_text(replaced(DOCUMENT.read_text("utf-8"), self.rows), "utf-8")
            return
        stale = {line for line in self._written if line.startswith("| ")} - set(table(self.rows).splitlines())
        assert not stale, f"docs/conformance.md: {HOW}\n{stale}"


def line_of(row: Row) -> str:
    """A row as the document shows it."""
    return f"| {row.dialect} | {row.client} | {row.version} | {row.exercised} | {row.result} |"


def table(rows: Iterable[Row]) -> str:
    """The rows as the document shows them."""
    lines = ["| dialect | client | version | exercised | result |", "|---|---|---|---|---|"]
    return "\n".join(lines + [line_of(row) for row in sorted(rows)])


def replaced(text: str, rows: Iterable[Row]) -> str:
    """The document with a new table between its marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table(rows)}\n{END}{after}"
