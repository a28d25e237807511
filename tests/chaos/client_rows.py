"""Rows 37 to 43 of the fault catalogue: clients that read slowly, send too much, fall silent, vanish and come back."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import orjson
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from chaos.behaviour import Behaviour
from chaos.clients import Record, Script, native
from chaos.numbered import FRAME_BYTES, FRAME_MS, frame
from chaos.proxy import Proxy
from chaos.raw_clients import BINARY, LOST, Raw, frame_of
from chaos.scene import STRANGER, Row, Scene, all_of, now

STALL_S = 30.0
"""A client that reads nothing is let go after so long."""


async def never_reads(scene: Scene) -> None:
    """Three send an hour's worth of numbers and read nothing; later they come back and get every one."""
    hostile, frames = 3, 3_000
    crowd = scene.crowd(17, 120)

    async def one(client: int) -> None:
        first = (STRANGER + client * 5) * 1_000
        record = Record(Script(STRANGER + client * 5, 0))
        async with Raw(scene.gateway.port, receive_buffer=4_096) as deaf:
            await deaf.say({"type": "start", "pace": "file"})
            await deaf.read(10, until="ready")
            for n in range(frames):
                await deaf.send(frame_of(BINARY, frame(first + n)))
            begun = now()
            # The sign of life of a client that is there, and does not read.
            while scene.gateway.log().count("waits for its client") < hostile and now() < begun + STALL_S + 6:
                await deaf.say({"type": "keepalive"})
                await asyncio.sleep(0.5)
            scene.answered(now() - begun)
            # Whether it can be told depends on whether it begins to read within the two seconds of the close.
            code = await deaf.read(5)
            scene.check(code in (4499, LOST), f"a client that never reads was let go with {code}")
        ready, seen = deaf.of("ready")[0], [m["seq"] for _, m in deaf.messages if "seq" in m and m["type"] != "error"]
        record.messages += [(at, m) for at, m in deaf.messages if m["type"] != "error"]
        async with Raw(scene.gateway.port, path=f"/v1/stream?session={ready['session_id']}") as back:
            await back.say(
                {
                    "type": "resume", "session_id": ready["session_id"], "resume_token": ready["resume_token"],
                    "last_seq": seen[-1], "sent_bytes": frames * FRAME_BYTES,
                }
            )  # fmt: skip
            await back.read(10, until="resumed")
            if not back.of("resumed"):
                scene.fail(f"it could not come back: {back.messages[-1:]}")
                return
            scene.check(back.of("resumed")[0]["from_bytes"] == frames * FRAME_BYTES, "its audio was not all taken")
            await back.say({"type": "stop"})
            record.close_code = await back.read(15)
        record.messages += back.messages
        record.script = Script(STRANGER + client * 5, 1)
        said = [n for m in record.of("final") for n in (int(w[1:]) - first for w in m["text"].split())]
        scene.check(said == list(range(frames)), f"finals: {len(said)} words of {frames}, {_first_wrong(said)}")
        scene.check(record.misnumbered() == 0, "messages were not numbered gaplessly")
        scene.check(record.whole, f"it ended with {record.close_code}")
        scene.outcome.whole += record.whole
        scene.outcome.lost += len(set(range(frames)) - set(said))
        scene.note(f"{len(record.of('partial'))} partials of {frames} were sent")

    await all_of(*(one(n) for n in range(hostile)))
    await scene.come_out_whole(crowd)
    scene.memory_below(16 / hostile, hostile)


def _first_wrong(said: list[int]) -> str:
    wrong = [(place, n) for place, n in enumerate(said) if n != place]
    return f"first wrong (place, number): {wrong[:1]}"


async def flood(scene: Scene) -> None:
    """Five send fifty times as fast as one can speak, to a recognizer that stops to read them after 20 s of audio."""
    hostile = 5
    crowd = scene.crowd(15, 90)
    await asyncio.sleep(2.5)
    struck_at = now()
    taken: list[int] = []

    async def one(client: int) -> None:
        sent = 0
        async with Raw(scene.gateway.port) as flooder:
            await flooder.say({"type": "start"})
            reading = asyncio.create_task(flooder.read(30))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(5):
                    for n in range(100_000):
                        await flooder.send(frame_of(BINARY, frame((STRANGER + client) * 1_000 + n % 1_000)))
                        sent += 1
                        await asyncio.sleep(max(struck_at + sent * FRAME_MS / 50_000 - now(), 0))
            acks = flooder.of("ack")
            scene.check(flooder.close_code == 0, f"it was thrown out with {flooder.close_code}")
            scene.check(bool(acks) and acks[-1]["buffered_ms"] >= 3_000, f"it was not told of its backlog: {acks[-1:]}")
            taken.append(acks[-1]["received_ms"] if acks else 0)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    await all_of(*(one(n) for n in range(hostile)))
    scene.note(f"of {5 * 50} s of audio each the gateway took {max(taken) / 1000:.0f} s at most")
    # What the recognizer took, what may run ahead, and what gRPC's windows and the kernel's buffers take.
    scene.check(max(taken) < 5 * 50_000 * 0.9, f"{max(taken)} ms were taken: nobody held the flood back")
    records = await scene.come_out_whole(crowd)
    scene.unharmed(records, struck_at, struck_at + 4.5)
    scene.memory_below(4, hostile)


