"""A key is revoked and a token expires under load: whom it concerns is told and brought home, others notice nothing."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import httpx2

from chaos.clients import Record, Script, native, now
from chaos.drill_books import scrape, total
from chaos.drill_clients import WHOLE_FRAME
from chaos.figures import Figure
from chaos.gateway_process import GatewayProcess
from chaos.numbered import judge
from chaos.standin import StandIn
from keyring import Keyring, bearer

OTHERS, CONCERNED = 20, 5
FRAMES = 80
STRIKE_S = 2.0
TOKEN_MS = 2_500
BOUND_S = 5.0
PATIENCE_S = 30.0


async def keys() -> Figure:
    """Thirty streams with three credentials; two of them end."""
    figure = Figure(
        "drill-key-revoked", "A revoked key and an expired token end their streams in order, and no others",
        f"{OTHERS} streams with one key, {CONCERNED} with another that is revoked, {CONCERNED} with a token of "
        f"{TOKEN_MS / 1000:g} s",
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="drill-") as folder:
        ring = Keyring(Path(folder))
        stays, revoked = ring.key("stays"), ring.key("revoked")
        async with (
            StandIn() as upstream,
            GatewayProcess(upstream.endpoint, API_KEYS_FILE=str(ring.path), AUTH="on") as gateway,
        ):

            async def talk(credential: str, number: int) -> Record:
                script = Script(number, FRAMES, **WHOLE_FRAME)
                start = {"resume_window_ms": 0}
                return await native(
                    gateway.port, script, patience_s=PATIENCE_S, start=start, headers=bearer(credential)
                )

            def several(credential: str, first: int, count: int) -> asyncio.Future[list[Record]]:
                return asyncio.gather(*(talk(credential, first + n) for n in range(count)))

            others = several(stays, 0, OTHERS)
            concerned = several(revoked, 100, CONCERNED)
            token = await _token(gateway.port, stays)
            minted_at = now()
            expiring = several(token, 200, CONCERNED)
            await asyncio.sleep(STRIKE_S)
            ring.take_back("revoked")
            struck_at = now()
            _ended(figure, "revoked", await concerned, struck_at)
            _ended(figure, "expired", await expiring, minted_at + TOKEN_MS / 1000)
            spoilt = [r for r in await others if not r.whole or not r.verdict().faultless]
            figure.add("other streams not whole and faultless", len(spoilt), 0)
            late = await talk(revoked, 300)
            figure.demand(late.http_status == 401, f"the revoked key was answered {late.http_status}")
            figure.demand(
                total(await scrape(gateway.port, **bearer(stays)), "access_refused_total") >= 1, "nobody counted it"
            )
    return figure


def _ended(figure: Figure, why: str, records: list[Record], due: float) -> None:
    """Each was told, in time, and has the words of what was heard."""
    figure.add(f"{why}: ended at most", max(*(r.ended_at - due for r in records), 0.0), BOUND_S, "s after it")
    told = [r for r in records if r.close_code == 4401 and [e["code"] for e in r.errors] == ["unauthorized"]]
    figure.add(f"{why}: told and closed with 4401", len(told), len(records), least=True)
    lost = 0
    for record in records:
        summary = record.of("summary")
        figure.demand(bool(summary), f"{why}: no summary")
        reached_ms = summary[0]["audio_ms"] if summary else 0
        lost += judge([s for s in record.script.audio()[1] if s.end_ms <= reached_ms], record.heard()).lost
        figure.demand(reached_ms > 1_000, f"{why}: only {reached_ms} ms were heard")
    figure.add(f"{why}: words lost of what was heard", lost, 0)


async def _token(port: int, key: str) -> str:
    url = f"http://127.0.0.1:{port}"
    async with httpx2.AsyncClient(base_url=url, trust_env=False, verify=False) as http:
        answer = await http.post("/v1/tokens", json={"ttl_ms": TOKEN_MS, "scopes": ["transcribe"]}, headers=bearer(key))
    return str(answer.json()["token"])
