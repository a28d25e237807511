"""Row 42, and the promise of resume at scale: a connection that is cut anywhere changes no word."""

from __future__ import annotations

import asyncio
import random
from typing import Literal

import asr
from asr import wire
from asr.errors import ASRError
from chaos.clients import Record, Script
from chaos.proxy import Proxy, Toxic
from chaos.scene import Row, Scene, all_of, now

Cut = Literal["RST", "FIN", "RST within a frame", "black hole, then RST", "black hole"]
SUDDEN: tuple[Cut, ...] = ("RST", "FIN", "RST within a frame", "black hole, then RST")
CLIENTS = 25
CUTS_EACH = 10
PATIENCE_S = 70.0


async def resuming(port: int, script: Script, *, patience_s: float = PATIENCE_S) -> Record:
    """One session of `asr.connect`, with its events as the messages they came from."""
    record = Record(script, begun_at=now())

    async def speak(session: asr.Session) -> None:
        async for chunk in script.chunks():
            record.first_audio_at = record.first_audio_at or now()
            await session.send(chunk)
        await session.stop()
        record.stopped_at = now()

    try:
        async with asyncio.timeout(patience_s), asr.connect(f"ws://127.0.0.1:{port}") as session:
            speaking = asyncio.create_task(speak(session))
            try:
                async for event in session:
                    record.messages.append((now(), wire.encode(event)))
            finally:
                speaking.cancel()
                await asyncio.gather(speaking, return_exceptions=True)
            record.messages.append((now(), session.summary or {"type": "no summary"}))
            record.close_code = 1000
            record.status = str(session.resumes)
    except TimeoutError:
        record.hung = True
    except ASRError as error:
        record.messages.append((now(), wire.encode_error(error, fatal=True)))
    record.ended_at = now()
    return record


async def cut(proxy: Proxy, how: Cut, chance: random.Random) -> None:
    """Break the connections that go through the proxy at present; new ones are good."""
    match how:
        case "RST":
            proxy.reset()
        case "FIN":
            proxy.finish()
        case "RST within a frame":
            accepted = proxy.accepted
            proxy.toxic = Toxic(cut_after_bytes=1 + chance.randrange(3_000))
            proxy.reset()
            # The next connection is the one that breaks, wherever it is: in the handshake, or in the first audio.
            until = now() + 5
            while not (proxy.accepted > accepted and proxy.open == 0) and now() < until:
                await asyncio.sleep(0.002)
            proxy.toxic = Toxic()
        case "black hole, then RST":
            proxy.toxic.blackhole = frozenset(chance.choice((("up",), ("down",), ("up", "down"))))
            await asyncio.sleep(chance.uniform(0.05, 0.5))
            proxy.toxic.blackhole = frozenset()
            proxy.reset()
        case "black hole":
            proxy.toxic.blackhole = frozenset({"up", "down"})
            await asyncio.sleep(12)
            proxy.toxic.blackhole = frozenset()


async def cut_anywhere(scene: Scene) -> None:
    """Each of 25 clients loses its connection ten times, in four ways, at times that chance chose."""
    done: dict[str, int] = {}
    resumes = 0

    async def one(client: int) -> None:
        nonlocal resumes
        chance = random.Random(scene.outcome.seed * 10_007 + client)
        script = Script(client, 150, ((40, 8),), seed=scene.outcome.seed)
        async with Proxy(scene.gateway.port) as proxy:
            talking = asyncio.create_task(resuming(proxy.port, script))
            for _ in range(CUTS_EACH):
                await asyncio.sleep(chance.uniform(0.2, 1.4))
                until = now() + 10
                while proxy.open == 0 and now() < until and not talking.done():
                    await asyncio.sleep(0.01)
                how = chance.choice(SUDDEN)
                done[how] = done.get(how, 0) + (not talking.done())
                await cut(proxy, how, chance)
            _judge(scene, record := await talking)
            resumes += int(record.status or 0)

    await all_of(*(one(n) for n in range(CLIENTS)))
    cuts = sum(done.values())
    scene.note(f"{cuts} cuts ({', '.join(f'{n} {how}' for how, n in sorted(done.items()))}), {resumes} resumes")
    scene.check(cuts >= 200, f"only {cuts} cuts met a connection")
    opened = (await scene.upstream.state())["opened"] - 1
    scene.check(opened == CLIENTS, f"{opened} sessions were opened for {CLIENTS} clients: some could not be resumed")


async def pulled_cable(scene: Scene) -> None:
    """Twenty clients hear nothing for twelve seconds, and find out by themselves."""

    async def one(client: int) -> None:
        async with Proxy(scene.gateway.port) as proxy:
            talking = asyncio.create_task(resuming(proxy.port, Script(client, 170, seed=scene.outcome.seed)))
            await asyncio.sleep(1.5 + client * 0.05)
            struck_at = now()
            await cut(proxy, "black hole", scene.random)
            record = await talking
            back = [at for at, m in record.messages if m.get("type") == "status" and m["state"] == "recovered"]
            scene.check(bool(back), "nobody noticed")
            scene.answered((back[0] if back else record.ended_at) - struck_at)
            _judge(scene, record)

    await all_of(*(one(n) for n in range(20)))


def _judge(scene: Scene, record: Record) -> None:
    scene.count(record)
    scene.outcome.gapped += len(record.of("gap"))
    scene.check(record.whole, f"client {record.script.client} is not whole: {record.hung=} {record.messages[-1:]}")
    scene.check(not record.of("gap"), f"client {record.script.client} was told of gaps: {record.of('gap')}")


RESUME_ROWS = (
    Row("42a", "Vanishes in mid-utterance and returns, up to 250 times", "asr.connect through a proxy: RST, FIN, "
        "RST within a frame, black hole and RST", cut_anywhere, streams=CLIENTS),
    Row("42b", "The cable is pulled for 12 s", "asr.connect through a proxy: black hole", pulled_cable,
        answer_ms=25_000),
)  # fmt: skip
