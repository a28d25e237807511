"""The drill: a gateway under load before a real Prometheus and a real Alertmanager, and its recognizer is killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import rules
from keyring import Keyring
from server.access.grants import Scope

from .command import Shell, wait_for
from .monitors import Pager, Prometheus, monitored, pager, until

SPEAKERS = 6
CHUNK = b"\x00\x20\x00\xe0" * 800
"""100 ms."""
TURN_CHUNKS = 20
PLAN = """
hears = "clock"
silence_ms = 200
[[utterances]]
words = "we are well"
word_ms = 100
pause_ms = 300
"""
NOT_IN_THE_DRILL = {
    # No certificate, no rollout, no quota, no failing telemetry, and nobody who recognizes recordings.
    "riva_gateway_certificate_expiry_timestamp_seconds",
    "riva_gateway_canary_streams_total",
    "riva_gateway_quota_refused_total",
    "riva_gateway_recording_rtfx_bucket",
    "riva_gateway_upstream_errors_total",
    "riva_gateway_access_refused_total",
    "riva_gateway_stream_errors_total",
    "ALERTS",
}


class Load:
    """People who speak for two seconds, again and again."""

    def __init__(self, url: str, key: str) -> None:
        self.url, self.headers = url, {"Authorization": f"Bearer {key}"}
        self.endings: Counter[str] = Counter()
        self.unclean: list[str] = []

    async def speak(self) -> None:
        while True:
            try:
                self.endings[await self._turn()] += 1
            except InvalidStatus as refused:
                response = refused.response
                self.endings[f"refused {response.status_code}"] += 1
                if response.status_code not in (429, 503) or "Retry-After" not in response.headers:
                    self.unclean.append(f"{response.status_code} {response.headers} {response.body!r}")
                await asyncio.sleep(0.2)

    async def _turn(self) -> str:
        ending = "closed without a word"
        async with connect(self.url, additional_headers=self.headers, proxy=None, close_timeout=2) as socket:
            speaking = asyncio.create_task(self._audio(socket))
            try:
                async for text in socket:
                    message = json.loads(text)
                    if message["type"] in ("summary", "error"):
                        ending = message["type"] if message["type"] == "summary" else message["code"]
            except ConnectionClosed:
                pass
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
        return ending

    async def _audio(self, socket: object) -> None:
        send = socket.send  # type: ignore[attr-defined]
        await send('{"type":"start"}')
        for _ in range(TURN_CHUNKS):
            await send(CHUNK)
            await asyncio.sleep(0.1)
        await send('{"type":"stop"}')


@asynccontextmanager
async def speaking(url: str, key: str) -> AsyncIterator[Load]:
    load = Load(url, key)
    tasks = [asyncio.create_task(load.speak()) for _ in range(SPEAKERS)]
    try:
        yield load
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_killed_recognizer_reaches_the_pager_and_its_return_too(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(PLAN, "utf-8")
    keys = Keyring(tmp_path)
    watcher, speaker = keys.key("prometheus", [Scope.METRICS]), keys.key("app", [Scope.TRANSCRIBE])
    settings = {"LOG_LEVEL": "error", "AUTH": "on", "API_KEYS_FILE": str(keys.path)}
    shell = Shell(tmp_path, settings | {"ASR_FAILOVER_TIMEOUT_MS": "1500"})
    with contextlib.ExitStack() as stack:
        standin = stack.enter_context(
            shell.start("mock-riva", "--grpc-port", "0", "--http-port", "0", "--plan", str(plan))
        )
        riva_port = wait_for(standin, r"Riva gRPC: \S+:(\d+)")[1]
        before_it = Shell(tmp_path, shell.more | {"RIVA_ENDPOINTS": f"127.0.0.1:{riva_port}", "RIVA_MAX_STREAMS": "50"})
        gateway = stack.enter_context(before_it.start("serve", "--no-tls", "--port", "0", "--grpc-port", "off"))
        port = wait_for(gateway, r"http://localhost:(\d+)")[1]
        receiver = stack.enter_context(pager())
        prometheus = stack.enter_context(monitored(tmp_path, f"localhost:{port}", watcher, receiver))
        async with speaking(f"ws://localhost:{port}/v1/stream", speaker) as load:
            await every_expression_is_answered(prometheus, load)
            # It takes Prometheus some of a drill's minutes to find its targets, which is told, too.
            assert {alert["labels"]["alertname"] for alert in receiver.alerts} <= {"RivaGatewayAbsent"}

            standin.kill()
            await asyncio.to_thread(standin.wait)
            await the_pager_is_called(receiver, prometheus)
            before = load.endings.copy()
            await until("clean refusals", lambda: load.endings["refused 503"] >= before["refused 503"] + SPEAKERS)
            assert load.unclean == []

            again = shell.start("mock-riva", "--grpc-port", riva_port, "--http-port", "0", "--plan", str(plan))
            wait_for(stack.enter_context(again), r"Riva gRPC: \S+:(\d+)")
            await until("resolved", lambda: receiver.told("RivaGatewayNoEndpoint", "resolved"))
            served = load.endings["summary"]
            await until("served again", lambda: load.endings["summary"] >= served + SPEAKERS)
            assert load.unclean == []
            assert set(load.endings) <= {"summary", "unavailable", "refused 503"}, load.endings


async def every_expression_is_answered(prometheus: Prometheus, load: Load) -> None:
    """Dashboard, rules, alerts: none is refused, and those that are about what happens here have data."""

    async def figures() -> bool:
        try:
            told = await prometheus.values("min(count_over_time(riva_gateway_finals_total[15s]))")
        except OSError:  # it is not up yet
            return False
        return bool(told) and told[0][1] >= 8 and load.endings["summary"] > SPEAKERS

    await until("eight scrapes under load", figures)
    await until("recorded", lambda: prometheus.values("endpoint:riva_gateway_upstream:usable"))
    names = set(await prometheus.ask("/api/v1/label/__name__/values"))
    asked = itertools.chain(
        ((alert.name, rules.shortened(alert.expr)) for alert in rules.alerts()),
        ((name, rules.shortened(expr)) for name, expr in rules.recorded().items()),
        ((title, rules.filled(expr)) for title, expr in rules.dashboard_expressions()),
    )
    alerts = {alert.name for alert in rules.alerts()}
    for title, expr in asked:
        values = await prometheus.values(expr)
        assert all(value == value for _, value in values), f"{title}: NaN: {expr}"
        missing = {name for name in metrics_in(expr) if name not in names}
        assert missing <= NOT_IN_THE_DRILL, f"{title}: {missing}"
        if title not in alerts and not missing and title not in ("Alerts", "Starts"):
            assert values, f"{title} shows nothing: {expr}"
    told = await prometheus.ask("/api/v1/rules")
    for group in told["groups"]:
        for rule in group["rules"]:
            assert rule["health"] == "ok", rule


def metrics_in(expr: str) -> set[str]:
    bare = re.sub(r'"[^"]*"', '""', expr)
    return set(
        re.findall(r"(?<![\w:])(?:(?:riva_gateway|process)_\w+|\w+:riva_gateway_\w+:\w+|ALERTS|up)\b(?!\()", bare)
    )


async def the_pager_is_called(receiver: Pager, prometheus: Prometheus) -> None:
    alert = await until("an alert", lambda: receiver.told("RivaGatewayNoEndpoint", "firing"))
    assert alert["receiver"] == "pager"
    assert alert["labels"]["severity"] == "page"
    link = "https://git.example.com/speech/riva-gateway/blob/main/docs/runbooks/riva-down.md#down"
    assert alert["annotations"]["runbook_url"] == link
    assert "no endpoint" in alert["annotations"]["description"]
    assert await prometheus.values('ALERTS{alertname="RivaGatewayNoEndpoint",alertstate="firing"}')
