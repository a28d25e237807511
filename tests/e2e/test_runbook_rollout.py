"""Every command of the two runbooks about the rollout, typed as it stands, at a gateway between three stand-ins."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import rules
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer

from .command import FIXTURES, PATIENCE_S, Shell, wait_for
from .warm_command import warm_command

RUNBOOKS = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
PLAN = load_plan({"hears": "clock"})


def blocks(page: str) -> Iterator[tuple[str, str]]:
    """The commands of a runbook, block by block, each with the heading that it stands under."""
    heading = ""
    for title, text in re.findall(
        r"^## (.*?)$|^```bash\n(.*?)^```$", (RUNBOOKS / page).read_text("utf-8"), re.M | re.S
    ):
        heading = title or heading
        if text:
            yield heading, text


@contextlib.contextmanager
def stand_ins(count: int) -> Iterator[list[int]]:
    """The ports of so many Rivas, which live on a thread of their own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = [MockRivaServer(PLAN) for _ in range(count)]
    try:
        for server in servers:
            asyncio.run_coroutine_threadsafe(server.start(), loop).result(PATIENCE_S)
        yield [server.port for server in servers]
    finally:
        for server in servers:
            asyncio.run_coroutine_threadsafe(server.stop(), loop).result(PATIENCE_S)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


