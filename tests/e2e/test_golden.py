"""`riva-gateway golden` as people and pipelines meet it: tables, files, verdicts, statuses."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from asr.engines.mock import MockEngine
from asr.mock.plan import load_plan
from e2e.command import Shell, plain, sound
from evaluation.results import GoldenRun

from .gateway import running

Json = dict[str, Any]
WORDS = ("alpha", "bravo", "charlie", "delta")
WORD_MS = 150
SPOKEN_MS = WORD_MS * len(WORDS)
CLIPS = 10
QUICK = ("--concurrency", "20", "--tail-ms", "400")


def plan(words: str = " ".join(WORDS), **more: object) -> Json:
    """A recognizer that says these words in every clip."""
    said = {"words": words, "word_ms": WORD_MS, "pause_ms": 5000}
    return {"utterances": [said], "chunk_ms": 20, "silence_ms": 200, **more}


RIGHT = plan()
WRONG = plan("alpha bravo zulu delta")
LATE = plan(delay={"response_ms": 150})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of tones, in which the mock hears what it is told to, and plans."""
    home = tmp_path_factory.mktemp("golden")
    (home / "set").mkdir()
    clips: list[Json] = []
    for number in range(CLIPS):
        sound(home / "set" / f"{number}.wav", SPOKEN_MS / 1000)
        at = [[word, n * WORD_MS, (n + 1) * WORD_MS] for n, word in enumerate(WORDS)]
        clips.append(
            {
                "id": f"clean/{number}",
                "audio": f"{number}.wav",
                "text": " ".join(WORDS),
                "words": at,
                "speech": [[0, SPOKEN_MS]],
            }
        )
    sound(home / "set" / "nobody.wav", 0.3, loud=0)
    nobody = [{"id": "silence/nobody", "audio": "nobody.wav", "text": ""}]
    for condition, rows in (("clean", clips), ("silence", nobody)):
        manifest = {"schema": "riva-gateway.golden-set/1", "condition": condition, "clips": rows}
        (home / "set" / f"{condition}.json").write_text(json.dumps(manifest))
    for name, content in (("right", RIGHT), ("wrong", WRONG), ("late", LATE)):
        (home / f"{name}.plan.json").write_text(json.dumps(content))
    rules = '[[rules]]\nmetric = "wer"\nlimit = 0.1\n[[rules]]\nmetric = "cer"\nconditions = ["nowhere"]\nlimit = 0\n'
    (home / "strict.toml").write_text('name = "strict"\nabout = "for tests"\n' + rules)
    return home


@pytest.fixture(scope="module")
def shell(home: Path, warm: Path) -> Shell:
    return Shell(home, command=warm)


@pytest.fixture(scope="module")
def results(shell: Shell, home: Path) -> dict[str, str]:
    """What each plan's run printed; `NAME.json` is its result."""
    told = {}
    for name in ("right", "wrong", "late"):
        files = ("--json", f"{name}.json", "--html", f"{name}.html", "--label", f"build={name}")
        done = shell.run("golden", "--set", "set", "--mock-plan", f"{name}.plan.json", *QUICK, *files)
        assert done.returncode == 0, done.stderr
        assert said(done) == [f"wrote {name}.json", f"wrote {name}.html"]
        told[name] = done.stdout.decode()
    return told


