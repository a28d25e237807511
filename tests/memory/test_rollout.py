"""The rollout in memory: who gets a stream, what a failing canary costs its clients, what becomes of a change."""

from __future__ import annotations

import asyncio
import errno
import json
import random
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import structlog

import virtual_time
from asr.channels import ChannelsEngine
from asr.config import ResilienceConfig
from asr.engine import AudioInput, Features, Model, Readiness, agree
from asr.errors import ASRError, Code
from asr.events import Event, Final, Gap
from asr.options import Diarization, Options
from asr.pipe import Ahead, AudioPipe
from asr.settings import load_settings
from server.admission import Admission
from server.jobs.places import PatientEngine
from server.rollout.arms import Canary
from server.rollout.build import build_rollout
from server.rollout.control import Control
from server.rollout.engine import RolloutEngine
from server.rollout.show import shown
from server.rollout.state import Position, SwitchedOff, Wanted
from server.rollout.verdict import Lot
from server.settings import ServerSettings
from server.telemetry.hub import Telemetry
from word_engine import MODELS, WordEngine

CHUNK = bytes(32 * 200)
OPTIONS = Options(model="words-en", language="en-US")
QUICK = ResilienceConfig(retry_base_ms=1, retry_cap_ms=2, start_timeout_ms=1_000, failover_timeout_ms=2_000)