class Typist:
    """Somebody at a shell, to whom the gateway is where its settings say."""

    def __init__(self, shell: Shell, places: dict[str, str]) -> None:
        self._shell = shell
        self._places = places
        self.process: subprocess.Popen[str] | None = None

    def types(self, text: str) -> str:
        for written, real in self._places.items():
            text = text.replace(written, real)
        done = subprocess.Popen(
            ["bash", "-euc", text],
            cwd=self._shell.home,
            env=self._shell.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if "GATEWAY_PID" in text:
            assert self.process is not None
            assert self.process.wait(PATIENCE_S) == 0  # who has started it takes note of its end, as an init does
        told, _ = done.communicate(timeout=PATIENCE_S)
        assert done.returncode == 0, f"{text}\n{told}"
        return told


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[Typist]:
    with stand_ins(3) as (base, former, canary), warm_command(home) as commands:
        names = ("RIVA_ENDPOINTS", "RIVA_FORMER_ENDPOINTS", "RIVA_CANARY_ENDPOINTS")
        settings = dict(zip(names, (f"localhost:{port}" for port in (base, former, canary)), strict=True))
        settings |= {"PORT": "0", "GRPC_PORT": "off", "JOBS": "off"}
        with Shell(home, settings).start("serve") as process:
            url = f"https://localhost:{wait_for(process, r'https://localhost:([0-9]+)')[1]}"
            there = {"ASR_SERVER": url, "GATEWAY_PID": str(process.pid)}
            there |= {"PATH": f"{commands}:/usr/bin:/bin", "RECORDINGS": str(rules.ROOT / "tests" / "golden")}
            places = {"https://localhost:8443": url, "riva-new.example:50051": f"localhost:{canary}"}
            places |= {"riva-1.example:50051": f"localhost:{base}", "--sample 40": "--sample 2 --pace fast"}
            typist = Typist(Shell(home, there), places)
            typist.process = process
            yield typist


def test_the_canary_s_runbook(tmp_path: Path) -> None:
    with gateway(tmp_path) as typist:
        told = [(heading, typist.types(text)) for heading, text in blocks("canary.md")]
    assert [heading for heading, _ in told] == [
        "Before",
        "Begin, and go on",
        "Begin, and go on",
        "Abort it",
        "The canary was aborted",
        "Promote it",
    ]
    before, begin, steps, abort, aborted, promoted = (text for _, text in told)
    assert before.count("mock-en-US-asr-streaming") == 2
    assert "1 % of new streams try the canary." in begin
    assert "The canary, step 1: going." in begin
    assert steps.splitlines()[-1] == "100 % of new streams try the canary."
    assert abort == "New streams go to the usual recognizer.\n"
    assert "finals feel late" in aborted
    assert "New streams go to the usual recognizer." in promoted
    assert "ready" in promoted


def test_the_plan_for_a_new_recognizer(tmp_path: Path) -> None:
    with gateway(tmp_path) as typist:
        typist.types(f"riva-gateway transcribe {FIXTURES / 'greeting.wav'}")  # somebody has spoken: there are records
        told = [(heading, typist.types(text)) for heading, text in blocks("rollout-plan.md")]
    assert [heading for heading, _ in told] == [
        *["Before"] * 2,
        "Rehearse",
        *["Stages"] * 3,
        *["Back within five minutes"] * 2,
        "After",
    ]
    gate, names, rehearsed, first, steps, report, back, by_file, done = (text for _, text in told)
    assert "did not get worse" in gate
    assert names.count("mock-en-US-asr-streaming") == 2
    assert "Serving" in names
    assert "1 % of new streams try the canary." in rehearsed
    assert "New streams go to the usual recognizer." in rehearsed
    assert "The canary, step 1: going." in first
    assert steps.splitlines()[-1] == "100 % of new streams try the canary."
    assert "24h" in report
    assert back.startswith("New streams go to the usual recognizer.\n")
    assert "finals are late" in back
    assert "New streams go to the usual recognizer." in by_file
    assert "24h" in done


def test_the_plan_names_alerts_and_figures_that_there_are() -> None:
    text = (RUNBOOKS / "rollout-plan.md").read_text("utf-8")
    assert set(re.findall(r"RivaGateway\w+", text)) <= {alert.name for alert in rules.alerts()}
    described = (RUNBOOKS.parent / "metrics.md").read_text("utf-8")
    for metric in re.findall(r"riva_gateway_\w+", text):
        assert f"`{metric}{{" in described, metric
    stages = [int(percent) for percent in re.findall(r"^\| (\d+) \| .*(?:hour|day)", text, re.M)]
    typed = [int(percent) for percent in re.findall(r"rollout canary (\d+) --reason \"CHG-1: stage", text)]
    boxes = [int(percent) for percent in re.findall(r"^- \[ \] (\d+) %:", text, re.M)]
    assert stages == typed == boxes == [1, 5, 25, 50, 100]


def test_the_runbook_of_draining_and_going_back(tmp_path: Path) -> None:
    with gateway(tmp_path) as typist:
        told = [(heading, typist.types(text)) for heading, text in blocks("drain-and-rollback.md")]
    assert [heading for heading, _ in told] == [
        *["Roll back"] * 3,
        *["Switch it off"] * 2,
        "Recognition is switched off",
        "Drain a node",
    ]
    back, everywhere, mended, off, by_file, on, drained = (text for _, text in told)
    assert back.count("New streams go to the former recognizer.") == 2
    assert "words are missing since 14:00" in back
    assert "ready" in back
    assert everywhere == "New streams go to the former recognizer.\n"
    assert mended == "New streams go to the usual recognizer.\n"
    assert off == "Transcription is switched off by the operator.\n"
    assert "nobody reaches the admin route" in by_file
    assert "Transcription is switched off" in on
    assert on.endswith("New streams go to the usual recognizer.\n")
    assert drained == ""


@pytest.mark.parametrize(
    ("page", "anchors"),
    [
        ("canary.md", ["the-canary-was-aborted", "canary-aborted"]),
        ("drain-and-rollback.md", ["roll-back", "drain-a-node", "recognition-is-switched-off"]),
        ("rollout-plan.md", ["rehearse", "stages", "back-within-five-minutes"]),
    ],
)
def test_what_is_linked_to_is_there(page: str, anchors: list[str]) -> None:
    text = (RUNBOOKS / page).read_text("utf-8")
    headings = {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", text, re.M)
    }
    assert set(anchors) <= headings | set(re.findall(r'<a id="([\w-]+)"></a>', text))
