"""The page's memory of a conversation (`kept.js`, `resume.js`), run inside Chromium without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Page

from e2e.browser import chromium, visit
from e2e.page import nobody
from e2e.page_server import page_server

pytestmark = [pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]

MS = 32  # bytes


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page() -> AsyncIterator[Page]:
    async with page_server(nobody) as server, chromium() as browser, visit(browser, server.url) as seen:
        yield seen.page
        seen.assert_clean()


# Plays steps [method, argument] on a Thread that keeps `kept` ms; what each returned, frames as [first byte, length].
PLAY = """async ([kept, steps]) => {
  const { Thread } = await import("/resume.js");
  const thread = new Thread(kept);
  let recorded = 0;
  const seen = [];
  for (const [what, given] of steps) {
    if (what === "record") {
      // Each 10 ms carry their own number, so that it can be told where a frame comes from.
      for (let i = 0; i < given; i += 10) thread.record(new Uint8Array(320).fill((recorded += 1) % 251));
    } else if (what === "send") {
      for (let n = 0, frame; (given === null || n < given) && (frame = thread.next(320)); n += 1) {
        seen.push([frame[0], frame.byteLength]);
      }
    } else if (what === "get") seen.push(thread[given]);
    else seen.push(thread[what](given));
  }
  return seen;
}"""


async def play(page: Page, *steps: tuple[str, Any], kept: int = 60_000) -> list[Any]:
    return list(await page.evaluate(PLAY, [kept, steps]))


def ready(seq: int = 1, **fields: Any) -> tuple[str, dict[str, Any]]:
    return ("ready", {"type": "ready", "seq": seq, "session_id": "a b", "resume_token": "t", **fields})


def final(seq: int, end_ms: int, u: int = 0) -> tuple[str, dict[str, Any]]:
    word = {"w": "x", "start_ms": end_ms - 10, "end_ms": end_ms}
    said = {"type": "final", "seq": seq, "utterance_id": f"u{u}", "start_ms": end_ms - 10, "end_ms": end_ms}
    return ("take", {**said, "text": "x", "words": [word]})


async def test_audio_is_sent_once_in_order_and_again_from_where_the_server_says(page: Page) -> None:
    resumed = {"type": "resumed", "seq": 1, "resume_token": "t2", "from_bytes": 320, "lost_ms": 0}
    seen = await play(
        page,
        ("record", 30),
        ready(),
        ("send", 2),
        ("lost", None),
        ("get", "query"),
        ("opening", None),
        ("record", 10),
        ("strange", resumed),
        ("resumed", resumed),
        ("send", None),
        ("opening", None),
    )
    asked = {"type": "resume", "session_id": "a b", "resume_token": "t", "last_seq": 1, "sent_bytes": 640}
    assert seen == [
        None,
        [1, 320],
        [2, 320],
        None,
        "?session=a%20b",
        asked,
        False,
        [],
        [2, 320],
        [3, 320],
        [4, 320],
        {**asked, "resume_token": "t2", "sent_bytes": 1280},
    ]


async def test_what_is_safe_is_let_go_and_nothing_else(page: Page) -> None:
    ack = {"type": "ack", "seq": 2, "received_bytes": 960, "received_ms": 30, "safe_bytes": 400}
    back = {"type": "resumed", "seq": 2, "from_bytes": 400, "lost_ms": 0}
    seen = await play(page, ("record", 40), ready(), ("send", 3), ("take", ack), ("resumed", back), ("send", None))
    assert [frame for frame in seen[5:] if isinstance(frame, list)] == [[], [2, 240], [3, 320], [4, 320]]


async def test_a_minute_is_kept_and_the_rest_becomes_silence_and_a_gap(page: Page) -> None:
    back = {"type": "resumed", "seq": 1, "from_bytes": 320, "lost_ms": 0}
    seen = await play(
        page,
        ("record", 10),
        ready(),
        ("send", None),
        ("lost", None),
        ("record", 80),
        ("resumed", back),
        ("send", 4),
        kept=60,
    )
    assert seen[3] == [{"type": "gap", "start_ms": 10, "end_ms": 30, "cause": "buffer_overrun", "channel": 0}]
    assert seen[4:] == [[0, 320], [0, 320], [4, 320], [5, 320]]


async def test_an_open_connection_loses_nothing_that_waits_for_it(page: Page) -> None:
    seen = await play(page, ready(), ("record", 100), ("get", "unsentBytes"), ("send", 1), kept=20)
    assert seen == [None, 3200, [1, 320]]


async def test_another_session_gets_what_has_no_text_on_the_same_clock(page: Page) -> None:
    seen = await play(
        page,
        ("record", 50),
        ready(),
        ("send", None),
        final(2, 20),
        ("lost", None),
        ("restart", None),
        ("get", "query"),
        ("opening", {"type": "start"}),
        ready(),
        ("send", None),
        final(2, 20, u=0),
        final(3, 30, u=1),
    )
    again = seen[9:]
    assert again[:3] == ["", {"type": "start"}, None]
    assert again[3:6] == [[3, 320], [4, 320], [5, 320]]
    assert [(f["utterance_id"], f["end_ms"], f["words"][0]["end_ms"]) for f in again[6:]] == [
        ("u1", 40, 40),
        ("u2", 50, 50),
    ]


async def test_the_safe_point_counts_where_it_is_later_than_the_last_final(page: Page) -> None:
    ack = {"type": "ack", "seq": 3, "received_bytes": 1600, "safe_bytes": 40 * MS}
    steps = [("record", 50), ready(), ("send", None), final(2, 20), ("take", ack), ("restart", None), ready()]
    seen = await play(page, *steps, ("send", None), ("get", "baseBytes"))
    assert seen[-2:] == [[5, 320], 40 * MS]


@pytest.mark.parametrize(("spoken", "begins_ms"), [(False, 40), (True, 20)])
async def test_a_gap_counts_like_a_final_unless_an_utterance_before_it_is_open(
    page: Page, spoken: bool, begins_ms: int
) -> None:
    partial = {"type": "partial", "seq": 3, "utterance_id": "u1", "start_ms": 20, "end_ms": 28, "text": "y"}
    missing = {"type": "gap", "seq": 4, "start_ms": 30 if spoken else 20, "end_ms": 40}
    told = [("take", partial)] if spoken else []
    steps = [("record", 50), ready(), ("send", None), final(2, 20), *told, ("take", missing), ("restart", None)]
    seen = await play(page, *steps, ready(), ("get", "baseBytes"))
    assert seen[-1] == begins_ms * MS
    if spoken:
        seen = await play(page, *steps[:-1], final(5, 30, u=1), *steps[-1:], ready(), ("get", "baseBytes"))
        assert seen[-1] == 40 * MS


async def test_a_message_counts_once(page: Page) -> None:
    seen = await play(page, ("record", 50), ready(), ("send", None), final(2, 20), final(2, 20), final(3, 30, u=1))
    assert [message and message["seq"] for message in seen[6:]] == [2, None, 3]


async def test_acknowledgements_are_told_once_and_only_to_who_wants_them(page: Page) -> None:
    seen = await play(page, ready(), ("acknowledge", None), ("acknowledge", None))
    assert seen[1:] == [{"type": "ack", "seq": 1}, None]
    seen = await play(page, ready(resume_token=None), ("acknowledge", None), ("get", "lasting"))
    assert seen[1:] == [None, False]


async def test_all_is_text_when_the_summary_covers_the_audio(page: Page) -> None:
    summary = {"type": "summary", "seq": 2, "audio_ms": 50}
    seen = await play(page, ("record", 50), ready(), ("get", "complete"), ("take", summary), ("get", "complete"))
    assert (seen[1], seen[-1]) == (False, True)


async def test_waits_grow_and_are_spread(page: Page) -> None:
    seen = await page.evaluate(
        """async () => {
          const { backoffMs } = await import("/resume.js");
          return [0, 1, 2, 3, 4, 5, 2000].map((n) => [backoffMs(n, 0), backoffMs(n, 1)]);
        }"""
    )
    assert seen == [[0, most] for most in (250, 500, 1000, 2000, 4000, 5000, 5000)]


async def test_what_a_close_asks_for(page: Page) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        *(({"code": code}, "again") for code in (1001, 1005, 1006, 1011, 1012, 4408, 4499)),
        *(({"code": code}, "wait") for code in (1013, 4429, 4503)),
        *(({"code": code}, "stop") for code in (1000, 4400, 4401, 4404, 4410, 4413, 4415, 4502)),
        *(({"code": code, "asked": True}, "restart") for code in (4400, 4404, 4410)),
        ({"code": 4409}, "taken"),
        ({"code": 1006, "error": "superseded"}, "taken"),
        ({"code": 1006, "error": "expired", "asked": True}, "restart"),
        ({"code": 1006, "error": "bad_request"}, "stop"),
        ({"code": 1006, "lasting": False}, "stop"),
        ({"code": 4503, "lasting": False}, "wait"),
    ]
    ends = [{"lasting": True, "asked": False, **end} for end, _ in cases]
    seen = await page.evaluate(
        'async (ends) => { const { afterClose } = await import("/resume.js"); return ends.map(afterClose); }', ends
    )
    assert seen == [wanted for _, wanted in cases]


async def test_gaps_and_late_lines_stand_where_they_belong(page: Page) -> None:
    seen = await page.evaluate(
        """async () => {
          const t = await import("/transcript.js");
          const said = (kind, u, start_ms, end_ms, text) =>
            ({ type: kind, utterance_id: `u${u}`, revision: 1, start_ms, end_ms, text, words: [] });
          const gap = (start_ms, end_ms) => ({ type: "gap", start_ms, end_ms, cause: "buffer_overrun" });
          const messages = [
            said("final", 0, 0, 10, "a"), gap(30, 40), gap(40, 50), said("final", 1, 12, 28, "b"),
            said("partial", 2, 50, 60, "c"), said("partial", 3, 70, 80, "d"), { type: "restarted", start_ms: 60 },
          ];
          let state = messages.reduce(t.reduce, t.beginSession(t.emptyTranscript()));
          const open = state.partials.map((partial) => partial.text);
          state = t.reduce(state, said("partial", 4, 60, 75, "e"));
          const lines = state.lines.map((line) => [line.text, line.start_ms, line.end_ms, line.unfinished]);
          return [lines, open, state.partials.map((partial) => partial.text)];
        }"""
    )
    lines = [["a", 0, 10, False], ["b", 12, 28, False], ["", 30, 50, False], ["c", 50, 60, True]]
    assert seen == [lines, ["d"], ["e"]]
