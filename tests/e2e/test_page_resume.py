"""The browser page and its connection: lost, half open, refused; and the transcript that is whole all the same."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from e2e.browser import Visit, chromium, visit
from e2e.page import CONTRAST, idle, notice, tone_wav
from e2e.page_relay import Relay, relay
from e2e.page_server import page_server
from e2e.page_sessions import BYTES_PER_MS, WORD_MS, WORDS, Gateway, Held

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    """A browser whose microphone plays 60 s of one tone."""
    speech = tone_wav(tmp_path_factory.mktemp("page") / "tone.wav", seconds=60)
    async with chromium(speech=speech) as running:
        yield running


# What is recorded, byte for byte, to be compared with what the server heard.
EAVESDROP = """async () => {
  const { KeptAudio } = await import("/kept.js");
  const push = KeptAudio.prototype.push;
  window.recorded = [];
  KeptAudio.prototype.push = function (pcm) {
    window.recorded.push(new Uint8Array(pcm instanceof Uint8Array ? pcm.slice() : pcm.slice(0)));
    return push.call(this, pcm);
  };
}"""
RECORDED = """async () => {
  const blob = new Blob(window.recorded);
  const url = await new Promise((resolve) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.readAsDataURL(blob);
  });
  return url.slice(url.indexOf(",") + 1);
}"""


async def recorded(page: Page) -> bytes:
    return base64.b64decode(await page.evaluate(RECORDED))


class Scene:
    """The page before a scripted gateway, with a network between them."""

    def __init__(self, seen: Visit, gateway: Gateway, network: Relay) -> None:
        self.seen, self.page, self.gateway, self.network = seen, seen.page, gateway, network

    @property
    def held(self) -> Held:
        return self.gateway.sessions[-1]

    async def heard(self, ms: int) -> None:
        """Wait until the newest session has this much audio."""
        async with asyncio.timeout(20):
            while not self.gateway.sessions or len(self.held.audio) < ms * BYTES_PER_MS:
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        await self.page.click("#talk")
        await idle(self.page)

    async def words(self) -> list[str]:
        return " ".join(await self.page.locator("#finals .words").all_inner_texts()).split()

    def assert_clean(self) -> None:
        """As of the visit; that a connection failed is written to the console by the browser itself."""
        self.seen.console[:] = [line for line in self.seen.console if "WebSocket" not in line]
        self.seen.assert_clean()


@asynccontextmanager
async def scene(browser: Browser, **context: Any) -> AsyncIterator[Scene]:
    gateway = Gateway()
    async with (
        page_server(gateway) as server,
        relay(int(server.url.rsplit(":", 1)[1].strip("/"))) as network,
        visit(browser, network.url, **context) as seen,
    ):
        await seen.page.evaluate(EAVESDROP)
        yield Scene(seen, gateway, network)


def spoken(held: Held, *, after: int = 0) -> list[str]:
    """All the words of a session's audio."""
    return [f"s{held.number}w{n + 1}" for n in range(after, len(held.audio) // (WORD_MS * BYTES_PER_MS))]


async def test_a_cut_connection_comes_back_by_itself_and_nothing_is_lost_or_doubled(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        for ms in (1_300, 2_600):
            await here.heard(ms)
            here.gateway.mute = True
            await asyncio.sleep(0.3)  # what is sent now is lost on its way
            here.gateway.mute = False
            here.network.cut()
            await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
            await expect(page.locator("#connection")).to_have_text("Live")
            await expect(page.locator("body")).to_have_attribute("data-mode", "live")
        await here.heard(4_000)
        await here.stop()
        assert bytes(here.held.audio) == await recorded(page)
        assert await here.words() == spoken(here.held)
        assert [first["type"] for first in here.gateway.firsts] == ["start", "resume", "resume"]
        assert [first.get("resume_token") for first in here.gateway.firsts[1:]] == ["token-1-0", "token-1-1"]
        await expect(page.locator(".notice")).to_have_count(0)
        await expect(page.locator(".unfinished")).to_have_count(0)
        here.assert_clean()


async def test_a_connection_that_went_dead_is_noticed_and_replaced(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.clock.install()
        await page.click("#talk")
        await here.heard(1_000)
        here.network.dead = True
        await asyncio.sleep(0.5)  # what the server had said before is on its way
        await page.clock.fast_forward(7_000)
        await expect(page.locator("#connection")).to_have_text("Live")
        await page.clock.fast_forward(1_500)
        await expect(page.locator("#state")).to_contain_text("Reconnecting… your words are kept")
        here.network.dead = False
        here.network.cut()
        await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
        await here.heard(2_500)
        await here.stop()
        assert bytes(here.held.audio) == await recorded(page)
        assert await here.words() == spoken(here.held)
        here.assert_clean()


@pytest.mark.parametrize("refusal", ["forgotten", "expired"])
async def test_a_gateway_that_knows_the_session_no_more_is_given_the_audio_that_has_no_text(
    browser: Browser, refusal: str
) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        await here.heard(2_600)
        await expect(page.locator(".partial")).to_contain_text("s1w9")
        if refusal == "forgotten":
            here.gateway.forget()
        else:
            here.gateway.refuse = [("expired", 4410, None)]
        here.network.cut()
        await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
        await here.heard(1_600)
        await expect(page.locator(".partial")).to_contain_text("s2w5")
        await here.stop()
        first, second = here.gateway.sessions
        assert [f["type"] for f in here.gateway.firsts] == ["start", "resume", "start"]
        assert here.gateway.paths[-1] == "/v1/stream"
        everything = await recorded(page)
        finals = len(first.audio) // (WORDS * WORD_MS * BYTES_PER_MS)
        base_ms = finals * WORDS * WORD_MS
        assert bytes(second.audio) == everything[base_ms * BYTES_PER_MS :]
        assert await here.words() == [*spoken(first)[: finals * WORDS], *spoken(second)]
        # One clock: each line begins where the one before it ended.
        starts = await page.locator("#finals .utterance").evaluate_all(
            "(rows) => rows.map((row) => Number(row.querySelector('.word').dataset.start))"
        )
        assert starts == [n * WORDS * WORD_MS for n in range(len(starts))]
        await expect(page.locator(".unfinished, .gap, .notice")).to_have_count(0)
        here.assert_clean()


async def test_a_stop_while_the_server_is_away_waits_for_it(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        await here.heard(1_200)
        here.network.down()
        await expect(page.locator("#state")).to_have_text("Reconnecting… your words are kept (1 s)")
        await expect(page.locator("#connection")).to_have_text("Reconnecting")
        await page.click("#talk")
        await expect(page.locator("body")).to_have_attribute("data-mode", "finishing")
        await here.network.up()
        await idle(page)
        assert bytes(here.held.audio) == await recorded(page)
        assert await here.words() == spoken(here.held)
        await expect(page.locator("#state")).to_have_text("Stopped. Press Start to go on.")
        here.assert_clean()


async def test_a_connection_lost_between_the_stop_and_the_last_words(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        await here.heard(1_200)
        here.gateway.mute = True
        await page.click("#talk")
        await expect(page.locator("body")).to_have_attribute("data-mode", "finishing")
        here.gateway.mute = False
        here.network.cut()
        await idle(page)
        assert bytes(here.held.audio) == await recorded(page)
        assert await here.words() == spoken(here.held)
        await expect(page.locator(".notice")).to_have_count(0)
        here.assert_clean()


async def test_it_comes_back_as_soon_as_the_browser_is_online(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.evaluate("Math.random = () => 1")  # the longest waits: 0.25, 0.5, 1, 2, 4 s
        await page.click("#talk")
        await here.heard(500)
        here.network.down()
        await expect(page.locator("#state")).to_contain_text("(4 s)")
        await here.network.up()
        await page.evaluate("window.dispatchEvent(new Event('online'))")
        await expect(page.locator("#state")).to_have_text("Back: nothing was lost.", timeout=1_500)
        await here.stop()
        assert bytes(here.held.audio) == await recorded(page)
        here.assert_clean()


SHORT_MEMORY = """async () => {
  const { KeptAudio } = await import("/kept.js");
  const trim = KeptAudio.prototype.trim;
  KeptAudio.prototype.trim = function (max, needed) { return trim.call(this, 32000, needed); };
}"""


@pytest.mark.parametrize("known", [True, False], ids=["resumed", "restarted"])
async def test_what_could_not_be_kept_is_a_hole_with_its_times(browser: Browser, known: bool) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.evaluate(SHORT_MEMORY)
        await page.click("#talk")
        await here.heard(1_600)
        if not known:
            here.gateway.forget()
        here.network.down()
        await expect(page.locator("#elapsed")).to_have_text("0:05")
        await here.network.up()
        await expect(page.locator("#state")).to_contain_text("could not be kept; the place is marked.")
        await expect(page.locator(".gap")).to_have_count(1)
        await expect(page.locator(".gap")).to_contain_text("0:01 – 0:0")
        await expect(page.locator(".gap")).to_contain_text("of sound are missing. They could not be kept")
        await asyncio.sleep(1.5)
        await here.stop()
        everything = await recorded(page)
        if known:
            heard = bytes(here.held.audio)
            assert len(heard) == len(everything), "silence stands for what is missing: the clock goes on"
            hole = heard.index(bytes(3_200), 1_000 * BYTES_PER_MS)
            end = hole + len(heard[hole:]) - len(heard[hole:].lstrip(b"\0"))
            assert heard[:hole] == everything[:hole]
            assert heard[end:] == everything[end:]
        else:
            second = bytes(here.held.audio)
            assert everything.endswith(second)
            assert len(second) < len(everything) - len(here.gateway.sessions[0].audio)
            await expect(page.locator(".unfinished")).to_have_count(1)
        rows = await page.locator("#finals .utterance").evaluate_all("(all) => all.map((row) => row.className)")
        assert "utterance gap" in rows[1:-1], "it stands between what was said before and after"
        here.assert_clean()


async def test_a_session_that_goes_on_in_another_window_stops_here(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        await here.heard(1_100)
        await here.gateway.end(4409)
        await expect(notice(page, "taken")).to_contain_text("This session goes on in another window")
        await idle(page)
        await expect(page.locator("#state")).to_have_text("Stopped here. The session goes on in another window.")
        await asyncio.sleep(0.6)
        assert len(here.gateway.firsts) == 1
        here.assert_clean()


@pytest.mark.parametrize("code", [1001, 1011, 1012, 4408, 4499])
async def test_closes_after_which_it_comes_back(browser: Browser, code: int) -> None:
    async with scene(browser) as here:
        await here.page.click("#talk")
        await here.heard(600)
        await here.gateway.end(code)
        await expect(here.page.locator("#state")).to_have_text("Back: nothing was lost.")
        await here.stop()
        assert bytes(here.held.audio) == await recorded(here.page)
        here.assert_clean()


async def test_a_server_that_breaks_again_and_again_is_left_alone(browser: Browser) -> None:
    async with scene(browser) as here:
        await here.page.click("#talk")
        await here.heard(300)
        here.gateway.refuse = [("internal", 1011, None)] * 9
        here.network.cut()
        await expect(here.page.locator(".notice[data-tone=problem]")).to_contain_text("Refused: internal.")
        await idle(here.page)
        assert len(here.gateway.firsts) == 4
        here.assert_clean()


@pytest.mark.parametrize("when", ["start", "resume"])
async def test_a_full_server_is_waited_for(browser: Browser, when: str) -> None:
    async with scene(browser) as here:
        page = here.page
        full: list[tuple[str, int, int | None]] = [("overloaded", 4503, 1_200), ("rate_limited", 4429, 300)]
        if when == "start":
            here.gateway.refuse = full
            await page.click("#talk")
        else:
            await page.click("#talk")
            await here.heard(600)
            here.gateway.refuse = full
            here.network.cut()
        await expect(page.locator("#state-text")).to_have_text(
            "The server is full. Trying again in 1 s; your words are kept"
        )
        await expect(page.locator("#connection")).to_have_text("Waiting")
        await here.heard(2_500)
        await expect(page.locator("#connection")).to_have_text("Live")
        await here.stop()
        assert bytes(here.held.audio) == await recorded(page)
        assert await here.words() == spoken(here.held)
        here.assert_clean()


async def test_a_server_that_stays_full_is_not_waited_for_without_end(browser: Browser) -> None:
    async with scene(browser) as here:
        here.gateway.refuse = [("overloaded", 4503, 50)] * 20
        await here.page.click("#talk")
        await expect(here.page.locator(".notice[data-tone=problem]")).to_contain_text("Refused: overloaded.")
        await idle(here.page)
        assert len(here.gateway.firsts) == 6
        here.assert_clean()


async def test_a_server_that_stays_away_is_given_up_and_the_text_is_kept(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.clock.install()
        await page.click("#talk")
        await here.heard(1_300)
        here.network.down()
        await expect(page.locator("#state")).to_contain_text("Reconnecting…")
        await page.clock.fast_forward(100_000)
        await expect(page.locator("#state")).to_contain_text("Reconnecting…")
        await page.clock.fast_forward(25_000)
        await expect(notice(page, "lost")).to_contain_text("It did not come back within 120 seconds.")
        await idle(page)
        assert await here.words() == [*spoken(here.held), "(not", "confirmed)"]
        await expect(page.get_by_role("button", name="Start again")).to_be_enabled()


async def test_a_server_that_is_restarted_goes_on_where_it_stopped(browser: Browser) -> None:
    async with scene(browser) as here:
        page, gateway = here.page, here.gateway
        await page.click("#talk")
        await here.heard(1_300)
        here.held.add("status", state="draining", deadline_ms=3_000)
        await expect(page.locator("#state")).to_have_text("The server is about to restart. Go on: your words are kept.")
        await expect(page.locator("#connection")).to_have_text("Restarting")
        here.held.stop()
        old = here.held
        await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
        assert here.held is not old
        await here.heard(1_000)
        await here.stop()
        everything = await recorded(page)
        covered = old.log[-1]["audio_ms"] * BYTES_PER_MS
        assert bytes(here.held.audio) == everything[covered:]
        assert await here.words() == [*spoken(old), *spoken(here.held)]
        assert [first["type"] for first in gateway.firsts] == ["start", "start"]
        await expect(page.locator(".notice, .gap, .unfinished")).to_have_count(0)
        here.assert_clean()


async def test_what_the_recognizer_goes_through_is_said_in_plain_words(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        await here.heard(100)
        here.gateway.sessions[0].words = 10_000  # it says nothing of its own any more
        for state, words, pill in (
            ("degraded", "The recognizer is slow just now. Nothing is lost.", "Slow"),
            ("failing_over", "The recognizer was lost. Looking for another; your words are kept.", "Switching"),
            ("recovered", "A recognizer listens again, from where the last one stopped.", "Live"),
            ("throttled", "The recognizer is full. Your words are kept until it has room.", "Waiting"),
        ):
            here.held.add("status", state=state, audio_ms=0)
            await expect(page.locator("#state")).to_have_text(words)
            await expect(page.locator("#connection")).to_have_text(pill)
        here.held.words = len(here.held.audio) // (WORD_MS * BYTES_PER_MS)
        await expect(page.locator("#state")).to_have_text("Listening. Press Stop when you are done.")
        await here.stop()


async def test_the_server_learns_what_has_arrived(browser: Browser) -> None:
    async with scene(browser) as here:
        await here.page.click("#talk")
        await here.heard(3_500)
        assert here.gateway.talk is not None
        assert here.gateway.talk.acked_seq > 5
        await here.stop()


async def test_a_file_goes_on_too(browser: Browser, tmp_path: Path) -> None:
    async with scene(browser) as here:
        page = here.page
        wav = tone_wav(tmp_path / "talk.wav", seconds=40, rate_hz=16_000)
        pcm = wav.read_bytes()[44:]
        here.gateway.mute_at_ms = 12_000
        await page.set_input_files("#file", wav)
        await here.heard(12_000)
        here.network.down()
        here.gateway.mute = False
        await expect(page.locator("#state")).to_have_text("Reconnecting… the file goes on by itself.")
        await here.network.up()
        await idle(page)
        await expect(page.locator("#state")).to_have_text("talk.wav: 40 s transcribed")
        assert bytes(here.held.audio) == pcm
        assert await here.words() == spoken(here.held)


@pytest.mark.slow
async def test_seven_seconds_without_a_network(browser: Browser) -> None:
    async with scene(browser) as here:
        page = here.page
        await page.click("#talk")
        await here.heard(2_300)
        here.network.down()
        await asyncio.sleep(7)
        await expect(page.locator("#state")).to_contain_text("Reconnecting… your words are kept (")
        await here.network.up()
        await expect(page.locator("#state")).to_have_text("Back: nothing was lost.")
        await here.heard(10_000)
        await here.stop()
        assert bytes(here.held.audio) == await recorded(page)
        assert await here.words() == spoken(here.held)
        assert len(here.gateway.sessions) == 1
        here.assert_clean()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(1280, 800), (360, 740)])
async def test_nothing_jumps_and_all_can_be_read_while_it_is_away(
    browser: Browser, scheme: str, width: int, height: int
) -> None:
    options = {"viewport": {"width": width, "height": height}, "color_scheme": scheme, "reduced_motion": "reduce"}
    async with scene(browser, **options) as here:
        page = here.page
        await page.evaluate(SHORT_MEMORY)
        await page.click("#talk")
        await here.heard(1_300)
        before = await page.locator("#page").bounding_box()
        here.network.down()
        await expect(page.locator("#state-figure")).to_have_text(" (1 s)")
        assert await page.locator("#page").bounding_box() == before
        assert await page.evaluate(CONTRAST) == []
        assert await page.locator("#state[role=status] #state-figure[aria-hidden=true]").count() == 1
        await expect(page.locator("#elapsed")).to_have_text("0:04")
        await here.network.up()
        await expect(page.locator(".gap")).to_be_visible()
        assert await page.locator("#page").bounding_box() == before
        assert await page.evaluate(CONTRAST) == []
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        await here.stop()
        here.assert_clean()