class Named(WordEngine):
    """With a name, models and features of its own, and results that come late or not at all."""

    def __init__(self, name: str, fault: str = "", *, models: tuple[Model, ...] = MODELS, **wants: bool) -> None:
        super().__init__(fault)
        self._name = name
        self._models = models
        self._features = replace(Features(), **wants)
        self.late_s = 0.0
        self.drops = 0
        self.closed = False

    @property
    def heard_bytes(self) -> bytes:
        return b""

    @heard_bytes.setter
    def heard_bytes(self, _: bytes) -> None:
        """Hours of audio are not kept."""

    @property
    def name(self) -> str:
        return self._name

    @property
    def features(self) -> Features:
        return self._features

    async def models(self) -> tuple[Model, ...]:
        return () if self.fault == "no-model" else self._models

    async def aclose(self) -> None:
        self.closed = True

    async def stream(self, audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
        async with aclosing(super().stream(audio, options)) as events:
            async for event in events:
                if isinstance(event, Final):
                    await asyncio.sleep(self.late_s)
                    kept = event.text.split()[self.drops :]
                    event = replace(event, text=" ".join(kept))
                yield event


@dataclass
class Stage:
    base: Named
    canary: Named
    former: Named
    engine: RolloutEngine


def stage(canary: str = "", *, seed: int = 1, **wants: bool) -> Stage:
    loop = asyncio.get_running_loop()
    base, former, tried = Named("base"), Named("former"), Named("canary", canary, **wants)
    engine = RolloutEngine(
        base,
        make_former=lambda: former,
        make_canary=lambda: Canary([tried], base, QUICK, ChannelsEngine),
        min_streams=20,
        chance=random.Random(seed).random,
        clock=loop.time,
    )
    return Stage(base, tried, former, engine)


async def speak(engine: RolloutEngine, seconds: float = 6.0, options: Options = OPTIONS) -> list[Event]:
    """One live stream, agreed upon and in real time: a word in each 200 ms."""
    agreement = agree(options, await engine.models(), engine.features)
    pipe = AudioPipe(Ahead(10**9))

    async def talk() -> None:
        for _ in range(int(seconds * 5)):
            pipe.put(CHUNK)
            await asyncio.sleep(0.2)
        pipe.end()

    talking = asyncio.create_task(talk())
    try:
        return [event async for event in engine.stream(pipe, agreement.options)]
    finally:
        talking.cancel()


def words(events: list[Event]) -> list[str]:
    return " ".join(event.text for event in events if isinstance(event, Final)).split()


# --- who gets a stream


def test_without_a_canary_nothing_is_put_around_a_stream() -> None:
    async def body() -> None:
        one = stage()
        await one.engine.models()
        events = one.engine.stream(AudioPipe(Ahead(1)), OPTIONS)
        assert events.__qualname__ == "Named.stream"
        await events.aclose()
        await one.engine.aclose()
        assert one.base.closed

    virtual_time.run(body())


def test_a_part_of_the_streams_goes_to_the_canary() -> None:
    async def body() -> None:
        one = stage(seed=7)
        wanted = Wanted(canary_percent=25)
        assert await one.engine.prepare(replace(wanted, canary_percent=0)) == ""
        one.engine.apply(wanted)
        assert await one.engine.prepare(wanted) == ""
        heard = await asyncio.gather(*(speak(one.engine, 1.0) for _ in range(200)))
        assert all(words(events) == [f"w{n}" for n in range(1, 6)] for events in heard)
        assert 28 <= one.canary.streams <= 75
        assert one.base.streams + one.canary.streams == 200
        counts = one.engine.tallies.canary_streams
        assert counts == {("base", "ok"): one.base.streams, ("canary", "ok"): one.canary.streams}
        assert [row["name"] for row in one.engine.endpoints()] == ["canary-1"]
        await one.engine.aclose()
        assert one.base.closed
        assert one.canary.closed

    virtual_time.run(body())


@pytest.mark.parametrize(
    ("options", "wants"),
    [
        (OPTIONS, {"end_utterance": False}),
        (replace(OPTIONS, diarization=Diarization()), {}),
        (OPTIONS, {"words": False}),
    ],
)
def test_what_the_canary_cannot_grant_stays_at_the_base(options: Options, wants: dict[str, bool]) -> None:
    async def body() -> None:
        one = stage(**wants)
        one.base._features = replace(one.base.features, diarization=True)
        one.engine.apply(Wanted(canary_percent=100))
        await one.engine.prepare(one.engine.wanted)
        await speak(one.engine, 1.0, options)
        assert (one.base.streams, one.canary.streams, one.engine.left_out) == (1, 0, 1)
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_model_that_only_the_base_has_stays_there() -> None:
    async def body() -> None:
        one = stage()
        one.canary._models = (Model("words-en", ("en-US",)),)
        one.engine.apply(Wanted(canary_percent=100))
        await one.engine.prepare(one.engine.wanted)
        await speak(one.engine, 1.0, Options(model="words-de"))
        await speak(one.engine, 1.0, OPTIONS)
        assert (one.base.streams, one.canary.streams) == (1, 1)
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_canary_that_was_never_there_gets_nothing() -> None:
    async def body() -> None:
        one = stage("no-model")
        wanted = Wanted(canary_percent=100)
        one.engine.apply(wanted)
        assert "does not answer yet" in await one.engine.prepare(wanted)
        await speak(one.engine, 1.0)
        assert (one.base.streams, one.canary.streams) == (1, 0)
        assert one.engine.comparison is not None
        assert one.engine.comparison.worse is None
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_canary_that_is_full_gets_no_more_and_is_not_blamed() -> None:
    async def body() -> None:
        base, canary = Named("base"), Named("canary")
        narrow = replace(QUICK, max_streams=2)
        engine = RolloutEngine(
            base, make_canary=lambda: Canary([canary], base, narrow), clock=asyncio.get_running_loop().time
        )
        engine.apply(Wanted(canary_percent=100))
        await engine.prepare(engine.wanted)
        heard = await asyncio.gather(*(speak(engine, 2.0) for _ in range(8)))
        assert all(len(words(events)) == 10 for events in heard)
        assert (canary.streams, base.streams) == (2, 6)
        assert engine.tallies.canary_streams == {("canary", "ok"): 2}
        engine.apply(Wanted(canary_percent=50))
        engine._chance = iter([0.9, *[0.1] * 2, 0.9, 0.9]).__next__
        await asyncio.gather(*(speak(engine, 2.0) for _ in range(6)))
        assert engine.tallies.canary_streams == {("canary", "ok"): 4, ("base", "ok"): 1}, "while it is full, no lots"
        await engine.aclose()

    virtual_time.run(body())


# --- a canary that is worse


def run_canary(
    one: Stage, streams: int, *, percent: int = 50, seconds: float = 6.0
) -> asyncio.Future[list[list[Event]]]:
    """So many streams, one second after another."""
    one.engine.apply(Wanted(canary_percent=percent))

    async def later(number: int) -> list[Event]:
        await asyncio.sleep(number)
        return await speak(one.engine, seconds)

    async def all_of_them() -> list[list[Event]]:
        await one.engine.prepare(one.engine.wanted)
        return await asyncio.gather(*(later(number) for number in range(streams)))

    return asyncio.ensure_future(all_of_them())


@pytest.mark.parametrize("fault", ["unavailable@3000", "refuses", "bug@1000", "unavailable@0"])
def test_a_canary_that_fails_is_aborted_and_its_clients_lose_nothing(fault: str) -> None:
    async def body() -> None:
        one = stage(fault)
        heard = await run_canary(one, 60)
        for events in heard:
            assert len(words(events)) == 30
            assert not any(isinstance(event, Gap) for event in events)
        assert one.engine.wanted.canary_percent == 0
        assert one.engine.tallies.canary_aborts == 1
        assert 5 <= one.canary.streams <= 25
        told = shown(one.engine)["canary"]
        assert told["verdict"] == "worse"
        assert told["in_words"].startswith("The canary is worse: errors: ")
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_canary_that_is_slow_is_aborted() -> None:
    async def body() -> None:
        one = stage()
        one.base.late_s, one.canary.late_s = 0.4, 0.7
        await run_canary(one, 120)
        assert one.engine.wanted.canary_percent == 0
        assert "latency" in one.engine.wanted.reason
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_canary_that_leaves_words_out_is_aborted() -> None:
    async def body() -> None:
        one = stage()
        one.canary.drops = 1
        await run_canary(one, 120)
        assert one.engine.wanted.canary_percent == 0
        assert "words per minute" in one.engine.wanted.reason
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_canary_that_hangs_is_noticed_while_its_streams_are_open() -> None:
    """A recognizer's own patience ends the attempt; no stream has to end for that."""

    async def body() -> None:
        one = stage()
        one.canary.fault = "hang"
        inner = one.canary.stream

        async def impatient(audio: AsyncIterable[AudioInput], options: Options) -> AsyncGenerator[Event]:
            events = inner(audio, options)
            try:
                async with asyncio.timeout(8):
                    async for event in events:
                        yield event
            except TimeoutError:
                raise ASRError(Code.TIMEOUT, "The recognizer says nothing.") from None
            finally:
                await events.aclose()

        one.canary.stream = impatient  # type: ignore[method-assign]
        running = run_canary(one, 40, seconds=300.0)
        await asyncio.sleep(60)
        assert one.engine.wanted.canary_percent == 0
        assert one.engine.comparison is not None
        assert one.engine.comparison.base.streams == 0, "all of them are still open"
        heard = await running
        assert all(len(words(events)) == 1500 for events in heard)
        await one.engine.aclose()

    virtual_time.run(body())


def test_a_good_canary_is_called_good_and_nothing_more() -> None:
    async def body() -> None:
        one = stage()
        dice = random.Random(5)
        one.engine.apply(Wanted(canary_percent=50))
        await one.engine.prepare(one.engine.wanted)
        for _ in range(60):
            one.base.late_s = one.canary.late_s = dice.uniform(0.3, 0.6)
            await asyncio.gather(*(speak(one.engine, 6.0) for _ in range(10)))
        told = shown(one.engine)
        assert told["canary"]["verdict"] == "good", told
        assert (told["canary_percent"], told["aborts"]) == (50, 0)
        one.engine.apply(Wanted(canary_percent=60))
        assert shown(one.engine)["canary"]["arms"]["canary"]["streams"] == 0, "a new step is judged by itself"
        await one.engine.aclose()

    virtual_time.run(body())


def test_clients_that_leave_or_send_nonsense_are_no_failures_of_a_canary() -> None:
    async def body() -> None:
        one = stage()
        one.engine.apply(Wanted(canary_percent=100))
        await one.engine.prepare(one.engine.wanted)

        async def broken() -> AsyncGenerator[AudioInput]:
            yield CHUNK
            raise ASRError(Code.BAD_AUDIO, "This is no audio.")

        with pytest.raises(ASRError, match="no audio"):
            async for _ in one.engine.stream(broken(), OPTIONS):
                pass
        pipe = AudioPipe(Ahead(10**9))
        pipe.put(CHUNK * 5)
        events = one.engine.stream(pipe, OPTIONS)
        await anext(events)
        await events.aclose()
        counts = one.engine.tallies.canary_streams
        assert counts == {("canary", "client_error"): 1, ("canary", "gone"): 1}
        await one.engine.aclose()

    virtual_time.run(body())


# --- the switch


def test_off_refuses_new_streams_and_cuts_none() -> None:
    async def body() -> None:
        one = stage()
        under_way = asyncio.create_task(speak(one.engine, 6.0))
        await asyncio.sleep(1)
        one.engine.apply(Wanted(Position.OFF, reason="tea"))
        refused = one.engine.refusal()
        assert isinstance(refused, SwitchedOff)
        assert (refused.code, refused.retry_after_ms) == (Code.UNAVAILABLE, 30_000)
        assert refused.message == "Transcription is switched off by the operator (tea). Try again later."
        assert not (await one.engine.ready()).ready
        with pytest.raises(ASRError, match="switched off"):
            await speak(one.engine, 1.0)
        one.engine.apply(Wanted())
        assert (await one.engine.ready()).ready
        assert len(words(await under_way)) == 30
        await one.engine.aclose()

    virtual_time.run(body())


def test_former_takes_new_streams_and_the_base_keeps_its_own() -> None:
    async def body() -> None:
        one = stage()
        under_way = asyncio.create_task(speak(one.engine, 6.0))
        await asyncio.sleep(1)
        one.engine.apply(Wanted(Position.FORMER, canary_percent=50))
        assert one.engine.name == "former"
        assert len(words(await speak(one.engine, 2.0))) == 10
        assert (one.base.streams, one.former.streams, one.canary.streams) == (1, 1, 0)
        assert len(words(await under_way)) == 30
        await one.engine.aclose()
        assert one.former.closed

    virtual_time.run(body())


def test_jobs_wait_for_as_long_as_it_is_off() -> None:
    async def body() -> None:
        one = stage()
        one.engine.apply(Wanted(Position.OFF))
        admission = Admission(
            10, random=random.random, clock=asyncio.get_running_loop().time, engine_refusal=one.engine.refusal
        )
        patient = PatientEngine(one.engine, admission, Telemetry(), patience_ms=60_000)
        pipe = AudioPipe(Ahead(10**9))
        pipe.put(CHUNK * 5)
        pipe.end()

        async def job() -> list[Event]:
            return [event async for event in patient.stream(pipe, OPTIONS)]

        waiting = asyncio.create_task(job())
        await asyncio.sleep(3600)
        assert not waiting.done()
        one.engine.apply(Wanted())
        assert len(words(await waiting)) == 5
        await one.engine.aclose()

    virtual_time.run(body())


# --- settings


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ASR_SWITCH": "former"}, "ASR_SWITCH: There is no former recognizer"),
        ({"ASR_CANARY_PERCENT": "5"}, "ASR_CANARY_PERCENT: There is no canary"),
        ({"RIVA_CANARY_ENDPOINTS": "a:b:c:"}, "RIVA_CANARY_ENDPOINTS: "),
        ({"RIVA_CANARY_ENDPOINTS": "a:1,a:1"}, "RIVA_CANARY_ENDPOINTS: endpoint 2: a:1 is named before"),
        ({"RIVA_FORMER_ENDPOINTS": "riva.example:50051", "RIVA_API_KEY": "k3y"}, "unencrypted"),
        ({"RIVA_FORMER_ENDPOINTS": "grpcs://a:1", "RIVA_SSL": "off"}, "RIVA_FORMER_ENDPOINTS has a grpcs://"),
    ],
)
def test_settings_that_cannot_be_followed(tmp_path: Path, given: dict[str, str], words: str) -> None:
    env = {"ASR_ENGINE": "mock", "STATE_DIR": str(tmp_path), **given}
    settings = load_settings(ServerSettings, env=env, env_file=None)
    with pytest.raises(ASRError) as caught:
        build_rollout(settings)
    assert caught.value.code is Code.BAD_REQUEST
    assert words in caught.value.message
    assert "k3y" not in caught.value.message