def said(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    """Its lines on stderr, but for the remark that the machine was busy: with other tests, maybe."""
    lines = done.stderr.decode().splitlines()
    return [line for line in lines if not line.endswith("latencies are partly its own")]


def row(table: str, name: str) -> str:
    return next(line for line in table.splitlines() if line.startswith(name))


# --- a run


def test_a_run_is_a_table_a_document_and_a_page(results: dict[str, str], home: Path) -> None:
    table = results["wrong"]
    assert "\x1b" not in table
    assert "┃" not in table
    assert table.startswith("set: 11 clips, ")
    assert re.search(r"clean +10 +25\.0 % \[25\.0–25\.0\]", row(table, "clean"))
    assert "none heard" in row(table, "silence")
    assert row(table, "all").split()[1] == "11"
    assert table.endswith("no profile: no limit was looked at\n")
    document = json.loads((home / "wrong.json").read_text())
    run = GoldenRun.from_json(document)
    assert run.info.labels == {"build": "wrong"}
    assert run.info.target == "mock recognizer, wrong.plan.json"
    assert [clip.hypothesis for clip in run.clips if clip.condition == "clean"] == ["alpha bravo zulu delta"] * CLIPS
    assert document["summary"]["all"]["wer"]["value"] == 0.25
    page = (home / "wrong.html").read_text()
    assert "<svg" in page
    assert "zulu" in page
    assert not re.search(r"""<script|(src|href)="(?!data:|#)|url\((?!data:|#)""", page)


def test_a_missed_limit_is_said_in_words_and_is_status_1(shell: Shell, results: dict[str, str]) -> None:
    flags = ("--profile", "strict.toml", "--quiet", "--html", "again.html")
    done = shell.run("golden", "report", "wrong.json", *flags)
    assert done.returncode == 1
    assert done.stdout.decode().splitlines() == [
        f"missed: word error rate of all clips is 25.0 % [25.0–25.0] over {CLIPS} clips; strict allows 10.0 %",
        "not measured: character error rate of nowhere (no clip here tells it)",
        "profile strict: 1 of 1 limit missed, 1 not measured",
    ]
    done = shell.run("golden", "report", "right.json", *flags)
    assert (done.returncode, said(done)) == (0, ["wrote again.html"])
    assert done.stdout.decode().splitlines()[-1] == "profile strict: 1 limit kept, 1 not measured"


def test_a_run_can_be_made_the_guard_of_later_ones(shell: Shell, results: dict[str, str], home: Path) -> None:
    done = shell.run("golden", "report", "right.json", "--write-profile", "guard.toml", "--quiet")
    assert (done.returncode, said(done)) == (0, ["wrote guard.toml"])
    assert (home / "guard.toml").read_text().startswith("# Regression guard")
    for name, status, verdict in (("right", 0, "kept"), ("wrong", 1, "missed")):
        done = shell.run("golden", "report", f"{name}.json", "--profile", "guard.toml", "--quiet")
        assert done.returncode == status, done.stdout
        assert done.stdout.decode().splitlines()[-1].startswith("profile guard: ")
        assert verdict in done.stdout.decode().splitlines()[-1]
    done = shell.run(
        "golden", "--set", "set", "--mock-plan", "wrong.plan.json", *QUICK, "--quiet", "--write-profile", "lax.toml"
    )
    assert (done.returncode, said(done)) == (0, ["wrote lax.toml"])
    done = shell.run("golden", "report", "wrong.json", "--profile", "lax.toml", "--quiet")
    assert done.returncode == 0, done.stdout


def test_a_stream_that_fails_is_told_and_is_status_1(shell: Shell, home: Path) -> None:
    broken = plan(faults=[{"kind": "internal", "at_ms": 300, "streams": [3]}])
    (home / "broken.plan.json").write_text(json.dumps(broken))
    flags = ("--concurrency", "1", "--tail-ms", "0", "--sample", "4", "--only", "cl*", "--profile", "none")
    done = shell.run("golden", "--set", "set", "--mock-plan", "broken.plan.json", *flags)
    assert done.returncode == 1
    assert re.search(r"^riva-gateway: clean/\d: error: unavailable: ", done.stderr.decode(), re.M)
    assert "4 (1 failed)" in row(done.stdout.decode(), "clean")


def test_when_every_stream_fails_there_is_no_table(shell: Shell, home: Path) -> None:
    (home / "away.plan.json").write_text(json.dumps(plan(faults=[{"kind": "internal", "at_ms": 100}])))
    done = shell.run("golden", "--set", "set", "--mock-plan", "away.plan.json", *QUICK, "--json", "none.json")
    assert (done.returncode, done.stdout) == (3, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("riva-gateway: no stream came to its end. unavailable: ")
    assert not (home / "none.json").exists()


def test_a_server_that_is_not_there_is_one_line_and_status_3(shell: Shell) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        for words in (("golden", "--server", at), ("golden", "shadow", "--engine", "mock", "--candidate", at)):
            done = shell.run(*words, "--set", "set", *QUICK)
            assert (done.returncode, done.stdout) == (3, b"")
            (line,) = done.stderr.decode().splitlines()
            assert at in line


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ((), 2, "--set DIR"),
        (("--set", "nowhere"), 4, "'nowhere'"),
        (("--set", "set", "--only", "nois*"), 4, "clean, silence"),
        (("--set", "set", "--label", "build"), 2, "key=value"),
        (("--set", "set", "--profile", "strong"), 2, "riva, local"),
        (("--set", "set", "--json", "set"), 2, "--json set is a folder"),
        (("--set", "set", "--json", "a.out", "--html", "a.out"), 2, "--json and --html"),
        (("--set", "set", "--model", "nobody"), 4, "mock-en-US"),
        (("shadow", "--set", "set", "--candidate", "odd://x"), 2, "--candidate 'odd://x': odd:// is not known"),
        (("--quiet", "compare", "right.json", "wrong.json"), 2, "--quiet goes behind the word compare"),
    ],
)
def test_what_cannot_be_is_one_line(shell: Shell, words: tuple[str, ...], status: int, says: str) -> None:
    mock = () if {"compare", "shadow"} & {*words} else ("--engine", "mock")
    done = shell.run("golden", *mock, *words)
    assert (done.returncode, done.stdout) == (status, b""), done.stderr
    (line,) = done.stderr.decode().splitlines()
    assert says in line


