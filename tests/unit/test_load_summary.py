"""Rows of a load run, and the document that they are kept in."""

from __future__ import annotations

import json
import resource
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from asr.config import GatewayConfig, RivaConfig
from asr.errors import ASRError, Code
from evaluation.recording import Outcome
from evaluation.statistics import Interval
from load.knee import recommend
from load.leaks import leaks
from load.plan import Door
from load.rows import failures_of, row_of
from load.summary import LeakVerdict, LoadRow, Sample, Sweep, SweepInfo, Usage
from load_rows import SLO, refused, row, session, step
from server.commands.app import app
from server.commands.exits import Exit, Stop
from server.commands.load_run import door_of
from server.commands.load_words import conclusion, heading, length_ms, line_of, numbers, remarks, verdict
from server.settings import ServerSettings

SPEECH = Path(__file__).resolve().parents[1] / "fixtures"

# --- rows


def test_a_quick_and_faultless_step_keeps_the_slo() -> None:
    made = row(*(session(number) for number in range(10)))
    assert made.slo_kept
    assert (made.missed, made.limit) == ((), "none")
    assert (made.offered, made.done, made.peak) == (10, 10, 10)
    assert made.throughput == pytest.approx(10.0)
    assert made.wer.value == 0.0
    assert made.wer.count == 40
    assert (made.first_text_p50_ms, made.final_p95_ms, made.queue_p95_ms) == (100.0, 400.0, 3.0)
    assert made.retry_after is None


def test_word_errors_are_pooled_over_the_sessions_that_ended_well() -> None:
    made = row(
        session(0, hypothesis="one two three for"),
        session(1),
        session(2, "error", hypothesis=""),
        session(3, hypothesis="", cut=True),
        session(4, reference="", hypothesis=""),
    )
    assert made.wer.value == pytest.approx(1 / 8)
    assert made.wer.count == 8


def test_sessions_that_say_the_same_are_one_observation_for_the_interval() -> None:
    same = row(*(session(number, hypothesis="one two three for") for number in range(20)))
    assert same.wer.interval is None
    texts = [f"one two three {word}" for word in ("four", "five", "six", "seven", "eight", "nine")]
    other = row(
        *(session(number, reference=text, hypothesis="one two three four") for number, text in enumerate(texts))
    )
    assert other.wer.interval is not None
    assert other.wer.interval.low <= 5 / 24 <= other.wer.interval.high


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"first_ms": 301.0}, "first partial p95 301 ms (limit 300 ms)"),
        ({"final_ms": (801.0,)}, "final p95 801 ms (limit 800 ms)"),
        ({"first_ms": None, "final_ms": ()}, "no text was heard whose time could be told"),
    ],
)
def test_what_is_too_slow_is_missed_and_named(change: dict[str, object], says: str) -> None:
    made = row(session(**change))  # type: ignore[arg-type]
    assert made.missed == (says,)
    assert (made.slo_kept, made.limit) == (False, "slo")


def test_sessions_that_heard_nothing_are_no_quick_ones() -> None:
    mute = [session(number, hypothesis="", first_ms=None, final_ms=()) for number in range(2)]
    made = row(*(session(number) for number in range(2, 10)), *mute)
    assert made.missed == ("20.0 % of the sessions heard no word (limit 0.5 %)",)
    assert (made.slo_kept, made.limit) == (False, "slo")


@pytest.mark.parametrize("outcome", ["error", "disconnected", "timeout"])
def test_failures_over_the_limit_are_missed(outcome: Outcome) -> None:
    made = row(*(session(number) for number in range(99)), session(99, outcome))
    assert made.missed == ("1.0 % of the sessions failed or were refused (limit 0.5 %)",)
    assert made.limit == "errors"
    assert (made.errors + made.disconnects + made.timeouts, made.refusals) == (1, 0)
    fewer = row(*(session(number) for number in range(299)), session(299, outcome))
    assert fewer.slo_kept


def test_refusals_are_counted_apart_and_do_not_dilute_what_was_served() -> None:
    made = row(*(session(number) for number in range(8)), refused(8), refused(9, None))
    assert (made.refusals, made.errors, made.limit) == (2, 0, "refusals")
    assert made.retry_after == 0.5
    assert made.refusal_p95_ms == pytest.approx(12.0)
    assert made.throughput == pytest.approx(8.0)
    assert made.wer.count == 32


