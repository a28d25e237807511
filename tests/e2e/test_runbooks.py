"""Every command of the runbooks, typed as it stands: the deployment, then each page at the gateway that it made."""

from __future__ import annotations

import json
import re
import ssl
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

import rules

from .runbook_world import PATIENCE_S, World, world
from .runbooks import RUNBOOKS, SUBSTITUTIONS, Block, Told, Typist, blocks, fences, missing

FIRST = "first-deploy.md"
LAST = "Take it away"
"""The part of it that is typed when all else has been."""
PAGES = ("README.md", "riva-down.md", "degraded-latency.md", "capacity.md", "jobs.md", "known-issues.md")
ELSEWHERE = {
    "certificates.md": "test_tls_docs.py",
    "canary.md": "test_runbook_rollout.py",
    "rollout-plan.md": "test_runbook_rollout.py",
    "drain-and-rollback.md": "test_runbook_rollout.py",
}
"""Pages whose commands another test types."""


def until(what: str, true: Callable[[], object]) -> None:
    due = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < due, f"{what}: not within {PATIENCE_S:.0f} s"
        time.sleep(0.1)


def scraped(place: World, expression: str = 'up{job="riva-gateway"} == 1') -> bool:
    query = urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(f"{place.prometheus}/api/v1/query?{query}", timeout=5) as answer:
            return bool(json.load(answer)["data"]["result"])
    except OSError:
        return False


def scrapes(place: World) -> None:
    """Prometheus gets figures again: the blocks before have restarted the gateway."""
    since = datetime.now(UTC)

    def told() -> bool:
        try:
            with urllib.request.urlopen(f"{place.prometheus}/api/v1/targets", timeout=5) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
        except OSError:
            return False
        at = [datetime.fromisoformat(re.sub(r"\.\d+", "", target["lastScrape"])) for target in targets]
        return all(target["health"] == "up" for target in targets) and bool(at) and min(at) > since

    until("Prometheus gets figures", told)


def listens(place: World) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{place.env['ALERTMANAGER_PORT']}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def lost(place: World) -> None:
    """The second recognizer dies, and the gateway has noticed."""
    place.rivas.stop(1)
    until("endpoint 2 is down", lambda: "endpoint 2 (riva) is down" in (place.folder / "riva-gateway.log").read_text())


def spoken(place: World) -> None:
    """Somebody speaks: the pages before have restarted the gateway, and it has no figures until then."""
    words = (
        '. "$ETC/ops.sh"; riva-gateway load --sessions 1 --duration 1s --set "$APP/tests/golden" --url "$ASR_SERVER"'
    )
    command = ["bash", "-c", words]
    subprocess.run(command, env=place.env, cwd=place.folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    until(
        "Prometheus has seen a final twice",
        lambda: scraped(place, "rate(riva_gateway_final_latency_part_seconds_sum[5m])"),
    )


def guessed(place: World) -> None:
    """Somebody comes with a key that there is not."""
    url = f"{place.env['ASR_SERVER']}/v1/models"
    trusted = ssl.create_default_context(cafile=str(place.folder / "etc" / "ca.crt"))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(urllib.request.Request(url, headers={"X-API-Key": "rgw_no"}), context=trusted, timeout=5)


def away(place: World) -> None:
    """No recognizer: jobs wait."""
    for number in range(2):
        place.rivas.stop(number)


def back(place: World) -> None:
    for number in range(2):
        place.rivas.start(number)


BEFORE: dict[tuple[str, str], Callable[[World], object]] = {
    (FIRST, "up{job="): lambda place: until("Prometheus has figures", lambda: scraped(place)),
    (FIRST, "api/v1/targets"): scrapes,
    (FIRST, "alert add"): lambda place: until("Alertmanager is there", lambda: listens(place)),
    ("riva-down.md", "riva-gateway status\n"): lost,
    ("degraded-latency.md", "sum by (part)"): spoken,
    ("jobs.md", "/cancel"): away,
    ("known-issues.md", "access_refused"): guessed,
}
"""What happens before the first block of that page with this in it."""
AFTER: dict[tuple[str, str], Callable[[World], object]] = {("jobs.md", "/cancel"): back}


ANSWERS = r"3: (riva-gateway (health|status)\b|direct health\b|ASR_SERVER= )|1: riva-gateway load\b"
"""Statuses that tell something: not ready; no row that counted."""


def typed(place: World, page: str, last: bool = False) -> list[tuple[Block, Told]]:
    waiting = {} if last else {text: act for (name, text), act in BEFORE.items() if name == page}
    done: list[tuple[Block, Told]] = []
    folder = place.folder / (LAST if last else page).replace(" ", "-")
    folder.mkdir()
    with closing(Typist(folder, place.env)) as typist:
        for block in [block for block in blocks(page) if (block.heading == LAST) is last]:
            for text in [text for text in waiting if text in block.text]:
                waiting.pop(text)(place)
            place.restarts_for_real = bool(block.shown)
            done.append((block, typist.types(block)))
            for (name, text), act in AFTER.items():
                if name == page and text in block.text:
                    act(place)
    assert not waiting
    return done


def complaints(done: list[tuple[Block, Told]]) -> list[str]:
    """What failed, and what did not look as the page shows it. An answer is no failure."""
    found = []
    for block, told in done:
        failures = [each for each in told.failures if not re.match(ANSWERS, each)]
        wanting = missing(block.shown, told.output)
        if failures or wanting:
            found.append(f"{block}\nfailed: {failures}\nnot seen: {wanting}\n{block.text}\n{told.output}")
    return found


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, list[tuple[Block, Told]]]]:
    with world(tmp_path_factory.mktemp("machine")) as place:
        yield place, typed(place, FIRST)