async def never_ends(scene: Scene) -> None:
    """Twenty go on speaking beyond the longest session."""
    records = await asyncio.gather(*scene.crowd(20, 80))
    for record in records:
        errors = record.errors
        scene.count(record)
        scene.check(record.close_code == 4413, f"closed with {record.close_code}")
        scene.check(bool(errors) and errors[-1]["code"] == "too_large", f"told {record.messages[-1:]}")
        lasted_s = record.ended_at - record.begun_at
        scene.answered(lasted_s)
        scene.check(lasted_s >= 3.9, f"ended after {lasted_s:.1f} s")


async def idle(scene: Scene) -> None:
    """Seven who never begin, seven who answer no ping, six who only listen."""
    crowd = scene.crowd(6, 80)

    # Begun before the gateway can have begun to count: its bound is a lower one, too.
    async def never_begins() -> None:
        begun = now()
        async with Raw(scene.gateway.port) as client:
            code = await client.read(10)
            _ended_as(scene, client, code, 4408, "idle_timeout", now() - begun, 2.0)

    async def answers_no_ping() -> None:
        async with Raw(scene.gateway.port, answers_pings=False) as client:
            begun = now()
            await client.say({"type": "start"})
            code = await client.read(10)
            _ended_as(scene, client, code, 4408, "idle_timeout", now() - begun, 3.0)
            scene.check(bool(client.of("warning")), "nobody warned a client that is silent")
            ready = client.of("ready")[0]
        async with Raw(scene.gateway.port, path=f"/v1/stream?session={ready['session_id']}") as back:
            token = {"session_id": ready["session_id"], "resume_token": ready["resume_token"]}
            last = client.messages[-1][1]["seq"] - 1
            await back.say({"type": "resume", **token, "last_seq": last, "sent_bytes": 0})
            await back.read(5, until="resumed")
            await back.say({"type": "stop"})
            code = await back.read(5)
            scene.check(code == 1000, f"who was idle could not come back: {code} {back.messages[-1:]}")

    async def only_listens() -> None:
        async with Raw(scene.gateway.port) as client:
            await client.say({"type": "start"})
            with contextlib.suppress(TimeoutError):
                await client.read(7)
            scene.check(client.close_code == 0, f"a client that answers pings was thrown out: {client.close_code}")
            await client.say({"type": "stop"})
            scene.check(await client.read(5) == 1000, "and could not end")

    who = [never_begins, answers_no_ping] * 7 + [only_listens] * 6
    await all_of(*(one() for one in who))
    await scene.come_out_whole(crowd)


def _ended_as(scene: Scene, client: Raw, code: int, wanted: int, error: str, after_s: float, bound_s: float) -> None:
    told = client.of("error")
    scene.check(code == wanted, f"closed with {code}, not {wanted}")
    scene.check(bool(told) and told[-1]["code"] == error, f"told {told[-1:]}, not {error}")
    scene.check(after_s >= bound_s - 0.3, f"after {after_s:.2f} s already, the bound is {bound_s:g} s")
    scene.in_time(after_s <= bound_s + 1.5, f"after {after_s:.2f} s, the bound is {bound_s:g} s")
    scene.answered(after_s)


async def vanishes(scene: Scene) -> None:
    """The way to twenty clients swallows everything: their streams at the recognizer end by themselves."""
    crowd = scene.crowd(5, 110)
    async with Proxy(scene.gateway.port) as proxy:
        gone = [
            asyncio.create_task(native(proxy.port, Script(STRANGER + n, 100), patience_s=9, start={}))
            for n in range(20)
        ]
        await asyncio.sleep(1.5)
        opened = (await scene.upstream.state())["open"]
        scene.check(opened == 25, f"{opened} streams are open")
        proxy.toxic.blackhole = frozenset({"up", "down"})
        struck_at = now()
        while (await scene.upstream.state())["open"] > 5 and now() < struck_at + 12:
            await asyncio.sleep(0.1)
        took_s = now() - struck_at
        scene.answered(took_s)
        scene.in_time(took_s <= 3 + 2 + 1, f"streams of those who vanished were held for {took_s:.1f} s")
        scene.check((await scene.upstream.state())["open"] == 5, "streams of those who stayed were ended")
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
    await scene.come_out_whole(crowd)


