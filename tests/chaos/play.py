"""Play a row, judge it, write its line."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from chaos.catalogue import Row
from chaos.clients import Record, Script
from chaos.stage import Stage

RESULTS = Path(__file__).resolve().parents[2] / "test-results"


@dataclass(slots=True)
class Outcome:
    """The line of one row.

    Attributes:
        failures: what was not as allowed, in words; empty where the row passes.
        late: times beyond their bounds that another tenant of the machine may have made.
        plays: how often the row was played.
        answer_ms: the longest that anyone was left alone: without text, and without a status that explains it.
        wait_ms: the longest that anyone was without text or error, told or not.
        whole, refused, hung: streams by how they ended; the rest broke off.
        lost, repeated, reordered, gapped: words over all streams that were served.
        uncovered_ms, overlapping_ms: audio over all of them.
    """

    row: str
    fault: str
    injected: str
    target: str
    seed: int
    streams: int
    answer_bound_ms: int
    answer_ms: int = 0
    wait_ms: int = 0
    whole: int = 0
    refused: int = 0
    broken: int = 0
    hung: int = 0
    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    gapped: int = 0
    misplaced: int = 0
    uncovered_ms: int = 0
    overlapping_ms: int = 0
    failures: list[str] = field(default_factory=list)
    late: list[str] = field(default_factory=list)
    plays: int = 1
    notes: list[str] = field(default_factory=list)

    @property
    def only_late(self) -> bool:
        """Nothing is wrong but a time."""
        return bool(self.late) and not self.failures

    def write(self) -> None:
        """Into the results' folder, one file for each row and target; the log of a row that failed is beside it."""
        _folder(self.target).joinpath(f"{self.row}.json").write_text(json.dumps(asdict(self), indent=1))


def _folder(target: str) -> Path:
    folder = RESULTS / f"chaos-{target}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def target() -> str:
    """`gateway`, or `relay` where CHAOS_TARGET says so."""
    return os.environ.get("CHAOS_TARGET", "gateway")


def seed() -> int:
    """CHAOS_SEED, or 1."""
    return int(os.environ.get("CHAOS_SEED", "1"))


async def play(row: Row, *, seed: int, target: str) -> Outcome:
    """Build the stage, run the clients, strike, judge, and look for leftovers."""
    outcome = Outcome(row.number, row.fault, row.injected, target, seed, row.streams, row.answer_ms)
    stage = Stage(relay=target == "relay", seed=seed)
    try:
        await stage.build(row.sites, row.settings)
        scripts = [
            Script(n, row.frames, row.pauses, row.mutes, row.pace, *row.chunk, seed=seed) for n in range(row.streams)
        ]
        records = await stage.play(
            scripts, stagger_s=row.stagger_s, strike=row.strike, strike_at_s=row.strike_at_s, spare_s=row.spare_s,
        )  # fmt: skip
        _judge(row, stage, records, outcome)
        if stage.gateway.returncode is not None:
            outcome.failures.append(f"the process under test ended with {stage.gateway.returncode}")
        elif target == "gateway":
            for check in row.checks:
                outcome.failures += await check(stage, records)
            outcome.failures += [f"left over: {what}" for what in await stage.gateway.leftovers(stage.before)]
            if open_streams := await stage.open_upstream():
                outcome.failures.append(f"left over: {open_streams} streams at the recognizer")
            if "Traceback" in (log := stage.gateway.log()) or '"exception"' in log:
                outcome.failures.append(f"an exception in the log: {_exception(log)}")
        outcome.notes += stage.notes
        if outcome.failures:
            _folder(target).joinpath(f"{row.number}.log").write_text(stage.gateway.log())
    finally:
        await stage.aclose()
    return outcome


def _judge(row: Row, stage: Stage, records: list[Record], outcome: Outcome) -> None:
    outcome.whole = sum(r.whole for r in records)
    outcome.hung = sum(r.hung for r in records)
    refused = [r for r in records if r.http_status or (r.errors and not r.of("partial") and not r.of("final"))]
    outcome.refused = len(refused)
    outcome.broken = len(records) - outcome.whole - outcome.refused - sum(r.hung and r not in refused for r in records)
    fail = outcome.failures.append
    served = [r for r in records if r not in refused]
    for record in served:
        verdict = record.verdict()
        for name in ("lost", "repeated", "reordered", "gapped", "misplaced", "uncovered_ms", "overlapping_ms"):
            setattr(outcome, name, getattr(outcome, name) + getattr(verdict, name))
        if not verdict.faultless and len(outcome.failures) < 4:
            fail(f"client {record.script.client}: {_short(verdict)}")
    if outcome.hung:
        fail(f"{outcome.hung} clients hang")
    if row.expect == "whole" and outcome.whole != len(records):
        fail(f"{outcome.whole} of {len(records)} are whole; {_endings([r for r in records if not r.whole])}")
    if row.expect == "refused" and outcome.refused != len(records):
        fail(f"{outcome.refused} of {len(records)} are refused; {_endings([r for r in records if r not in refused])}")
    if row.expect == "either" and outcome.whole + outcome.refused != len(records):
        fail(f"{outcome.whole} whole and {outcome.refused} refused of {len(records)}; {_endings(records)}")
    if outcome.target == "gateway" and refused:
        codes = {e["code"] for r in refused for e in r.errors}
        if row.expect != "whole" and (foreign := codes - row.codes):
            fail(f"refused as {sorted(foreign)}, allowed is {sorted(row.codes)}")
        dumb = sum(not r.errors and r.http_status not in (429, 503) for r in refused)
        if dumb:
            fail(f"{dumb} were refused without an error")
    # Who was refused without a word on the way has waited from the handshake on.
    dumb_ms = [int((r.ended_at - r.begun_at) * 1000) for r in refused if not r.of("status")]
    outcome.answer_ms = max([*dumb_ms, *(r.answer_ms(stage.struck_at) for r in records)])
    outcome.wait_ms = max([*dumb_ms, *(r.wait_ms(stage.struck_at) for r in records)])
    if outcome.answer_ms > row.answer_ms:
        fail(f"someone was left alone for {outcome.answer_ms} ms, the bound is {row.answer_ms}")
    if outcome.wait_ms > row.wait_ms:
        fail(f"someone waited for {outcome.wait_ms} ms until it went on, the bound is {row.wait_ms}")
    if outcome.target == "gateway":
        if misnumbered := sum(r.misnumbered() for r in records):
            fail(f"{misnumbered} messages are not numbered gaplessly")
        if (forgotten := max(r.overacknowledged_ms() for r in records)) > 0:
            outcome.notes.append(f"{forgotten} ms acknowledged as safe before a final covered them")


def _endings(records: list[Record]) -> str:
    ends: dict[str, int] = {}
    for r in records:
        codes = ",".join(e["code"] for e in r.errors)
        said = "; ".join(e["message"] for e in r.errors)[:150]
        how = f"HTTP {r.http_status}" if r.http_status else f"{codes or 'no error'}/{r.close_code} {said}"
        how = "hung" if r.hung else how
        ends[how] = ends.get(how, 0) + 1
    return "; ".join(f"{count}× {how}" for how, count in sorted(ends.items()))


def _short(verdict: Any) -> str:
    wrong = {name: value for name, value in asdict(verdict).items() if value}
    wrong["lost_numbers"] = wrong.get("lost_numbers", [])[:12]
    return str(wrong)


def _exception(log: str) -> str:
    line = next(line for line in log.splitlines() if "Traceback" in line or '"exception"' in line)
    return line[:300]
