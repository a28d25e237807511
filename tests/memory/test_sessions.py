"""Sessions that outlive their connections: nothing is lost, nothing comes twice, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from asr.errors import Code
from asr.events import Event, Final, FinalReason, Gap, GapCause, Partial, State, Status
from memory_gateway import PATIENCE_S, MemoryConnection, MemoryGateway, serving
from playbook import Player
from server.drive import DriveLimits
from server.faces.native import NativeConversation
from server.faces.native_setup import NativeLimits
from server.line import Line
from server.outbox import Outbox
from server.sessions import MAX_RETURNING
from server.sockets import MemorySocket
from word_engine import WordEngine

START = '{"type":"start","words":false}'
AUDIO_MS, CHUNK_MS = 3_300, 110


class Speaker:
    """A client that does what the protocol asks of one: it numbers, acknowledges, and sends again from `from_bytes`."""

    def __init__(self, gateway: MemoryGateway) -> None:
        self._player = Player(gateway.connect)
        self._sent_bytes = 0
        self.heard: list[dict[str, Any]] = []

    @property
    def finals(self) -> list[tuple[str, int, int, str]]:
        return [(m["utterance_id"], m["start_ms"], m["end_ms"], m["text"]) for m in self.heard if m["type"] == "final"]

    async def open(self) -> None:
        await self._player.open("/v1/stream")
        await self._player.say(START)
        assert (await self._hear())["type"] == "ready"

    async def speak(self) -> None:
        """The next chunk of the audio, or stop."""
        if self._sent_bytes >= AUDIO_MS * 32:
            await self._player.say('{"type":"stop"}')
        else:
            await self._player.say(bytes(CHUNK_MS * 32))
            self._sent_bytes += CHUNK_MS * 32

    async def listen(self, messages: int) -> None:
        """Read a few messages, if there are any."""
        for _ in range(messages):
            try:
                async with asyncio.timeout(0.002):
                    await self._hear()
            except TimeoutError:
                return

    async def come_back(self, *, cut: bool) -> None:
        if cut:
            await self._player.cut()
        await self._player.resume()
        answer = await self._hear()
        assert answer["type"] == "resumed"
        assert answer["replaying_from_seq"] == self._player.check.last + 1
        self._sent_bytes = answer["from_bytes"]

    async def finish(self) -> None:
        while self._sent_bytes < AUDIO_MS * 32:
            await self.speak()
        await self.speak()
        while (await self._hear())["type"] != "summary":
            pass
        assert await self._player.answer() == "close 1000"

    async def _hear(self) -> dict[str, Any]:
        message = await self._player.message()
        self.heard.append(message)
        return message


async def finals_when(cut_after: int, *, cut: bool = True, read: int = 0) -> Speaker:
    async with serving(WordEngine()) as gateway:
        speaker = Speaker(gateway)
        await speaker.open()
        for _ in range(cut_after):
            await speaker.speak()
        await speaker.listen(read)
        if cut_after >= 0:
            await speaker.come_back(cut=cut)
        await speaker.finish()
    return speaker


@pytest.mark.parametrize("cut", [True, False], ids=["lost", "taken over"])
async def test_a_connection_that_breaks_anywhere_changes_no_final(cut: bool) -> None:
    whole = (await finals_when(-1)).finals
    assert len(whole) == 4
    for cut_after in range(AUDIO_MS // CHUNK_MS + 2):  # after the stop, too
        speaker = await finals_when(cut_after, cut=cut, read=cut_after % 5)
        assert speaker.finals == whole, cut_after
        stopped = cut_after > AUDIO_MS // CHUNK_MS
        assert speaker.heard[-1]["resumes"] == (0 if stopped else 1)  # the summary may have been said before
        assert speaker.heard[-1]["audio_ms"] == AUDIO_MS


async def test_many_breaks_in_one_session() -> None:
    async with serving(WordEngine()) as gateway:
        speaker = Speaker(gateway)
        await speaker.open()
        for turn in range(25):
            await speaker.speak()
            await speaker.listen(turn % 3)
            await speaker.come_back(cut=turn % 2 == 0)
        await speaker.finish()
    assert speaker.finals == (await finals_when(-1)).finals
    assert speaker.heard[-1]["resumes"] == 25
    assert len(gateway.watch.resumes) == 25


async def opened(gateway: MemoryGateway, start: str = START) -> tuple[Player, MemoryConnection]:
    player = Player(gateway.connect)
    await player.open("/v1/stream")
    await player.say(start)
    assert (await player.message())["type"] == "ready"
    return player, gateway.connections[-1]


async def test_when_the_window_is_over_the_engine_and_the_place_are_free() -> None:
    engine = WordEngine()
    async with serving(engine, NativeLimits(resume_window_ms=200)) as gateway:
        client, connection = await opened(gateway)
        await client.say(bytes(6400))
        await client.cut()
        await asyncio.sleep(0.05)
        assert engine.open_streams == 1
        assert connection.place.released == 0
        assert gateway.watch.lost_sessions == ["s1"]
        async with asyncio.timeout(1.0):
            while len(gateway.sessions):
                await asyncio.sleep(0.01)
        assert engine.open_streams == 0
        assert connection.place.released == 1
        assert gateway.watch.record is not None
        assert gateway.watch.record.close_code is None


async def test_a_client_chooses_a_shorter_window_and_no_longer_one() -> None:
    async with serving(WordEngine(), NativeLimits(resume_window_ms=5_000)) as gateway:
        for wished, given in ((100, 100), (60_000, 5_000), (0, 0)):
            player = Player(gateway.connect)
            await player.open("/v1/stream")
            await player.say(json.dumps({"type": "start", "resume_window_ms": wished}))
            ready = await player.message()
            assert ready["limits"]["resume_window_ms"] == given
            assert (ready["resume_token"] is None) == (given == 0)


async def test_the_next_connection_needs_no_place_and_gives_back_one_that_it_took() -> None:
    async with serving(WordEngine()) as gateway:
        client, first = await opened(gateway)
        turn = gateway.sessions.exempt({"session": "s1"}, "me")
        assert turn is not None
        turn.release()
        assert not gateway.sessions.exempt({"session": "s1"}, "you")
        assert not gateway.sessions.exempt({"session": "s2"}, "me")
        assert not gateway.sessions.exempt({}, "me")
        await client.cut()
        second = await gateway.connect("/v1/stream")  # without the hint
        resume = {"type": "resume", "session_id": "s1", "resume_token": "t1", "last_seq": 1, "sent_bytes": 0}
        await second.say(json.dumps(resume))
        assert json.loads(await second.hear())["type"] == "resumed"
        assert second.place.released == 1
        assert first.place.released == 0
        await second.say('{"type":"cancel"}')
        await asyncio.sleep(0.01)
        assert first.place.released == 1


async def test_a_connection_that_was_let_in_for_a_resume_may_do_nothing_else() -> None:
    async with serving(WordEngine()) as gateway:
        await opened(gateway)
        sneaking = await gateway.connect("/v1/stream?session=s1")
        await sneaking.say(START)
        assert json.loads(await sneaking.hear())["code"] == "bad_request"
        assert await sneaking.hear() == "close 4400"
        assert len(gateway.sessions) == 1


async def test_only_a_few_connections_at_a_time_are_let_in_for_one_session() -> None:
    async with serving(WordEngine()) as gateway:
        await opened(gateway)
        other, _ = await opened(gateway)
        named = {"session": "s1"}
        silent = [await gateway.connect("/v1/stream?session=s1") for _ in range(MAX_RETURNING)]
        assert gateway.sessions.exempt(named, "me") is None
        turn = gateway.sessions.exempt({"session": "s2"}, "me")
        assert turn is not None
        turn.release()
        turn.release()
        await other.resume()
        assert (await other.message())["type"] == "resumed"
        await silent[0].say('{"type":"resume","session_id":"s1","resume_token":"t1","last_seq":1,"sent_bytes":0}')
        assert json.loads(await silent[0].hear())["type"] == "resumed"
        turn = gateway.sessions.exempt(named, "me")
        assert turn is not None, "who has resumed still counts as one who may"
        assert gateway.sessions.exempt(named, "me") is None
        turn.release()
        again = gateway.sessions.exempt(named, "me")
        assert again is not None
        again.release()


async def test_those_a_caller_made_tokens_for_hold_its_places_together() -> None:
    async with serving(WordEngine(), max_detached=2) as gateway:
        clients = [await gateway.connect(principal=f"key app for {number}") for number in range(4)]
        for client in clients:
            await client.say(START)
            await client.hear()
        for client in clients:
            await client.cut()
        async with asyncio.timeout(PATIENCE_S):
            while gateway.sessions.waiting != 2 or len(gateway.sessions) > 2:
                await asyncio.sleep(0.01)


async def test_one_caller_holds_only_so_many_places_without_a_connection() -> None:
    engine = WordEngine()
    async with serving(engine, max_detached=2) as gateway:
        mine = [await opened(gateway) for _ in range(4)]
        foreign = await gateway.connect(principal="you")
        await foreign.say(START)
        await foreign.hear()
        for client, connection in mine[:2]:
            await client.cut()
            await connection.socket.gone()
        await foreign.cut()
        await mine[0][0].resume()  # it does not wait any more, and the next one finds room
        assert (await mine[0][0].message())["type"] == "resumed"
        await mine[2][0].cut()
        await asyncio.sleep(0.02)
        assert len(gateway.sessions) == 5
        await mine[3][0].cut()
        async with asyncio.timeout(PATIENCE_S):
            while len(gateway.sessions) > 4:
                await asyncio.sleep(0.01)
        assert [connection.place.released for _, connection in mine] == [0, 1, 0, 0], "the longest waiting goes"
        assert engine.open_streams <= 4
        await mine[1][0].resume()
        assert (await mine[1][0].message())["code"] == "not_found"
        await mine[2][0].resume()
        assert (await mine[2][0].message())["type"] == "resumed"


async def test_a_session_that_is_over_is_not_taken_from_a_client_that_reads() -> None:
    async with serving(WordEngine(), max_finished=1) as gateway:
        reader, connection = await opened(gateway)
        connection.socket.answers_close = False
        await reader.say('{"type":"stop"}')
        assert (await reader.message())["type"] == "summary"
        await asyncio.sleep(0.02)
        held = gateway.sessions._sessions["s1"]
        held.line.socket = connection.socket  # it has come back, and takes its time
        for number in range(3):
            client, connection = await opened(gateway)
            connection.socket.answers_close = False
            await client.say('{"type":"stop"}')
            assert (await client.message())["type"] == "summary"
            await asyncio.sleep(0.02)
            assert not held.line.over.done(), number
        assert len(gateway.sessions) == 1
        held.line.socket = None
        held.line.end()


async def test_a_drain_as_a_newcomer_runs_out_of_time() -> None:
    gateway = MemoryGateway(WordEngine(), NativeLimits(start_timeout_ms=30))
    await gateway.connect()
    await asyncio.sleep(0)
    (patience,) = gateway.sessions._newcomers
    drained: list[bool] = []

    def drain() -> None:
        drained.append(patience.expired())
        gateway.sessions.drain(1000)
        drained.append(True)

    when = patience.when()
    assert when is not None
    asyncio.get_running_loop().call_at(when, drain)
    async with asyncio.timeout(PATIENCE_S):
        while not drained:
            await asyncio.sleep(0.005)
    assert drained == [True, True]
    await gateway.aclose()


async def test_a_session_is_for_the_principal_that_opened_it() -> None:
    async with serving(WordEngine()) as gateway:
        await opened(gateway)
        other = await gateway.connect("/v1/stream?session=s1", principal="you")
        await other.say('{"type":"resume","session_id":"s1","resume_token":"t1","last_seq":1,"sent_bytes":0}')
        assert json.loads(await other.hear())["code"] == "not_found"
        assert await other.hear() == "close 4404"


async def test_a_client_without_a_credential_may_come_back_from_another_address() -> None:
    async with serving(WordEngine()) as gateway:
        first = await gateway.connect("/v1/stream", principal="address 127.0.0.1")
        await first.say(START)
        await first.hear()
        await first.cut()
        assert gateway.sessions.exempt({"session": "s1"}, "address ::1")
        assert not gateway.sessions.exempt({"session": "s1"}, "key 1")
        other = await gateway.connect("/v1/stream?session=s1", principal="address ::1")
        await other.say('{"type":"resume","session_id":"s1","resume_token":"t1","last_seq":1,"sent_bytes":0}')
        assert json.loads(await other.hear())["type"] == "resumed"


@pytest.mark.parametrize(
    "fields",
    [{"last_seq": -1}, {"last_seq": "1"}, {"resume_token": None}, {"session_id": 7}, {"resume_token": "tökén"}],
    ids=str,
)
async def test_an_odd_resume_is_an_answer_not_a_failure(fields: dict[str, Any]) -> None:
    async with serving(WordEngine()) as gateway:
        await opened(gateway)
        odd = await gateway.connect()
        whole = {"type": "resume", "session_id": "s1", "resume_token": "t1", "last_seq": 1, "sent_bytes": 0}
        await odd.say(json.dumps({**whole, **fields}))
        assert json.loads(await odd.hear())["code"] in ("bad_request", "not_found")
        assert await odd.hear() in ("close 4400", "close 4404")
        assert len(gateway.sessions) == 1


async def test_what_is_not_kept_any_more_cannot_be_resumed() -> None:
    def forgetful(core: NativeConversation) -> Line:
        return Line(core, outbox=Outbox(numbered=True, max_kept=3))

    async with serving(WordEngine(), line=forgetful) as gateway:
        client, _ = await opened(gateway)
        await client.say(bytes(64_000))
        for _ in range(10):
            await client.answer()
        await client.cut()
        await asyncio.sleep(0.01)
        await client.resume(last_seq=1)
        assert json.loads(await gateway.connections[-1].hear())["code"] == "expired"
        assert await gateway.connections[-1].hear() == "close 4410"
        await asyncio.sleep(0.01)
        assert len(gateway.sessions) == 0


async def test_the_rest_of_a_session_can_be_fetched_after_its_end() -> None:
    engine = WordEngine()
    async with serving(engine) as gateway:
        client, connection = await opened(gateway)
        connection.socket.answers_close = False
        await client.say(bytes(32 * 400))
        await client.say('{"type":"stop"}')
        async with asyncio.timeout(PATIENCE_S):
            while connection.socket.closed is None:
                await asyncio.sleep(0.01)
        assert engine.open_streams == 0
        assert connection.place.released == 1
        await client.resume()
        kinds = [(await client.message())["type"] for _ in range(5)]
        assert kinds == ["resumed", "partial", "partial", "final", "summary"]
        assert await client.answer() == "close 1000"
        await asyncio.sleep(0.01)
        assert len(gateway.sessions) == 0


async def test_sessions_that_nobody_fetches_are_bounded() -> None:
    async with serving(WordEngine(), max_finished=2, max_expired=1) as gateway:
        for _ in range(5):
            client, connection = await opened(gateway)
            connection.socket.answers_close = False
            await client.say('{"type":"stop"}')
            assert (await client.message())["type"] == "summary"
            await asyncio.sleep(0.02)
        assert len(gateway.sessions) == 2


async def test_expired_sessions_are_remembered_within_a_bound() -> None:
    async with serving(WordEngine(), NativeLimits(resume_window_ms=10), max_expired=1) as gateway:
        clients = [await opened(gateway) for _ in range(2)]
        async with asyncio.timeout(PATIENCE_S):
            for left, (client, _) in zip((1, 0), clients, strict=True):
                await client.cut()
                while len(gateway.sessions) > left:
                    await asyncio.sleep(0.01)
        await clients[0][0].resume()
        assert (await clients[0][0].message())["code"] == "not_found"
        await clients[1][0].resume()
        assert (await clients[1][0].message())["code"] == "expired"


async def test_messages_of_the_old_connection_do_not_count_after_a_takeover() -> None:
    engine = WordEngine("hang@200")
    async with serving(engine, None, DriveLimits(max_ahead_ms=500)) as gateway:
        client, first = await opened(gateway)
        for _ in range(20):
            await client.say(bytes(3200))
        await client.answer()
        await asyncio.sleep(0.02)
        assert len(first.socket._inbox) > 5
        await client.resume()
        resumed = await client.message()
        assert resumed["from_bytes"] < 20 * 3200
        await client.say('{"type":"cancel"}')  # nothing else of the new connection waits behind the audio
        await asyncio.sleep(0.02)
        assert gateway.watch.record is None, "the engine takes nothing, so nothing more is read"
    record = gateway.watch.record
    assert record is not None
    assert record.audio_ms == resumed["from_bytes"] // 32


async def test_what_an_old_connection_delivers_after_the_takeover_is_not_heard() -> None:
    async with serving(WordEngine()) as gateway:
        client, first = await opened(gateway)
        await client.resume()
        first.socket.put(bytes(6400))  # was on its way when the newer connection asked
        assert (await client.message())["from_bytes"] == 0
        first.socket.put('{"type":"cancel"}')
        await asyncio.sleep(0.02)
        await client.say(bytes(3200))
        await client.say('{"type":"stop"}')
        assert (await client.message())["audio_ms"] == 100


class Wordy(WordEngine):
    """A recognizer that says what a test tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self.say: asyncio.Queue[Event] = asyncio.Queue()

    async def stream(self, audio: Any, options: Any) -> Any:
        self.open_streams += 1
        try:
            while True:
                yield await self.say.get()
        finally:
            self.open_streams -= 1