@pytest.mark.parametrize(("late_ms", "cpu"), [(20.1, 0.2), (1.0, 0.91)])
def test_a_sender_at_its_end_says_so_and_its_row_does_not_count(late_ms: float, cpu: float) -> None:
    made = row(session(), late_ms=late_ms, cpu=cpu)
    assert made.generator_limited
    assert not made.slo_kept
    assert made.limit == "generator"
    assert remarks(made)[0].startswith("not counted: this machine was the limit")
    assert not row(session(), late_ms=20.0, cpu=0.9).generator_limited


def test_usage_is_the_mean_share_and_the_most_of_all_else() -> None:
    samples = (
        Sample(0, "gateway", 1, None, 100, 10, 3, 5),
        Sample(1, "pid 7", 1, 0.5, 900, 1, 1),
        Sample(2, "gateway", 1, 0.2, 300, 30, 3, None),
        Sample(3, "gateway", 1, 0.4, 200, 20, 4, 4),
    )
    gateway, other = row_of(step(session()), samples, SLO).usage
    assert gateway.cpu_share == pytest.approx(0.3)
    assert replace(gateway, cpu_share=None) == Usage("gateway", None, 300, 30, 4, 5)
    assert (other.source, other.tasks) == ("pid 7", None)


def test_audio_that_went_into_a_stream_that_failed_is_no_throughput() -> None:
    made = row(*(session(number) for number in range(8)), session(8, "timeout"), session(9, "disconnected"))
    assert made.throughput == pytest.approx(8.0)


def test_a_step_that_was_broken_off_says_so_and_does_not_count() -> None:
    made = row_of(step(session()), (), SLO, interrupted=True)
    assert not made.slo_kept
    assert remarks(made) == ["not counted: interrupted when 1 session was over"]
    assert line_of(made).split()[-1] == "n/a"
    assert line_of(made).split()[8] == "-"
    assert Sweep.from_json(json.loads(json.dumps(sweep(made).to_json()))).rows[0].interrupted


def test_a_step_without_a_good_session_is_missed() -> None:
    made = row(refused(0))
    assert "no session ended well" in made.missed
    assert made.wer.value is None
    assert line_of(made).split()[2] == "-"


def test_failures_are_told_by_kind_the_most_frequent_first() -> None:
    told = failures_of([session(0, "error", code="internal", detail="Oh."), refused(1), refused(2), session(3)])
    assert told == ("2 × refused (overloaded): Full.", "1 × error (internal): Oh.")


# --- flags


@pytest.mark.parametrize(
    ("arguments", "says", "status"),
    [
        (("--sessions", "0"), "--sessions", 2),
        (("--duration", "soon"), "--duration", 2),
        (("--duration", "0"), "length", 2),
        (("--url", "ftp://x"), "--url 'ftp://x'", 2),
        (("--watch", "host:50051"), "--watch", 2),
        (("--pid", "999999999"), "--pid", 2),
        (("--sessions", "100000", "--workers", "1"), "open files", 2),
        (("--html", "."), "--html", 2),
        (("--only", "nothing"), "nothing", 4),
        (("--set", "nowhere"), "nowhere", 4),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], says: str, status: int
) -> None:
    monkeypatch.chdir(tmp_path)
    for key in ServerSettings.known_keys():
        monkeypatch.delenv(key, raising=False)
    limit = (1024, 4096)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limit)
    monkeypatch.setattr(resource, "setrlimit", lambda _, __: None)
    shutil.copy(SPEECH / "greeting.wav", tmp_path / "a.wav")
    shutil.copy(SPEECH / "greeting.txt", tmp_path / "a.txt")
    given = ["load", "--url", "http://localhost:9", "--set", str(tmp_path), *arguments]
    result = CliRunner().invoke(app, given, env={"STATE_DIR": str(tmp_path / "state")})
    assert (result.exit_code, result.stdout) == (status, "")
    assert says in result.stderr
    assert len(result.stderr.splitlines()) == 1


# --- the document


def sweep(*rows: LoadRow, samples: tuple[Sample, ...] = (), complete: bool = True) -> Sweep:
    return Sweep(
        SweepInfo("ws://x", "websocket", "mock", "steady", "s", 3, 100, 2000, "n", "t", "m", "0", complete),
        SLO,
        rows,
        recommend(rows, 2),
        samples,
        leaks(samples, trend=True),
        ("1 × error: x",),
        ("a note",),
    )


def test_the_document_survives_json() -> None:
    made = sweep(
        row(session(), refused(1)),
        samples=tuple(Sample(float(at * 1000), "gateway", 1, 0.25, 100, 10, 3, 5, 1) for at in range(40)),
    )
    assert made.leaks
    assert isinstance(made.leaks[0].interval, Interval)
    read = Sweep.from_json(json.loads(json.dumps(made.to_json())))
    assert read.to_json() == made.to_json()
    assert read.rows[0].missed == made.rows[0].missed
    assert read.leaks == made.leaks