async def test_every_engine_is_set_up_as_the_usual_one(tmp_path: Path) -> None:
    env = {
        "RIVA_ENDPOINTS": "a:1",
        "RIVA_FORMER_ENDPOINTS": "b:1,c:1",
        "RIVA_CANARY_ENDPOINTS": "d:1,e:1",
        "RIVA_FIRST_RESPONSE_TIMEOUT_MS": "1234",
        "ASR_SILENCE_GATE": "on",
        "STATE_DIR": str(tmp_path),
    }
    steer = build_rollout(load_settings(ServerSettings, env=env, env_file=None))
    steer.engine.apply(Wanted(Position.FORMER, canary_percent=1))
    assert steer.engine.name == "riva"
    assert [row["name"] for row in steer.engine.endpoints()] == ["1", "canary-1", "canary-2", "former-1", "former-2"]
    await steer.aclose()
    await steer.engine.aclose()


# --- the state file


@pytest.fixture
def logs() -> Iterator[list[dict[str, object]]]:
    with structlog.testing.capture_logs() as lines:
        yield lines  # type: ignore[misc]


def control(one: Stage, path: Path, configured: Wanted | None = None) -> Control:
    return Control(one.engine, path, configured or Wanted(), utc_now=lambda: datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))


async def test_a_change_is_applied_saved_and_told(tmp_path: Path, logs: list[dict[str, object]]) -> None:
    one = stage()
    path = tmp_path / "deep" / "rollout.json"
    steer = control(one, path)
    await steer.start()
    assert await steer.change(canary_percent=5, by="key 1", reason=" on\ntrial \x1b[0m") == ""
    saved = json.loads(path.read_text())
    assert saved == {
        "position": "on",
        "canary_percent": 5,
        "changed_at": "2026-01-02T03:04:05Z",
        "by": "key 1",
        "reason": "on trial [0m",
    }
    assert path.stat().st_mode & 0o777 == 0o644
    assert [other.name for other in path.parent.iterdir()] == ["rollout.json"]
    told = next(line for line in logs if line["event"] == "rollout changed")
    assert (told["by"], told["canary_percent_before"], told["canary_percent"]) == ("key 1", 0, 5)
    await steer.aclose()
    await one.engine.aclose()