class Holder:
    """Somebody who holds a session and knows where it stands."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.session_id = ""
        self.token = ""
        self.last_seq = 0
        self.sent = 0

    async def listen(self, websocket: ClientConnection) -> int:
        """Read to the end; the close code."""
        try:
            while True:
                message = orjson.loads(await websocket.recv(decode=False))
                self.record.messages.append((now(), message))
                if message["type"] == "ready":
                    self.session_id = message["session_id"]
                if message["type"] in ("ready", "resumed"):
                    self.token = message["resume_token"]
                if message["type"] != "error" or not message.get("fatal"):
                    self.last_seq = message["seq"]
        except ConnectionClosed as closed:
            return closed.rcvd.code if closed.rcvd else LOST

    def resume(self, token: str, **other: Any) -> str:
        """The message."""
        asked = {
            "type": "resume", "session_id": self.session_id, "resume_token": token, "last_seq": self.last_seq,
            "sent_bytes": self.sent, **other,
        }  # fmt: skip
        return orjson.dumps(asked).decode()


async def two_holders(scene: Scene) -> None:
    """Twenty sessions whose client opens a second connection while the first one stands; then come the thieves."""
    url = f"ws://127.0.0.1:{scene.gateway.port}/v1/stream"
    holders: list[Holder] = []

    async def one(client: int) -> None:
        holder = Holder(Record(Script(client, 60, pace=4, seed=scene.outcome.seed)))
        holders.append(holder)
        audio, _ = holder.record.script.audio()

        async def speak(websocket: ClientConnection, until: int, begin: int) -> None:
            for at in range(begin, until, FRAME_BYTES):
                await websocket.send(audio[at : min(at + FRAME_BYTES, until)])
                holder.sent = min(at + FRAME_BYTES, until)
                await asyncio.sleep(FRAME_MS / 1000 / 4)

        third = FRAME_BYTES * 20
        async with connect(url, proxy=None, close_timeout=2) as old:
            await old.send('{"type":"start"}')
            hearing = asyncio.create_task(holder.listen(old))
            await speak(old, third, 0)
            spent = holder.token
            async with connect(f"{url}?session={holder.session_id}", proxy=None, close_timeout=2) as new:
                await new.send(holder.resume(spent))
                code = await hearing
                scene.check(code == 4409, f"the older connection ended with {code}")
                told = holder.record.errors
                scene.check(bool(told) and told[-1]["code"] == "superseded", f"and was told {told[-1:]}")
                hearing = asyncio.create_task(holder.listen(new))
                while not holder.record.of("resumed"):
                    await asyncio.sleep(0.01)
                begin = holder.record.of("resumed")[0]["from_bytes"]
                await speak(new, 2 * third, begin)
                for thief in (
                    holder.resume(spent),
                    holder.resume(holders[client - 1].token if client else "x" * 22),
                    holder.resume("", resume_token=""),
                    holder.resume(holder.token, session_id="0" * 16),
                ):
                    await _refused(scene, url, thief)
                await speak(new, len(audio), 2 * third)
                await new.send('{"type":"stop"}')
                holder.record.close_code = await hearing
        # The errors that the older connection was told do not count as the end of the session.
        holder.record.messages = [(at, m) for at, m in holder.record.messages if m.get("code") != "superseded"]
        scene.count(holder.record)
        scene.check(holder.record.whole, f"a thief harmed the session: {holder.record.messages[-1:]}")
        summary = holder.record.of("summary")
        scene.check(bool(summary) and summary[0]["resumes"] == 1, f"summary: {summary}")

    await all_of(*(one(n) for n in range(20)))


async def _refused(scene: Scene, url: str, message: str) -> None:
    async with connect(url, proxy=None, close_timeout=2) as websocket:
        await websocket.send(message)
        told = ""
        with contextlib.suppress(ConnectionClosed):
            told = orjson.loads(await websocket.recv(decode=False)).get("code", "")
            await websocket.recv()
        code = websocket.close_code
    expected = ("not_found", 4404) if orjson.loads(message)["resume_token"] else ("bad_request", 4400)
    scene.check((told, code) in (("not_found", 4404), expected), f"a thief was told {told}, {code}")


CLIENT_ROWS = (
    Row("37", "Never reads", "raw client with a small buffer: sends 5 minutes of numbers, reads once it was let go",
        never_reads, answer_ms=33_000),
    Row("38", "Flood, 50 times as fast as speech", "5 raw clients for 5 s; the recognizer stops to read them",
        flood, behaviour=Behaviour(deaf_after=200), alone=True, settings={"RESUME_WINDOW_MS": "2000"},
        why="to see that their streams end"),
    Row("39", "Never ends", "MAX_SESSION_MS of 4 s, 8 s of audio", never_ends, settings={"MAX_SESSION_MS": "4000"},
        why="4 hours are long", answer_ms=6_000),
    Row("40", "Idle: no first message, no pong, no audio", "raw clients", idle, streams=26,
        settings={"START_TIMEOUT_MS": "2000", "IDLE_TIMEOUT_MS": "3000"}, why="2 and 3 s in place of 10 and 30"),
    Row("41", "Vanishes without FIN", "proxy: black hole", vanishes, streams=25,
        settings={"IDLE_TIMEOUT_MS": "3000", "RESUME_WINDOW_MS": "2000"}, why="3 and 2 s in place of 30 and 60",
        answer_ms=6_000),
    Row("43", "Two holders of a session, spent and foreign tokens", "a second connection, four thieves each",
        two_holders),
)  # fmt: skip