def final(number: int, text: str = "a") -> Final:
    return Final(number, 9, text, number * 10, number * 10 + 10, reason=FinalReason.ENDPOINT)


async def test_a_slow_reader_loses_partials_and_no_final() -> None:
    engine = Wordy()
    async with serving(engine) as gateway:
        client, connection = await opened(gateway)
        connection.socket.blocked = True
        for number in range(50):
            for revision in range(1, 20):
                engine.say.put_nowait(Partial(number, revision, "a", number * 10, number * 10 + 5))
            engine.say.put_nowait(final(number))
        async with asyncio.timeout(PATIENCE_S):
            while not engine.say.empty():
                await asyncio.sleep(0)
        assert len(connection.socket.sent) < 5, "it was sent what it had no room for"
        connection.socket.blocked = False
        heard = [await client.message() for _ in range(50)]
        assert [m["utterance_id"] for m in heard if m["type"] == "final"] == [f"u{n}" for n in range(49)]
        assert [m["type"] for m in heard].count("partial") == 1
        assert (await client.message())["utterance_id"] == "u49"
    assert gateway.watch.record is not None
    assert gateway.watch.record.left_out > 900


async def test_finals_over_the_bound_let_the_client_go_and_wait_for_it() -> None:
    def small(core: NativeConversation) -> Line:
        return Line(core, outbox=Outbox(numbered=True, max_waiting=10))

    engine = Wordy()
    async with serving(engine, line=small) as gateway:
        client, connection = await opened(gateway)
        connection.socket.blocked = True
        for number in range(15):
            engine.say.put_nowait(final(number))
        async with asyncio.timeout(PATIENCE_S):
            while connection.socket.closed is None:
                await connection.socket.changed()
        assert connection.socket.closed[0] == 4499
        assert json.loads(connection.socket.sent[-1])["action"] == "resume"
        await client.resume()
        heard = [await client.message() for _ in range(16)]
        assert [m["type"] for m in heard] == ["resumed", *["final"] * 15]