def test_a_terminal_sees_how_long_it_takes_and_ctrl_c_ends_it(shell: Shell, home: Path) -> None:
    flags = ("--set", "set", "--mock-plan", "right.plan.json", "--concurrency", "1", "--json", "never.json")
    status, shown = shell.on_terminal("golden", *flags, until=r"[2-9]/11 clips")
    assert status == 130
    assert "left" in plain(shown)
    assert "Traceback" not in shown
    assert "WER" not in shown
    assert not (home / "never.json").exists()


# --- two runs


@pytest.mark.parametrize(
    ("b", "status", "says"),
    [
        ("wrong", 1, r"worse: word error rate went from 0\.0 % to 25\.0 % \(\+25\.0 points"),
        ("late", 1, r"worse: final, p95 went from \d+ ms to \d+ ms \(\+1\d\d ms"),
        ("right", 0, r"B is not worse than A \(a B that is no worse is called worse in at most 5 % of comparisons\)"),
    ],
)
def test_a_planted_regression_is_found(
    shell: Shell, results: dict[str, str], home: Path, b: str, status: int, says: str
) -> None:
    done = shell.run("golden", "compare", "right.json", f"{b}.json", "--json", "c.json", "--html", "c.html")
    told = done.stdout.decode()
    assert done.returncode == status, told
    assert re.search(says, told)
    assert told.splitlines()[-1].startswith("B is WORSE than A" if status else "B is not worse than A")
    assert re.search(r"^power: with \d+ clips it finds, four times of five, a change of \+", told, re.M)
    document = json.loads((home / "c.json").read_text())
    assert document["worse"] is bool(status)
    assert len(document["disagreements"]) == (CLIPS if b == "wrong" else 0)
    assert "<svg" in (home / "c.html").read_text()


@pytest.mark.parametrize(
    ("content", "says"), [("", "not JSON"), ("{}", "schema"), ('{"schema": "riva-gateway.golden/1"}', "damaged")]
)
def test_what_is_no_result_is_one_line(
    shell: Shell, results: dict[str, str], home: Path, content: str, says: str
) -> None:
    (home / "odd.json").write_text(content)
    done = shell.run("golden", "compare", "right.json", "odd.json")
    assert (done.returncode, done.stdout) == (4, b"")
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("riva-gateway: odd.json")
    assert says in line


@pytest.mark.parametrize("b", ["wrong", "right"])
async def test_a_canary_is_held_against_what_is_in_service(shell: Shell, home: Path, tmp_path: Path, b: str) -> None:
    engines = [MockEngine(load_plan(home / f"{name}.plan.json")) for name in ("right", b)]
    async with running(engines[0], tmp_path / "a") as one, running(engines[1], tmp_path / "b") as other:
        words = ("--server", one.url, "--candidate", other.url, "--json", "s.json", "--html", "s.html")
        done = await asyncio.to_thread(shell.run, "golden", "shadow", "--set", "set", *QUICK, *words)
    told = done.stdout.decode()
    assert done.returncode == (1 if b == "wrong" else 0), (told, done.stderr)
    assert f"different words in {CLIPS if b == 'wrong' else 0} of 11 clips" in told
    if b == "wrong":
        assert "    A          alpha bravo charlie delta  [0 errors]\n" in told
        assert "    candidate  alpha bravo zulu delta  [1 error]\n" in told
    document = json.loads((home / "s.json").read_text())
    assert GoldenRun.from_json(document["a_run"]).info.target == one.url
    assert GoldenRun.from_json(document["b_run"]).info.target == other.url
    assert "<svg" in (home / "s.html").read_text()


async def test_who_recognizes_behind_a_gateway_is_asked_of_it(shell: Shell, home: Path, tmp_path: Path) -> None:
    async with running(MockEngine(load_plan(home / "right.plan.json")), tmp_path) as addresses:
        flags = ("--set", "set", "--only", "silence", "--server", addresses.url, "--tail-ms", "0", "--json", "g.json")
        done = await asyncio.to_thread(shell.run, "golden", *flags)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().splitlines()[-1] == "no profile: no limit was looked at"
    info = GoldenRun.from_json(json.loads((home / "g.json").read_text())).info
    assert (info.target, info.engine) == (addresses.url, "mock")
