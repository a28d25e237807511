"""The blocking twin of the client, and the thread that reads for it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

import speech
from asr import SyncRivaASRClient
from asr.errors import ASRError
from asr.events import Final
from asr.pulling import pull
from timing import in_time
from word_engine import WordEngine


def pcm(ms: int) -> bytes:
    return bytes(32 * ms)


def texts(events: list[Any]) -> list[str]:
    return [event.text for event in events if isinstance(event, Final)]


# --- pulling


async def test_pull_asks_for_an_item_only_when_it_is_wanted() -> None:
    asked: list[int] = []
    closed = threading.Event()

    def numbers() -> Iterator[int]:
        try:
            for number in range(100):
                asked.append(number)
                yield number
        finally:
            closed.set()

    items = pull(numbers)
    assert [await anext(items), await anext(items)] == [0, 1]
    await items.aclose()
    assert (asked, closed.is_set()) == ([0, 1], True)


async def test_pull_passes_failures_on_and_ends() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise LookupError("gone")

    items = pull(broken)
    assert await anext(items) == 1
    with pytest.raises(LookupError, match="gone"):
        await anext(items)
    assert [item async for item in pull(lambda: [1, 2])] == [1, 2]
    assert not [thread for thread in threading.enumerate() if thread.name == "asr-audio"]


async def test_a_stop_iteration_outside_of_next_is_a_failure() -> None:
    def unfit() -> Iterator[int]:
        return iter([next(iter([]))])

    with pytest.raises(RuntimeError, match="StopIteration"):
        async with asyncio.timeout(5):
            await anext(pull(unfit))


# --- the blocking twin


def test_the_twin_does_the_same() -> None:
    with SyncRivaASRClient(engine=WordEngine()) as client:
        assert client.engine_name == "words"
        assert client.health().ready
        assert len(client.models()) == 2
        assert texts(list(client.stream_transcribe([pcm(700), pcm(700)]))) == ["w1 w2 w3 w4 w5", "w6 w7"]
        seen: list[str] = []
        transcript = client.transcribe_file(
            speech.path("greeting.wav"), on_progress=lambda *_: seen.append(threading.current_thread().name)
        )
        assert client.transcribe_file(speech.path("greeting.wav")) == transcript
        assert set(seen) == {threading.current_thread().name}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asr-")]
    with pytest.raises(ASRError, match="The client is closed"):
        client.models()


def test_events_come_while_the_audio_waits() -> None:
    more = threading.Event()

    def microphone() -> Iterator[bytes]:
        yield pcm(1000)
        assert more.wait(10)

    with SyncRivaASRClient(engine=WordEngine()) as client:
        events = client.stream_transcribe(microphone())
        heard = next(event for event in events if isinstance(event, Final))
        assert heard.text == "w1 w2 w3 w4 w5"
        more.set()
        assert list(events) == []


def test_leaving_the_loop_ends_the_stream() -> None:
    closed = threading.Event()

    def endless() -> Iterator[bytes]:
        try:
            while True:
                yield pcm(100)
        finally:
            closed.set()

    engine = WordEngine()
    with SyncRivaASRClient(engine=engine) as client:
        events = client.stream_transcribe(endless())
        next(events)
        events.close()
        assert closed.is_set()
        assert engine.open_streams == 0


def test_failures_come_through_the_twin() -> None:
    def broken() -> Iterator[bytes]:
        yield pcm(100)
        raise LookupError("gone")

    with SyncRivaASRClient(engine=WordEngine()) as client:
        with pytest.raises(LookupError, match="gone"):
            list(client.stream_transcribe(broken()))
        with pytest.raises(ASRError, match=r"\[piece\]"):
            client.stream_transcribe(pcm(100))  # type: ignore[arg-type]
        with pytest.raises(ASRError, match="no file"):
            client.transcribe_file("none.wav", on_progress=lambda *_: None)
        with pytest.raises(ZeroDivisionError):
            client.transcribe_file(speech.path("greeting.wav"), on_progress=lambda *_: 1 // 0)


def test_a_client_that_is_collected_on_its_own_thread_ends_without_waiting_for_itself() -> None:
    class Holder:
        client: SyncRivaASRClient
        itself: Holder

    gc.disable()
    try:
        holder = Holder()
        holder.itself = holder
        holder.client = SyncRivaASRClient(engine=WordEngine())
        holder.client.models()
        loop, thread = holder.client._background._loop, holder.client._background._thread
        assert loop is not None
        assert thread is not None
        del holder
        loop.call_soon_threadsafe(gc.collect)
        thread.join(5)
        assert not thread.is_alive()
        assert loop.is_closed()
    finally:
        gc.enable()


def test_closing_while_another_thread_waits_frees_it() -> None:
    client = SyncRivaASRClient(engine=WordEngine("hang@100"))
    caught: list[BaseException] = []
    waiting = threading.Event()

    def listen() -> None:
        try:
            for _ in client.stream_transcribe(iter([pcm(300)]), all_events=True):
                waiting.set()
        except BaseException as error:
            caught.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    assert waiting.wait(10)
    client.close()
    thread.join(10)
    assert [type(error) for error in caught] == [ASRError]


def run_script(code: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_a_script_that_forgets_to_close_ends_cleanly() -> None:
    code = (
        "from asr import SyncRivaASRClient\n"
        "client = SyncRivaASRClient(mock_mode=True)\n"
        "def forever():\n"
        "    while True: yield b'\\0\\x40\\0\\xc0' * 800\n"
        "events = client.stream_transcribe(forever())\n"
        "print(type(next(events)).__name__)\n"
    )
    begin = time.monotonic()
    assert run_script(code) == (0, "Partial\n", "")
    in_time(time.monotonic() - begin, 8)


def test_ctrl_c_interrupts_a_wait() -> None:
    code = (
        "import os, signal, threading\n"
        "from asr import SyncRivaASRClient\n"
        "def silent():\n"
        "    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()\n"
        "    yield bytes(320)\n"
        "    threading.Event().wait()\n"
        "try:\n"
        "    with SyncRivaASRClient(mock_mode=True) as client:\n"
        "        list(client.stream_transcribe(silent()))\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted')\n"
    )
    begin = time.monotonic()
    assert run_script(code) == (0, "interrupted\n", "")
    in_time(time.monotonic() - begin, 8)