async def test_an_absent_client_cannot_fill_the_memory() -> None:
    def small(core: NativeConversation) -> Line:
        return Line(core, outbox=Outbox(numbered=True, max_waiting=10))

    engine = Wordy()
    async with serving(engine, line=small) as gateway:
        client, _ = await opened(gateway)
        await client.cut()
        for number in range(30):
            engine.say.put_nowait(final(number))
        async with asyncio.timeout(PATIENCE_S):
            while len(gateway.sessions):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(("start", "ends"), [(START, False), ('{"type":"start","resume_window_ms":0}', True)])
async def test_a_client_that_takes_nothing_is_let_go(start: str, ends: bool) -> None:
    def impatient(core: NativeConversation) -> Line:
        return Line(core, stall_ms=50)

    engine = Wordy()
    async with serving(engine, line=impatient) as gateway:
        _, connection = await opened(gateway, start)
        connection.socket.blocked = True
        engine.say.put_nowait(final(0))
        async with asyncio.timeout(PATIENCE_S):
            while connection.socket.closed is None:
                await connection.socket.changed()
        assert connection.socket.closed[0] == 4499
        await asyncio.sleep(0.01)
        assert (len(gateway.sessions) == 0) == ends


async def test_the_end_waits_for_a_slow_reader_within_a_bound() -> None:
    async with serving(WordEngine()) as gateway:
        client, connection = await opened(gateway)
        connection.socket.blocked = True
        await client.say(bytes(32 * 2000))
        await client.say('{"type":"stop"}')
        await asyncio.sleep(0.05)
        assert connection.socket.closed is None
        connection.socket.blocked = False
        kinds = []
        while not (text := await client.answer()).startswith("close"):
            kinds.append(json.loads(text)["type"])
        assert kinds.count("final") == 2
        assert kinds[-1] == "summary"