def test_the_first_deployment(deployed: tuple[World, list[tuple[Block, Told]]]) -> None:
    place, done = deployed
    assert not complaints(done), "\n\n".join(complaints(done))
    for name in ("ops-key", "metrics-key", "first-app-key", "ops.sh"):
        assert (place.folder / "etc" / name).stat().st_mode & 0o077 == 0, name
    until("the pager rings", lambda: place.receiver.told("Test", "firing"))
    log = (place.folder / "riva-gateway.log").read_text()
    assert "rgw_" not in log


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of(page: str, deployed: tuple[World, list[tuple[Block, Told]]]) -> None:
    done = typed(deployed[0], page)
    assert done
    assert not complaints(done), "\n\n".join(complaints(done))


def test_at_last_all_of_it_is_taken_away(deployed: tuple[World, list[tuple[Block, Told]]]) -> None:
    place = deployed[0]
    done = typed(place, FIRST, last=True)
    assert len(done) == 2
    assert not complaints(done), "\n\n".join(complaints(done))
    made = [place.env[name] for name in ("APP", "ETC", "STATE_DIR", "PROM")]
    assert [path for path in made if Path(path).exists()] == []
    assert list(Path(place.env["UNITS"]).iterdir()) == []
    assert not place.runs


# --- nothing is left out


def test_every_page_is_typed_by_a_test() -> None:
    assert {path.name for path in RUNBOOKS.glob("*")} == {FIRST, *PAGES, *ELSEWHERE}
    for page, test in ELSEWHERE.items():
        assert page in (Path(__file__).parent / test).read_text("utf-8")


@pytest.mark.parametrize("page", [FIRST, *PAGES])
def test_what_is_fenced_is_commands_or_what_they_print(page: str) -> None:
    text = (RUNBOOKS / page).read_text("utf-8")
    found = fences(text)
    assert 2 * len(found) == len(re.findall(r"^ *(?:```|~~~)", text, re.M))
    assert {language for _, _, language, _ in found} <= {"bash", "text"}
    shown = [block for block in blocks(page) if block.shown]
    assert len(shown) == sum(language == "text" for _, _, language, _ in found), "output without its command"
    assert not re.search(r"^(?: {4}|\t)(?![-*\d ])\S", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), re.M)


_PROGRAMS = r"riva-gateway|systemctl|journalctl|docker|ssh|curl|ask|prom|setting|openssl|psql|sqlite3|kill|grep|kubectl"


@pytest.mark.parametrize("page", [FIRST, *PAGES])
def test_commands_within_sentences_stand_in_a_block_too(page: str) -> None:
    text = re.sub(r"^ *```.*?^ *```", "", (RUNBOOKS / page).read_text("utf-8"), flags=re.M | re.S)
    everywhere = "\n".join(block.text for name in (FIRST, *PAGES, *ELSEWHERE) for block in blocks(name))
    for words in re.findall(rf"`((?:{_PROGRAMS}) [^`]+)`", text):
        assert words in everywhere, f"{page}: `{words}` is in no block"


def test_what_is_typed_otherwise_is_still_there() -> None:
    text = "\n".join(block.text for page in (FIRST, *PAGES) for block in blocks(page))
    for written, _ in SUBSTITUTIONS:
        assert written in text


def test_every_page_begins_alike_and_every_alert_is_in_the_list() -> None:
    for page in PAGES:
        assert blocks(page)[0].text.startswith('. "${ETC:-/etc/riva-gateway}/ops.sh"'), page
    index = (RUNBOOKS / "README.md").read_text("utf-8")
    for alert in rules.alerts():
        link = alert.annotations["runbook_url"].split("/docs/runbooks/")[1]
        when = {"page": "at once", "ticket": "in the morning"}[alert.labels["severity"]]
        assert f"| `{alert.name}` | {when} | [{alert.annotations['summary']}]({link}) |" in index


# --- the typist sees what goes wrong


def test_a_command_that_fails_is_seen(tmp_path: Path) -> None:
    begin = "cd /\nset_by=hand\nfalse || true\nfor name in 1; do ls /not/there; done\n"
    text = f"## Try\n```bash\n{begin}```\n```bash\necho $set_by\n```\n"
    with closing(Typist(tmp_path, {"PATH": "/usr/bin:/bin"})) as typist:
        first, second = (typist.types(block) for block in blocks("page.md", text))
    assert [each.split(":")[0] for each in first.failures] == ["2"]
    assert "/not/there" in first.output
    assert (second.output, second.failures) == ("hand\n", [])


@pytest.mark.parametrize(
    ("shown", "told", "wanting"),
    [
        ("a 12.5 s\n…\nkey 33aba481fce6", "key 5d41402abc4b\nsomething\na 0 s", []),
        ("2  down  closed  0  -", "2  up  closed  0  -", ["2  down  closed  0  -"]),
        ("401\n403", "401", ["403"]),
        ("notAfter=Feb 19 15:40:11 2027 GMT", "notAfter=May  1 05:40:11 2031 GMT", []),
        ('{"text":"Good…","usage":…}', '{"text":"Good morning","usage":{}}', []),
        ("30m  3  0.00% ✓  0.2 / 0.2 / 0.2 ✓  38.0 / 60.0 / 65.5", "30m  9  1.00% ✗  1 / 1 / 1 ✗  –", []),
    ],
)
def test_output_is_compared_in_shape(shown: str, told: str, wanting: list[str]) -> None:
    assert missing(shown, told) == wanting
