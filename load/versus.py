"""Two versions of the gateway, or two ways to set it, side by side: what the one costs more than the other.

Both run at the same time, in front of one upstream, and carry as many streams each in the same seconds: what else the
machine does falls on both. The quotient of their CPU times is what is kept of a round, and the median of all rounds is
what is told. Processes differ by how their memory happened to fall: both start anew every few rounds.

    git worktree add ../before v1.0 && python load/versus.py ../before      a version against this one
    python load/versus.py . --with ASR_SILENCE_GATE=on                      this one with a setting against it without
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import uvloop

from load.bench import PLAN, Measured, gateway, run_way

ROUNDS_PER_START = 5
WARM_UP_S = 1.0


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two.

    Attributes:
        name: as it is told.
        checkout: the folder of its source.
        settings: environment keys, beyond those that both have.
    """

    name: str
    checkout: Path
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rounds:
    """What two sides came to at one chunk size: CPU of the gateway, in ms for each second of audio."""

    chunk_ms: int
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)
    errors: list[int] = field(default_factory=list)

    @property
    def ratios(self) -> list[float]:
        """Ours by theirs, round by round."""
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def differences_us(self) -> list[float]:
        """Ours less theirs, round by round, in µs for each second of audio."""
        return [(one - other) * 1000 for one, other in zip(self.ours, self.theirs, strict=True)]


async def compare(
    ours: Side, theirs: Side, *, streams: int, seconds: float, chunk_sizes: list[int], rounds: int, key: str = ""
) -> list[Rounds]:
    """Both sides side by side, in so many rounds at each chunk size. `key`: what the clients show."""
    results = [Rounds(chunk_ms) for chunk_ms in chunk_sizes]
    done = 0
    while done < rounds:
        now = min(ROUNDS_PER_START, rounds - done)
        async with _both(ours, theirs) as (upstream, ports):
            warm_up = [run_way(Measured("gateway", 100, streams), WARM_UP_S, *ports[s], upstream, key) for s in ports]
            await asyncio.gather(*warm_up)
            for found in results:
                for number in range(done, done + now):
                    one, other = (Measured("gateway", found.chunk_ms, streams) for _ in range(2))
                    turns = [(one, ports[ours.name]), (other, ports[theirs.name])]
                    await asyncio.gather(  # who is first changes
                        *(run_way(m, seconds, *at, upstream, key) for m, at in turns[:: 1 if number % 2 else -1])
                    )
                    found.ours.append(one.gateway_cpu_ms_per_audio_s or 0.0)
                    found.theirs.append(other.gateway_cpu_ms_per_audio_s or 0.0)
                    found.errors.append(one.errors + other.errors)
                    print(
                        f"  {found.chunk_ms:4} ms  {found.ours[-1]:6.3f} : {found.theirs[-1]:6.3f} = "
                        f"{found.ratios[-1]:.3f}",
                        flush=True,
                    )
        done += now
    return results


@asynccontextmanager
async def _both(
    ours: Side, theirs: Side
) -> AsyncIterator[tuple[psutil.Process, dict[str, tuple[int, psutil.Process]]]]:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        plan = state / "plan.json"
        plan.write_text(json.dumps(PLAN))
        folders = [state / name for name in ("upstream", "ours", "theirs")]
        for each in folders:
            each.mkdir()
        async with gateway(folders[0], "upstream", "--engine", "mock", ASR_MOCK_PLAN=str(plan)) as (upstream, _, grpc):
            arguments = ("--engine", "riva")
            env = {"RIVA_ENDPOINTS": f"127.0.0.1:{grpc}"}
            a = _env(ours, env, grpc)
            b = _env(theirs, env, grpc)
            async with (
                gateway(folders[1], "gateway", *arguments, **a) as (first, first_port, _),
                gateway(folders[2], "gateway", *arguments, **b) as (second, second_port, _),
            ):
                yield upstream, {ours.name: (first_port, first), theirs.name: (second_port, second)}


def _env(side: Side, env: Mapping[str, str], grpc_port: int) -> dict[str, str]:
    settings = {name: value.replace("UPSTREAM", f"127.0.0.1:{grpc_port}") for name, value in side.settings.items()}
    return {**env, "PYTHONPATH": str(side.checkout.resolve() / "src"), **settings}


def table(results: list[Rounds], ours: Side, theirs: Side) -> str:
    """Medians as a Markdown table; the range is that in which the middle half of the rounds lies."""
    lines = [
        f"| chunks | {ours.name}, ms per audio second | {theirs.name} | difference, µs | ratio | middle half "
        "| errors |",
        "|---|---|---|---|---|---|---|",
    ]
    for found in results:
        low, middle, high = statistics.quantiles(found.ratios, n=4)
        lines.append(
            f"| {found.chunk_ms} ms | {statistics.median(found.ours):.2f} | {statistics.median(found.theirs):.2f} "
            f"| {statistics.median(found.differences_us):+.0f} | {middle:.3f} | {low:.3f}–{high:.3f} "
            f"| {sum(found.errors)} |"
        )
    return "\n".join(lines)


def settings_of(pairs: list[str]) -> dict[str, str]:
    """`NAME=VALUE`, as they stand on a command line."""
    wrong = [pair for pair in pairs if "=" not in pair]
    if wrong:
        sys.exit(f"{wrong[0]} is not of the form NAME=VALUE.")
    return dict(pair.split("=", 1) for pair in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path, metavar="DIR", help="the other's checkout; . for this one")
    parser.add_argument(
        "--with",
        dest="settings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting that only this side has; UPSTREAM in it is the recognizer's address. Can be repeated",
    )
    parser.add_argument("--key", default="", help="the API key that clients show, to both")
    parser.add_argument("--streams", type=int, default=25, help="streams of each at a time (default 25)")
    parser.add_argument("--seconds", type=float, default=4.0, help="audio per stream and round (default 4)")
    parser.add_argument("--rounds", type=int, default=20, help="rounds for each chunk size (default 20)")
    parser.add_argument("--chunks", default="100,20", help="chunk sizes in ms (default 100,20)")
    chosen = parser.parse_args()
    if chosen.rounds < 2:
        parser.error("one round tells nothing: --rounds 2 or more.")
    print(f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores, {time.ctime()}")
    ours = Side("this", Path(__file__).parents[1], settings_of(chosen.settings))
    theirs = Side("the other", chosen.other)
    sizes = [int(text) for text in chosen.chunks.split(",")]
    work = compare(
        ours,
        theirs,
        streams=chosen.streams,
        seconds=chosen.seconds,
        chunk_sizes=sizes,
        rounds=chosen.rounds,
        key=chosen.key,
    )
    results = uvloop.run(work)
    print(f"\n{chosen.streams} streams each, {chosen.seconds:g} s of audio each, {chosen.rounds} rounds:\n")
    print(table(results, ours, theirs))


if __name__ == "__main__":
    main()
