"""What a row demands beside the usual: each check looks at the stage and the records and returns complaints."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Awaitable, Callable

from chaos.clients import Record, Script, native
from chaos.stage import Stage

Check = Callable[[Stage, list[Record]], Awaitable[list[str]]]

MB = 1024 * 1024


def _complain(*pairs: tuple[bool, str]) -> list[str]:
    return [text for good, text in pairs if not good]


async def not_ready(stage: Stage, _records: list[Record]) -> list[str]:
    """`/readyz` says 503."""

    def ask() -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{stage.gateway.port}/readyz", timeout=10) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code

    status = await asyncio.to_thread(ask)
    return _complain((status == 503, f"/readyz says {status}"))


async def retry_after(_stage: Stage, records: list[Record]) -> list[str]:
    """Every refusal says when to come again."""
    missing = sum(
        not any(e.get("retryable") and e.get("retry_after_ms") for e in r.errors) and not r.retry_after
        for r in records
        if not r.whole
    )
    return _complain((not missing, f"{missing} refusals without a time to come again"))


def told(state: str, at_least: int = 1) -> Check:
    """So many clients were told of the state."""

    async def check(_stage: Stage, records: list[Record]) -> list[str]:
        count = sum(any(m["state"] == state for m in r.of("status")) for r in records)
        return _complain((count >= at_least, f"{count} clients were told {state!r}, not {at_least}"))

    return check


async def undisturbed(_stage: Stage, records: list[Record]) -> list[str]:
    """No stream had to be moved."""
    moved = sum(any(m["state"] == "failing_over" for m in r.of("status")) for r in records)
    return _complain((not moved, f"{moved} streams were moved"))


async def backlog_is_told(_stage: Stage, records: list[Record]) -> list[str]:
    """Each client can see in its acks that the recognizer lags."""
    blind = sum(max((m["buffered_ms"] for m in r.of("ack")), default=0) < 1_000 for r in records)
    return _complain((not blind, f"{blind} clients were not told of the backlog"))


def memory_below(megabytes: int) -> Check:
    """The gateway grew by less than so much."""

    async def check(stage: Stage, _records: list[Record]) -> list[str]:
        grown = (stage.peak_rss - stage.before.rss_bytes) / MB
        stage.notes.append(f"memory +{grown:.0f} MB")
        return _complain((grown < megabytes, f"memory grew by {grown:.0f} MB"))

    return check


async def one_attempt_each(stage: Stage, records: list[Record]) -> list[str]:
    """No retry: what the caller or the operator must mend is not tried again."""
    opened = await stage.opened()
    return _complain((opened <= len(records), f"{opened} streams were opened for {len(records)} clients"))


async def little_amplification(stage: Stage, records: list[Record]) -> list[str]:
    """Streams at the recognizer, for each that a client or an interruption needed, at most 1.1."""
    interruptions = sum(m["state"] == "failing_over" for r in records for m in r.of("status"))
    ratio = await stage.opened() / (len(records) + interruptions)
    stage.notes.append(f"amplification {ratio:.2f}")
    return _complain((ratio <= 1.1, f"{ratio:.2f} streams upstream for each that was needed"))


def few_at_the_bad_one(most: int) -> Check:
    """The endpoint that always fails was tried no more often than that."""

    async def check(stage: Stage, _records: list[Record]) -> list[str]:
        standin = stage.sites[0].standin
        assert standin is not None
        opened = (await standin.state())["opened"]
        stage.notes.append(f"{opened} tries at the bad one")
        return _complain((opened <= most, f"{opened} streams were opened at the endpoint that always fails"))

    return check


def served(count: int) -> Check:
    """Exactly so many were served whole; the others were refused."""

    async def check(_stage: Stage, records: list[Record]) -> list[str]:
        whole = sum(r.whole for r in records)
        return _complain((whole == count, f"{whole} were served, not {count}"))

    return check


def says(pattern: str) -> Check:
    """Every refusal names it."""

    async def check(_stage: Stage, records: list[Record]) -> list[str]:
        silent = sum(not any(re.search(pattern, e["message"]) for e in r.errors) for r in records if not r.whole)
        return _complain((not silent, f"{silent} refusals do not say {pattern!r}"))

    return check


async def discreet(stage: Stage, records: list[Record]) -> list[str]:
    """No client sees a host, an address, a secret or a stack."""
    leak = re.compile(r"nvapi|127\.0\.0\.1|\d+\.\d+\.\d+\.\d+|[\w-]+\.invalid|Traceback|grpc|File \"")
    said = {json.dumps(e["message"]) for r in records for e in r.of("error")}
    said |= {json.dumps(m.get("detail", "")) for r in records for m in r.of("status")}
    said |= {json.dumps(m["message"]) for r in records for m in r.of("warning")}
    return [f"a client was told {text}" for text in said if leak.search(text)]


async def works_afterwards(stage: Stage, _records: list[Record]) -> list[str]:
    """Once the fault is over, a new client is served within some seconds."""
    standin = stage.sites[0].standin
    if standin is not None:
        await standin.behave(type(standin.behaviour)())
    for attempt in range(20):
        record = await native(stage.gateway.port, Script(900 + attempt, 10, pace=5), patience_s=20)
        if record.whole and record.verdict().faultless:
            return []
        await asyncio.sleep(0.5)
    return ["no client was served after the fault was over"]


async def marked_synthetic(_stage: Stage, records: list[Record]) -> list[str]:
    """Each client got a final that is marked as made by the gateway."""
    without = sum(not any(m["reason"] == "upstream_silent" for m in r.of("final")) for r in records)
    return _complain((not without, f"{without} clients got no final before the end"))


async def nothing_damaged(stage: Stage, _records: list[Record]) -> list[str]:
    """The recognizer heard no altered frame."""
    damaged = sum(stream["damaged"] for stream in await stage.streams())
    return _complain((not damaged, f"the recognizer heard {damaged} damaged frames"))


async def struck(stage: Stage, _records: list[Record]) -> list[str]:
    """The raw peer did meet streams; without that the row shows nothing."""
    peer = stage.sites[0].peer
    assert peer is not None
    stage.notes.append(f"{peer.struck or peer.connections} struck")
    return _complain((bool(peer.struck or peer.connections), "the fault met no stream"))


def recovered_within(bound_ms: int) -> Check:
    """After the outage the first stream goes on within so long, and not all at once."""

    async def check(stage: Stage, records: list[Record]) -> list[str]:
        back = [
            at
            for r in records
            for at, m in r.messages
            if m.get("type") == "status" and m["state"] == "recovered" and at >= stage.healed_at
        ]
        first_ms = int((min(back) - stage.healed_at) * 1000) if back else -1
        all_ms = int((max(back) - stage.healed_at) * 1000) if back else -1
        seconds = Counter(int(s["opened_at"]) for s in await stage.streams())
        stage.notes.append(f"first back after {first_ms} ms, last after {all_ms} ms, {max(seconds.values())}/s at most")
        return _complain((0 <= first_ms <= bound_ms, f"the first stream was back after {first_ms} ms"))

    return check
