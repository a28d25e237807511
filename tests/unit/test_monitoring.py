"""Rules, dashboard and examples under scripts/monitoring: right in themselves, and about metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import prometheus_client
import pytest

import rules
from server.telemetry.metrics import Metrics

DOCUMENT = rules.ROOT / "docs" / "monitoring.md"
TESTS = ("recording-rules_test.yml", "alerts_test.yml", "alerts_hours_test.yml", "alerts_long_test.yml")
PAGE, TICKET = "page", "ticket"
OF_PROMETHEUS = {"up", "ALERTS"}
OF_SCRAPES = {"job", "instance", "le", "alertname", "alertstate", "severity"}


def ran(*command: str | Path) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# --- the rules


def test_prometheus_takes_the_rules() -> None:
    for name in rules.RULE_FILES:
        assert "SUCCESS" in ran("promtool", "check", "rules", "--lint-fatal", rules.FOLDER / name)


@pytest.fixture(scope="module")
def tested() -> Iterator[dict[str, Future[str]]]:
    """All files at once, and without a third of the time that goes into collecting garbage."""
    with ThreadPoolExecutor() as threads:
        yield {
            name: threads.submit(ran, "env", "GOGC=800", "promtool", "test", "rules", rules.FOLDER / name)
            for name in TESTS
        }


@pytest.mark.parametrize("name", TESTS)
def test_rules_do_what_their_tests_say(name: str, tested: dict[str, Future[str]]) -> None:
    assert "SUCCESS" in tested[name].result()


def test_every_alert_is_tested_to_fire_and_to_be_quiet() -> None:
    fires, quiet = set[str](), set[str]()
    for name in TESTS[1:]:
        for case in rules.document(name)["tests"]:
            for check in case["alert_rule_test"]:
                (fires if check["exp_alerts"] else quiet).add(check["alertname"])
    names = {alert.name for alert in rules.alerts()}
    assert len(names) == len(rules.alerts())
    assert fires == names
    assert quiet == names


def test_every_alert_says_how_bad_it_is_in_words_and_what_to_do() -> None:
    for alert in rules.alerts():
        assert alert.labels["severity"] in (PAGE, TICKET), alert.name
        assert alert.annotations["summary"], alert.name
        assert len(alert.annotations["description"].split()) > 8, alert.name
        found = re.fullmatch(r"\{\{ \$externalLabels\.repository \}\}/(docs/runbooks/[\w-]+\.md)#([\w-]+)",
                             alert.annotations["runbook_url"])  # fmt: skip
        assert found, alert.name
        runbook = rules.ROOT / found[1]
        assert found[2] in anchors(runbook.read_text("utf-8")), f"{alert.name}: {found[0]}"


def anchors(markdown: str) -> set[str]:
    """Those that GitHub gives to headings."""
    headings = re.findall(r"^#{1,6} +(.+?) *#*$", re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_anchors_are_githubs() -> None:
    text = "# A *b*, c's `d`?\n```\n# not this\n```\n## Riva: down & out\n"
    assert anchors(text) == {"a-b-cs-d", "riva-down--out"}


def test_recorded_figures_are_named_by_the_rules_for_names_and_all_are_used() -> None:
    recorded = rules.recorded()
    assert all(re.fullmatch(r"(job|instance|endpoint):riva_gateway_\w+:\w+", name) for name in recorded)
    expressions = [alert.expr for alert in rules.alerts()] + [expr for _, expr in rules.dashboard_expressions()]
    used = {name for expr in expressions for name in re.findall(r"\w+:riva_gateway_\w+:\w+", expr)}
    assert used == set(recorded)


def test_the_burn_rates_are_over_all_seven_windows() -> None:
    for what in ("partials:late", "finals:late", "streams:failed"):
        windows = {name.rsplit("rate", 1)[1] for name in rules.recorded() if f"{what}_ratio" in name}
        assert windows == {"5m", "30m", "1h", "2h", "6h", "24h", "3d"}


def test_a_drill_changes_times_and_nothing_else() -> None:
    text = (rules.FOLDER / "alerts.yml").read_text("utf-8")
    shortened = rules.shortened(text)
    assert shortened != text
    timeless = r"(\[|offset |for: )\d+(?:ms|s|m|h|d)\b"
    assert re.sub(timeless, r"\1", shortened) == re.sub(timeless, r"\1", text)
    assert rules.shortened("rate(x[3d]) for: 1h offset 10m y_rate6h", 60) == (
        "rate(x[4320000ms]) for: 60000ms offset 10000ms y_rate6h"
    )


# --- the metrics that they are about


@pytest.fixture(scope="module")
def metrics() -> dict[str, set[str]]:
    """Every sample that a gateway tells, with its labels."""
    found: dict[str, set[str]] = {name: set() for name in OF_PROMETHEUS}
    registry = Metrics().registry
    prometheus_client.ProcessCollector(registry=registry)
    kinds = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}
    collectors = registry._collector_to_names
    for collector in list(collectors):
        labels = set(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            for ending in kinds.get(family.type, ("",)):
                found[family.name + ending] = labels
    return found


def expressions() -> list[tuple[str, str]]:
    return [
        *((alert.name, alert.expr) for alert in rules.alerts()),
        *rules.recorded().items(),
        *((title, rules.filled(expr)) for title, expr in rules.dashboard_expressions()),
    ]


def test_every_metric_and_label_that_is_asked_for_exists(metrics: dict[str, set[str]]) -> None:
    seen = set[str]()
    for title, expr in expressions():
        bare = re.sub(r'"[^"]*"', '""', expr)
        for name, selected in re.findall(r"(?<![\w:])((?:riva_gateway|process)_\w+|up|ALERTS)\b(\{[^}]*\})?", bare):
            assert name in metrics, f"{title}: {name}"
            seen.add(name)
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selected or ""):
                assert label in metrics[name] | OF_SCRAPES, f"{title}: {name}{{{label}}}"
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in seen}
    told = {re.sub(r"_(bucket|sum|count)$", "", name) for name in metrics if name.startswith("riva_gateway_")}
    assert told <= families, f"nothing shows {told - families}"


def test_the_objectives_are_bounds_of_the_histograms() -> None:
    told = Metrics()
    told.partial_latency.labels("native").observe(0.2)
    told.final_latency.labels("native").observe(0.2)
    page = prometheus_client.generate_latest(told.registry).decode()
    assert re.search(r'partial_latency_seconds_bucket\{face="native",le="0\.3"\} 1', page)
    assert re.search(r'final_latency_seconds_bucket\{face="native",le="0\.8"\} 1', page)


# --- the dashboard


def test_the_dashboard_can_be_imported_anywhere() -> None:
    board = rules.dashboard()
    assert board["uid"] == "riva-gateway"
    assert 36 <= board["schemaVersion"] <= 39
    assert not {"id", "version", "__inputs"} & set(board)
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    source = {"type": "prometheus", "uid": "${datasource}"}
    for name in ("job", "instance"):
        assert variables[name]["datasource"] == source
    for panel in rules.panels():
        assert panel["datasource"] == source, panel["title"]
        assert all(target["datasource"] == source for target in panel["targets"]), panel["title"]
    assert all(each["datasource"] == source for each in board["annotations"]["list"])


def test_every_panel_says_what_it_shows_and_in_which_unit() -> None:
    for panel in rules.panels():
        assert panel["title"]
        assert len(panel["description"].split()) >= 5, panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references
        assert len(set(references)) == len(references), panel["title"]


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    board = rules.dashboard()["panels"]
    assert len({panel["id"] for panel in board}) == len(board)
    taken: dict[tuple[int, int], str] = {}
    for panel in board:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]
    assert next(panel["title"] for panel in board if panel["type"] == "row") == "At a glance"


def test_rates_use_grafanas_interval() -> None:
    for title, expr in rules.dashboard_expressions():
        for window in re.findall(r"\[([^]]+)\]", expr):
            assert window in ("$__rate_interval", "$__range") or title == "Starts", f"{title}: {window}"


def test_grafana_finds_datasource_and_dashboard_by_itself() -> None:
    source = rules.document("grafana/datasource.yml")
    assert source["apiVersion"] == 1
    assert source["datasources"][0]["type"] == "prometheus"
    interval = rules.document("prometheus.yml")["global"]["scrape_interval"]
    assert source["datasources"][0]["jsonData"]["timeInterval"] == interval
    provider = rules.document("grafana/dashboards.yml")
    assert provider["apiVersion"] == 1
    assert provider["providers"][0]["options"]["path"]


# --- the examples


def test_prometheus_takes_the_example(tmp_path: Path) -> None:
    for path in rules.FOLDER.glob("*.yml"):
        shutil.copy(path, tmp_path)
    config = rules.document("prometheus.yml")["scrape_configs"][0]
    (tmp_path / config["authorization"]["credentials_file"]).write_text("key\n")
    shutil.copy(self_signed(tmp_path), tmp_path / config["tls_config"]["ca_file"])
    assert "SUCCESS" in ran("promtool", "check", "config", tmp_path / "prometheus.yml")
    assert config["job_name"] == "riva-gateway"


def self_signed(folder: Path) -> Path:
    from server.certificates import localhost_certificate

    return localhost_certificate(folder / "state")[0]


def test_alertmanager_takes_the_example_and_sends_pages_to_the_pager() -> None:
    path = rules.FOLDER / "alertmanager.yml"
    assert "SUCCESS" in ran("amtool", "check-config", path)
    for severity, receiver in ((PAGE, "pager"), (TICKET, "tickets")):
        told = ran("amtool", "config", "routes", "test", f"--config.file={path}", f"severity={severity}")
        assert told.strip() == receiver


def test_what_is_inhibited_exists() -> None:
    names = {alert.name for alert in rules.alerts()}
    for rule in rules.document("alertmanager.yml")["inhibit_rules"]:
        for matcher in (*rule["source_matchers"], *rule["target_matchers"]):
            pattern = re.search(r'"([^"]+)"', matcher)
            assert pattern
            assert any(re.fullmatch(pattern[1], name) for name in names), matcher


# --- the document


def test_the_document_lists_every_alert_with_its_runbook() -> None:
    text = DOCUMENT.read_text("utf-8")
    rows: dict[str, tuple[str, str]] = {
        name: (severity, link)
        for name, severity, link in re.findall(
            r"^\| `(RivaGateway\w+)` \| (\w+) \|.*\]\((runbooks/[^)]+)\) \|$", text, re.M
        )
    }
    wanted: dict[str, tuple[Any, str]] = {
        alert.name: (alert.labels["severity"], alert.annotations["runbook_url"].split("/docs/")[1])
        for alert in rules.alerts()
    }
    assert rows == wanted


def test_the_dashboard_is_written_as_grafana_exports_it() -> None:
    text = (rules.FOLDER / "grafana-dashboard.json").read_text("utf-8")
    assert text == json.dumps(json.loads(text), indent=2, ensure_ascii=False) + "\n"
