"""What cannot work is refused before anything is installed, with what to do about it."""

from __future__ import annotations

from typing import Any

import helm_python
import pytest

from .chart import checked, rendered, with_least

NIM = {"nim": {"enabled": True}}
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("nobody recognizes", {"settings": {"AUTH": "on"}}, "riva.endpoints"),
    ("riva without any", {"settings": {"AUTH": "on", "ASR_ENGINE": "riva"}}, "riva.endpoints"),
    ("open to all", {"riva": {"endpoints": ["riva:50051"]}}, "apiKeys.secret"),
    ("secret unnamed", with_least(tls={"mode": "secret"}), "tls.secret"),
    ("issuer unnamed", with_least(tls={"mode": "certManager"}), "tls.certManager.issuer.name"),
    ("no name in it", with_least(tls={"mode": "certManager", "certManager": {"issuer": {"name": "ca"}}}), "dnsNames"),
    ("probes are refused", with_least(tls={"clientCA": {"secret": "ca"}}), "tls.probeCertificate.secret"),
    (
        "certificates without tls",
        with_least(tls={"mode": "none", "clientCA": {"secret": "ca"}, "probeCertificate": {"secret": "probe"}}),
        "tls.mode",
    ),
    ("two owners", with_least(autoscaling={"hpa": {"enabled": True}, "keda": {"enabled": True}}), "Enable one"),
    (
        "most below least",
        with_least(autoscaling={"hpa": {"enabled": True}, "minReplicas": 5, "maxReplicas": 2}),
        "maxReplicas",
    ),
    (
        "more than are let in",
        with_least(autoscaling={"keda": {"enabled": True}}, settings={"MAX_STREAMS": 50}),
        "MAX_STREAMS",
    ),
    ("one folder for several", with_least(replicas=2, persistence={"enabled": True}), "jobs.spool"),
    ("jobs of several", with_least(replicas=2, jobs={"enabled": True}), "jobs.database.secret"),
    (
        "jobs of a growing number",
        with_least(autoscaling={"hpa": {"enabled": True}}, jobs={"enabled": True}),
        "jobs.database.secret",
    ),
    (
        "uploads go with the pod",
        with_least(replicas=2, jobs={"enabled": True, "database": {"secret": "db"}}),
        "jobs.spool.enabled",
    ),
    ("jobs that are not kept", with_least(jobs={"enabled": True}), "persistence.enabled"),
    ("streams are killed", with_least(terminationGracePeriodSeconds=35), "take 35 s"),
    ("no host", with_least(ingress={"enabled": True}), "ingress.host"),
    ("one host for both", with_least(ingress={"enabled": True, "host": "a.b", "grpcHost": "a.b"}), "ingress.grpcHost"),
    (
        "a route to nothing",
        with_least(ingress={"enabled": True, "host": "a.b", "grpcHost": "g.b"}, grpc={"enabled": False}),
        "grpc.enabled",
    ),
    ("no gateway", with_least(gatewayApi={"enabled": True}), "gatewayApi.parentRefs"),
    *(
        (
            f"nothing to verify: {mode}",
            with_least(
                gatewayApi={"enabled": True, "parentRefs": [{"name": "edge"}], "backendTLS": {"enabled": True}},
                tls={"mode": mode},
            ),
            "gatewayApi.backendTLS",
        )
        for mode in ("selfMade", "none")
    ),
    (
        "no routes to divide",
        with_least(gatewayApi={"enabled": True, "routes": False, "canary": {"service": "riva-gateway-canary"}}),
        "gatewayApi.canary",
    ),
    *(
        (
            f"both routes for one name: {http}",
            with_least(
                gatewayApi={
                    "enabled": True,
                    "parentRefs": [{"name": "edge"}],
                    "hostnames": http,
                    "grpcHostnames": [grpc],
                }
            ),
            "gatewayApi.grpcHostnames",
        )
        for http, grpc in (([], "g.a.b"), (["w.a.b", "g.a.b"], "g.a.b"), (["*.a.b"], "g.a.b"), (["w.a.b"], "*.a.b"))
    ),
    (
        "prometheus has no certificate",
        with_least(
            tls={
                "mode": "secret",
                "secret": "own",
                "clientCA": {"secret": "ca"},
                "probeCertificate": {"secret": "probe"},
            },
            monitoring={"scrape": {"enabled": True}},
        ),
        "monitoring.scrape.clientCertificate",
    ),
    ("a setting as a variable", with_least(extraEnv=[{"name": "MAX_STREAMS", "value": "5"}]), "settings"),
    ("an unknown one", with_least(extraEnv=[{"name": "RIVA_ENDPIONTS", "value": "x"}]), "RIVA_ENDPIONTS"),
    (
        "no secret",
        with_least(secrets={"keys": {"MAX_STREAMS": {"secret": "a", "key": "b"}}}),
        "secrets.keys.MAX_STREAMS",
    ),
]
MISTYPED: list[tuple[str, dict[str, Any], str]] = [
    ("a value", {"replica": 2}, "replica"),
    ("deep down", {"tls": {"certManager": {"issuer": {"nmae": "x"}}}}, "nmae"),
    ("a setting", {"settings": {"MAX_STREEMS": 5}}, "MAX_STREEMS"),
    ("no number", {"settings": {"MAX_STREAMS": "many"}}, "MAX_STREAMS"),
    ("too large", {"settings": {"DRAIN_DELAY_MS": 600_001}}, "DRAIN_DELAY_MS"),
    ("no such choice", {"settings": {"LOG_FORMAT": "xml"}}, "LOG_FORMAT"),
    ("a secret itself", {"settings": {"RIVA_API_KEY": "nvapi-something"}}, "RIVA_API_KEY"),
    ("an address without a port", {"riva": {"endpoints": ["riva.example.com"]}}, "endpoints"),
    ("no time for the model", {"nim": {"startupSeconds": 300}}, "startupSeconds"),
    ("a folder elsewhere", {"nim": {"gpu": "../L4"}}, "gpu"),
    ("more than all", {"gatewayApi": {"canary": {"percent": 101}}}, "percent"),
    ("whatever is newest", {"nim": {"image": {"tag": "latest"}}}, "tag"),
    (
        "streams lose their gateway",
        {"autoscaling": {"scaleDown": {"stabilizationSeconds": 60}}},
        "stabilizationSeconds",
    ),
]