def test_a_later_documents_new_keys_are_left_alone() -> None:
    document = sweep(row(session())).to_json()
    document["rows"][0]["new"] = document["info"]["new"] = document["new"] = 1
    assert len(Sweep.from_json(document).rows) == 1


@pytest.mark.parametrize("change", [{"schema": "riva-gateway.golden/1"}, {"rows": [{}]}, {"info": 3}, {"leaks": None}])
def test_what_is_no_such_document_is_refused_in_words(change: dict[str, object]) -> None:
    document = sweep(row(session())).to_json() | change
    with pytest.raises(ASRError) as caught:
        Sweep.from_json(document)
    assert caught.value.code is Code.BAD_REQUEST
    assert "riva-gateway load" in caught.value.message


# --- where the streams go


def test_senders_bring_along_what_the_server_wants_and_nobody_reads_it() -> None:
    riva = RivaConfig(
        "riva:50051",
        client_cert=Path("~/client.pem"),
        client_key=Path("client.key"),
        metadata=(("function-id", "f"), ("authorization", "Bearer s3cret")),
    )
    door = door_of(riva)
    assert (door.wire, door.address, door.tls) == ("grpc", "riva:50051", True)
    assert door.client_cert == Path.home() / "client.pem"
    assert door.metadata == riva.metadata
    gateway = door_of(GatewayConfig("https://h:1/v1/stream", token="s3cret"))
    assert (gateway.address, gateway.metadata) == ("wss://h:1/v1/stream", (("Authorization", "Bearer s3cret"),))
    for one in (door, gateway):
        assert "s3cret" not in repr(one)
        assert Door.from_json(json.loads(json.dumps(one.as_json()))) == one


# --- words


def test_columns_stand_under_their_names() -> None:
    top, names = heading()
    assert len(names) == len(line_of(row(session())))
    assert len(names.split()) > 0
    assert len(line_of(row(session())).split()) == 16
    assert "first text" in top
    assert max(map(len, (top, names))) < 140


@pytest.mark.parametrize(
    ("text", "ms"), [("30", 30_000), ("30s", 30_000), ("500ms", 500), ("1.5m", 90_000), ("2H", 7_200_000), ("0s", 0)]
)
def test_lengths_of_time(text: str, ms: int) -> None:
    assert length_ms(text, "--duration") == ms


@pytest.mark.parametrize("text", ["", "x", "-1", "1d", "1 000", "300h", "1e9"])
def test_what_is_no_length_is_refused_with_its_flag(text: str) -> None:
    with pytest.raises(Stop, match="--duration") as caught:
        length_ms(text, "--duration")
    assert caught.value.status is Exit.CONFIGURATION


def test_sessions_are_numbers_with_commas() -> None:
    assert numbers("1, 10,10,5") == (1, 10, 5)
    for wrong in ("", "0", "1;2", "a", "-3", "1000000", "1.5"):
        with pytest.raises(Stop, match="--sessions"):
            numbers(wrong)


def test_processes_that_were_named_count_before_the_gateways_own_word() -> None:
    own = Usage("gateway", 0.1, 100 * 2**20)
    made = replace(row(session()), usage=(own,))
    assert line_of(made).split()[13:15] == ["10%", "100"]
    named = replace(made, usage=(own, Usage("pid 7", 1.5, 300 * 2**20), Usage("pid 8", 0.25, 50 * 2**20)))
    assert line_of(named).split()[13:15] == ["175%", "350"]
    assert line_of(row(session())).split()[13:15] == ["-", "-"]


def test_the_exit_status_follows_from_the_rows() -> None:
    good, slow = row(session()), row(session(final_ms=(900.0,)))
    assert verdict(sweep(good, slow)) == (Exit.OK, "")
    assert verdict(sweep(good, row(*(session(n) for n in range(8)), refused(8)))) == (Exit.OK, "")
    assert verdict(sweep(slow)) == (Exit.FAILED, "the SLO was kept at no concurrency")
    lost = row(*(session(number) for number in range(300)), session(300, "disconnected"))
    assert verdict(sweep(lost)) == (Exit.FAILED, "1 stream failed without a clear refusal")
    assert verdict(sweep(good, complete=False)) == (Exit.INTERRUPTED, "")
    leak = LeakVerdict("gateway", "tasks", "stays", None, None, 1, 99, "gateway: tasks did not come back")
    leaking = replace(sweep(good), leaks=(leak,))
    assert verdict(leaking) == (Exit.FAILED, "a leak was found")
    assert "LEAK: gateway: tasks did not come back" in conclusion(leaking)
