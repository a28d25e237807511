"""What the chart hands to the Prometheus operator is what `scripts/monitoring` says, and what scales asks for figures
that the gateway has."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

import rules

from .chart import ROOT, rendered, with_least

METRICS = set(re.findall(r"`(riva_gateway_\w+)", (ROOT / "docs" / "metrics.md").read_text("utf-8")))
ALL = {"rules": {"enabled": True}, "dashboard": {"enabled": True}, "scrape": {"enabled": True}}


def monitoring(**more: Any) -> dict[str, Any]:
    return rendered(with_least(monitoring=ALL, **more))


def test_the_rules_are_those_of_the_project() -> None:
    groups = [group for file in rules.RULE_FILES for group in rules.document(file)["groups"]]
    assert monitoring()["PrometheusRule/riva-gateway"]["spec"]["groups"] == groups


def test_links_to_runbooks_begin_with_the_address_that_is_given() -> None:
    given = {"rules": {"enabled": True, "repository": "https://git.example.com/gateway"}}
    groups = rendered(with_least(monitoring=given))["PrometheusRule/riva-gateway"]["spec"]["groups"]
    links = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(links) == len(rules.alerts())
    assert all(link.startswith("https://git.example.com/gateway/docs/runbooks/") for link in links)


def test_the_dashboard_is_that_of_the_project() -> None:
    config = monitoring()["ConfigMap/riva-gateway-dashboard"]
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["riva-gateway.json"]) == rules.dashboard()


@pytest.mark.parametrize(("kind", "where"), [("ServiceMonitor", "endpoints"), ("PodMonitor", "podMetricsEndpoints")])
def test_prometheus_finds_every_gateway_under_the_name_that_alerts_look_for(kind: str, where: str) -> None:
    scrape = {"enabled": True, "kind": kind, "apiKey": {"secret": "metrics"}, "ca": {"secret": "authority"}}
    tls = {"mode": "secret", "secret": "own"}
    of = rendered(with_least(monitoring={"scrape": scrape}, tls=tls))
    (endpoint,) = of[f"{kind}/riva-gateway"]["spec"][where]
    assert (endpoint["path"], endpoint["scheme"], endpoint["port"]) == ("/metrics", "https", "https")
    assert endpoint["authorization"]["credentials"] == {"name": "metrics", "key": "metrics-key"}
    assert endpoint["tlsConfig"]["serverName"] == "riva-gateway.speech.svc"
    assert "insecureSkipVerify" not in endpoint["tlsConfig"]
    assert {"targetLabel": "job", "replacement": "riva-gateway"} in endpoint["relabelings"]
    assert any('up{job="riva-gateway"}' in alert.expr for alert in rules.alerts())
    selector = of[f"{kind}/riva-gateway"]["spec"]["selector"]["matchLabels"]
    assert selector.items() <= of["Service/riva-gateway"]["metadata"]["labels"].items()


def test_scaling_asks_for_a_figure_that_the_gateway_has() -> None:
    scaled = rendered(with_least(autoscaling={"keda": {"enabled": True}}))["ScaledObject/riva-gateway"]["spec"]
    query = scaled["triggers"][0]["metadata"]["query"]
    assert set(re.findall(r"riva_gateway_\w+", query)) == {"riva_gateway_streams_active"} <= METRICS
    pattern = re.search(r'pod=~"([^"]+)"', query)
    assert pattern is not None
    assert re.fullmatch(pattern[1], "riva-gateway-5d4f8c7b9-x2x9z")
    assert not re.fullmatch(pattern[1], "riva-gateway-canary-5d4f8c7b9-x2x9z")
    assert not re.fullmatch(pattern[1], "riva-gateway-nim-0")


def test_the_adapter_makes_the_metric_that_the_autoscaler_asks_for() -> None:
    adapter = yaml.safe_load((ROOT / "scripts" / "kubernetes" / "prometheus-adapter.yaml").read_text("utf-8"))
    (rule,) = adapter["rules"]["custom"]
    scaled = rendered(with_least(autoscaling={"hpa": {"enabled": True}}))["HorizontalPodAutoscaler/riva-gateway"]
    assert scaled["spec"]["metrics"][0]["pods"]["metric"]["name"] == rule["name"]["as"]
    assert re.fullmatch(rule["name"]["matches"], "riva_gateway_streams_active")
    assert rule["metricsQuery"].startswith("sum(")