async def test_what_cannot_be_done_changes_nothing(tmp_path: Path) -> None:
    base = Named("base")
    engine = RolloutEngine(base)
    steer = Control(engine, tmp_path / "rollout.json", Wanted(), utc_now=lambda: datetime.now(UTC))
    for asked in ({"position": Position.FORMER}, {"canary_percent": 1}):
        with pytest.raises(ASRError) as caught:
            await steer.change(**asked, by="me", reason="")  # type: ignore[arg-type]
        assert caught.value.code is Code.BAD_REQUEST
    assert engine.wanted == Wanted()
    assert not (tmp_path / "rollout.json").exists()
    with pytest.raises(ASRError):
        Control(engine, tmp_path / "rollout.json", Wanted(Position.FORMER), utc_now=lambda: datetime.now(UTC))
    await steer.aclose()
    await engine.aclose()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(2):
        while not holds():
            await asyncio.sleep(0.005)


async def test_the_file_wins_and_a_bad_one_keeps_what_holds(tmp_path: Path, logs: list[dict[str, object]]) -> None:
    """Mounted as Kubernetes mounts a ConfigMap: two links, the first of which is exchanged."""
    for name, text in (("a", '{"position": "off", "by": "git"}'), ("b", '{"position": "former"}'), ("c", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rollout.json").write_text(text)
    (tmp_path / "rollout.json").symlink_to("..data/rollout.json")
    data = tmp_path / "..data"
    data.symlink_to("a")

    def turn_to(folder: str) -> None:
        (tmp_path / "..next").symlink_to(folder)
        (tmp_path / "..next").rename(data)

    one = stage()
    steer = control(one, tmp_path / "rollout.json", Wanted(canary_percent=7))
    steer._interval_s = 0.01
    await steer.start()
    assert (one.engine.wanted.position, one.engine.wanted.canary_percent) == (Position.OFF, 7)
    turn_to("c")
    await until(lambda: any(line["event"] == "rollout file not used" for line in logs))
    turn_to("b")
    await until(lambda: one.engine.wanted.position is Position.FORMER)
    data.unlink()
    await asyncio.sleep(0.03)
    assert one.engine.wanted.position is Position.FORMER
    assert sum(line["event"] == "rollout file not used" for line in logs) == 1, "it is complained of once"
    turn_to("a")
    await until(lambda: one.engine.wanted.position is Position.OFF)
    assert await steer.change(position=Position.ON, by="me", reason="") == ""
    assert (tmp_path / "rollout.json").is_symlink()
    assert json.loads((tmp_path / "a" / "rollout.json").read_text())["position"] == "on"
    await steer.aclose()
    await one.engine.aclose()


async def test_off_is_heard_whatever_else_the_file_says(tmp_path: Path, logs: list[dict[str, object]]) -> None:
    engine = RolloutEngine(Named("base"))
    path = tmp_path / "rollout.json"
    path.write_text('{"position": "off", "canary_percent": 100}')
    steer = Control(engine, path, Wanted(), utc_now=lambda: datetime.now(UTC), interval_s=0.01)
    await steer.start()
    assert (engine.wanted.position, engine.wanted.canary_percent) == (Position.OFF, 0)
    assert any("There is no canary" in str(line.get("reason")) for line in logs)
    path.write_text('{"position": "former"}')
    await until(lambda: any("no former" in str(line.get("reason")) for line in logs))
    assert engine.wanted.position is Position.OFF
    await steer.aclose()
    await engine.aclose()


async def test_what_cannot_be_saved_holds_all_the_same(tmp_path: Path) -> None:
    one = stage()
    (tmp_path / "no-folder").write_text("")
    steer = control(one, tmp_path / "no-folder" / "rollout.json")
    steer._interval_s = 0.01
    await steer.start()
    note = await steer.change(position=Position.OFF, by="me", reason="")
    assert "could not be saved" in note
    await asyncio.sleep(0.05)
    assert one.engine.wanted.position is Position.OFF
    await steer.aclose()
    await one.engine.aclose()


async def test_a_file_that_is_read_only_does_not_bring_an_aborted_canary_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    def refuse(path: Path, data: bytes) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("server.rollout.control._write", refuse)
    (tmp_path / "rollout.json").write_text('{"canary_percent": 10}')
    one = stage()
    steer = control(one, tmp_path / "rollout.json")
    steer._interval_s = 0.01
    await steer.start()
    assert one.engine.wanted.canary_percent == 10
    abort(one)
    await until(lambda: any(line["event"] == "rollout not saved" for line in logs))
    await asyncio.sleep(0.05)
    assert one.engine.wanted.canary_percent == 0
    await steer.aclose()
    await one.engine.aclose()


async def test_a_disk_that_hangs_keeps_nobody_from_switching_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = threading.Event()
    one = stage()
    steer = control(one, tmp_path / "rollout.json")
    await steer.start()
    monkeypatch.setattr("server.rollout.control._write", lambda path, data: back.wait(5))
    monkeypatch.setattr("server.rollout.control.SAVE_S", 0.1)
    note = await steer.change(position=Position.OFF, by="me", reason="")
    assert "could not be saved" in note
    assert one.engine.refusal() is not None
    back.set()
    await steer.aclose()
    await one.engine.aclose()


async def test_a_disk_that_hangs_keeps_no_gateway_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logs: list[dict[str, object]]
) -> None:
    back = threading.Event()

    def hang(path: Path) -> bytes:
        back.wait(5)
        return b'{"position": "off"}'

    monkeypatch.setattr("server.rollout.control._read", hang)
    monkeypatch.setattr("server.rollout.control.FIRST_READ_S", 0.1)
    one = stage()
    steer = control(one, tmp_path / "rollout.json")
    async with asyncio.timeout(2):
        await steer.start()
    assert one.engine.refusal() is None
    assert any("could not be read within" in str(line.get("reason")) for line in logs)
    back.set()
    await until(lambda: one.engine.refusal() is not None)
    await steer.aclose()
    await one.engine.aclose()


class Slow(Named):
    """A recognizer that takes its time to say whether it is ready."""

    def __init__(self) -> None:
        super().__init__("former")
        self.asked, self.may = asyncio.Event(), asyncio.Event()

    async def ready(self) -> Readiness:
        self.asked.set()
        await self.may.wait()
        return Readiness(True)


@pytest.mark.parametrize("by_file", [False, True])
async def test_what_was_asked_for_before_does_not_undo_what_was_asked_for_since(tmp_path: Path, by_file: bool) -> None:
    """Somebody goes back to a recognizer that is slow to answer, then switches off: off it stays."""
    former = Slow()
    engine = RolloutEngine(Named("base"), make_former=lambda: former)
    path = tmp_path / "rollout.json"
    steer = Control(engine, path, Wanted(), utc_now=lambda: datetime.now(UTC), interval_s=0.01)
    await steer.start()
    first = None
    if by_file:
        path.write_text('{"position": "former"}')
    else:
        first = asyncio.create_task(steer.change(position=Position.FORMER, by="one", reason=""))
    await asyncio.wait_for(former.asked.wait(), 2)
    assert await steer.change(position=Position.OFF, by="two", reason="") == ""
    former.may.set()
    if first is not None:
        assert "Another change came in between" in await first
    await asyncio.sleep(0.05)
    assert (engine.wanted.position, engine.wanted.by) == (Position.OFF, "two")
    assert json.loads(path.read_text())["by"] == "two"
    await steer.aclose()
    await engine.aclose()


def abort(one: Stage) -> None:
    """As its watch does, after ten failures."""
    comparison = one.engine.comparison
    assert comparison is not None
    for _ in range(10):
        comparison.failed(Lot(True, 0.1, comparison.step), spoke=True)
    one.engine.look()


async def test_an_abort_is_written_down(tmp_path: Path) -> None:
    one = stage()
    steer = control(one, tmp_path / "rollout.json")
    await steer.start()
    await steer.change(canary_percent=10, by="me", reason="")
    abort(one)
    assert one.engine.wanted.canary_percent == 0
    await until(lambda: json.loads((tmp_path / "rollout.json").read_text())["canary_percent"] == 0)
    assert json.loads((tmp_path / "rollout.json").read_text())["by"] == "the canary watch"
    await steer.aclose()
    await one.engine.aclose()