@pytest.mark.parametrize(("values", "word"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_cannot_work_is_refused_with_what_to_do(values: dict[str, Any], word: str) -> None:
    with pytest.raises(helm_python.HelmRenderError) as refused:
        rendered(values)
    said = str(refused.value)
    assert word in said
    assert "nil pointer" not in said


@pytest.mark.parametrize(("values", "word"), [case[1:] for case in MISTYPED], ids=[case[0] for case in MISTYPED])
def test_what_is_mistyped_is_refused_by_its_name(values: dict[str, Any], word: str) -> None:
    with pytest.raises(helm_python.HelmValuesError, match=word):
        checked(with_least(**values))


def test_a_grace_period_that_is_long_enough_is_taken() -> None:
    spec = rendered(with_least(terminationGracePeriodSeconds=36))["Deployment/riva-gateway"]["spec"]["template"]["spec"]
    assert spec["terminationGracePeriodSeconds"] == 36


def test_jobs_of_one_gateway_need_no_database() -> None:
    of = rendered(with_least(jobs={"enabled": True}, persistence={"enabled": True}))
    assert of["PersistentVolumeClaim/riva-gateway-state"]["metadata"]["annotations"] == {
        "helm.sh/resource-policy": "keep"
    }
    assert of["Deployment/riva-gateway"]["spec"]["strategy"] == {"type": "Recreate"}