class Silent(MemorySocket):
    """A client that answers no ping."""

    def __init__(self) -> None:
        super().__init__(principal="me")
        self._since = asyncio.get_running_loop().time()

    @property
    def last_heard(self) -> float:
        return self._since


async def test_a_half_open_connection_ends_and_its_session_does_not() -> None:
    async with serving(WordEngine(), None, DriveLimits(idle_ms=150)) as gateway:
        connection = gateway.take(Silent())
        await connection.say(START)
        kinds = []
        while not (text := await connection.hear()).startswith("close"):
            message = json.loads(text)
            kinds.append(message["type"])
        assert kinds == ["ready", "warning", "error"]
        assert (message["code"], message["action"], message["seq"]) == ("idle_timeout", "resume", 2)
        assert text == "close 4408"
        again = await gateway.connect("/v1/stream?session=s1")
        await again.say('{"type":"resume","session_id":"s1","resume_token":"t1","last_seq":2,"sent_bytes":0}')
        assert json.loads(await again.hear())["type"] == "resumed"
        await asyncio.sleep(0.2)
        assert again.socket.closed is None, "the silence of the old connection was held against the new one"


async def test_gaps_and_changes_of_the_recognizer_are_told_and_counted() -> None:
    engine = Wordy()
    async with serving(engine) as gateway:
        client, _ = await opened(gateway)
        await client.say(bytes(32 * 1000))
        for event in (
            Status(State.FAILING_OVER, 100),
            Status(State.RECOVERED, 200),
            Gap(200, 500, GapCause.BUFFER_OVERRUN),
        ):
            engine.say.put_nowait(event)
        said = [await client.message() for _ in range(3)]
        assert [m["type"] for m in said] == ["status", "status", "gap"]
        await client.say('{"type":"cancel"}')
        summary = await client.message()
        assert (summary["gaps_ms"], summary["failovers"]) == (300, 1)


async def test_the_end_dialect_tells_gaps_and_is_not_told_of_the_rest() -> None:
    engine = Wordy()
    async with serving(engine) as gateway:
        client = await gateway.connect("/ws")
        engine.say.put_nowait(Status(State.DEGRADED, 0))
        engine.say.put_nowait(Gap(10, 20, GapCause.UPSTREAM_LOST))
        said = json.loads(await client.hear())
        del said["timestamp"]
        assert said == {"text": "", "is_final": True, "gap": {"start_ms": 10, "end_ms": 20}}


async def test_a_drain_ends_the_sessions_that_wait() -> None:
    engine = WordEngine()
    async with serving(engine) as gateway:
        client, _ = await opened(gateway)
        await client.cut()
        await asyncio.sleep(0.01)
        assert len(gateway.sessions) == 1
        gateway.sessions.drain(1000)
        async with asyncio.timeout(PATIENCE_S):
            while len(gateway.sessions):
                await asyncio.sleep(0.01)


async def test_a_failure_is_read_by_a_client_that_was_away() -> None:
    engine = WordEngine("unavailable@400")
    async with serving(engine) as gateway:
        client, _ = await opened(gateway)
        await client.say(bytes(32 * 400))
        await client.cut()
        await asyncio.sleep(0.05)
        assert engine.open_streams == 0
        await client.resume()
        heard = []
        while not (text := await client.answer()).startswith("close"):
            heard.append(json.loads(text))
        assert heard[0]["type"] == "resumed"
        assert heard[-1]["code"] == Code.UNAVAILABLE.value
        assert text == "close 4502"
