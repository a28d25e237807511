"""What a certain cluster takes and a schema cannot say: names that are too long once Kubernetes appends to them, load
balancers of AWS and Google, OpenShift, KEDA, cert-manager's other issuers, labels that an organisation asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jsonschema
import pytest

from .chart import EXAMPLES, LEAST, notes, rendered, values_of, with_least

NIM = {"nim": {"enabled": True}}
KEDA = {"enabled": True}
EDGE = {"enabled": True, "parentRefs": [{"name": "edge"}], "hostnames": ["a.b"], "grpcHostnames": ["g.b"]}
GKE = {**EDGE, "controller": "gke"}
examples = pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)


def trigger(**keda: Any) -> dict[str, Any]:
    of = rendered(with_least(autoscaling={"keda": KEDA | keda}))
    found: dict[str, Any] = of["ScaledObject/riva-gateway"]["spec"]["triggers"][0]
    return found


# --- Kubernetes itself


def test_the_longest_name_leaves_room_for_what_kubernetes_appends() -> None:
    release = "r" * 53  # Helm takes no longer one
    for values in (with_least(**NIM), with_least(**NIM, fullnameOverride="f" * 60)):
        names = [document["metadata"]["name"] for document in rendered(values, name=release).values()]
        assert names
        stateful = next(name for name in names if name.endswith("-nim"))
        assert len(f"{stateful}-0123456789") <= 63  # the label controller-revision-hash
        (deployment,) = (key for key in rendered(values, name=release) if key.startswith("Deployment/"))
        assert len(f"{deployment.partition('/')[2]}-0123456789-") <= 58  # else its pods' names are cut


def test_a_rollout_waits_as_long_as_the_model_takes() -> None:
    for values, least_s in ((LEAST, 600), (with_least(nim={"enabled": True, "startupSeconds": 5000}), 5600)):
        assert rendered(values)["Deployment/riva-gateway"]["spec"]["progressDeadlineSeconds"] >= least_s


def test_everything_has_the_labels_that_are_asked_for() -> None:
    values = with_least(
        **NIM,
        commonLabels={"cost-center": "speech"},
        podLabels={"cost-center": "gateways"},
        deploymentAnnotations={"reloader.stakater.com/auto": "true"},
    )
    of = rendered(values)
    assert {document["metadata"]["labels"]["cost-center"] for document in of.values()} == {"speech"}
    gateway, nim = of["Deployment/riva-gateway"], of["StatefulSet/riva-gateway-nim"]
    assert gateway["metadata"]["annotations"] == {"reloader.stakater.com/auto": "true"}
    labels = [of_pods["spec"]["template"]["metadata"]["labels"]["cost-center"] for of_pods in (gateway, nim)]
    assert labels == ["gateways", "speech"]
    assert not any("cost-center" in each["spec"]["selector"]["matchLabels"] for each in (gateway, nim))  # immutable


def test_a_nims_pod_can_be_marked_and_preferred() -> None:
    more = {"podLabels": {"team": "gpu"}, "podAnnotations": {"a": "b"}, "priorityClassName": "gpu"}
    pod = rendered(with_least(nim={"enabled": True, **more}))["StatefulSet/riva-gateway-nim"]["spec"]["template"]
    assert pod["metadata"]["labels"]["team"] == "gpu"
    assert (pod["metadata"]["annotations"]["a"], pod["spec"]["priorityClassName"]) == ("b", "gpu")


@examples
def test_no_pod_keeps_a_node_that_nobody_needs(path: Path) -> None:
    """The cluster autoscaler keeps a node while a pod on it has an emptyDir that its annotation does not name."""
    for document in rendered(values_of(path)).values():
        if document["kind"] in ("Deployment", "StatefulSet"):
            pod = document["spec"]["template"]
            local = {volume["name"] for volume in pod["spec"]["volumes"] if "emptyDir" in volume}
            said = pod["metadata"]["annotations"]["cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes"]
            assert set(said.split(",")) == local


def test_ones_own_volumes_can_be_named_to_the_autoscaler() -> None:
    mine = {"cluster-autoscaler.kubernetes.io/safe-to-evict-local-volumes": "state,tmp,more"}
    pod = rendered(with_least(podAnnotations=mine))["Deployment/riva-gateway"]["spec"]["template"]
    assert pod["metadata"]["annotations"].items() >= mine.items()


# --- the network


@pytest.mark.parametrize("kind", ["gateway", "nim"])
def test_names_are_found_where_the_dns_pods_listen_elsewhere(kind: str) -> None:
    name = {"gateway": "riva-gateway", "nim": "riva-gateway-nim"}[kind]
    rule = rendered(with_least(**NIM))[f"NetworkPolicy/{name}"]["spec"]["egress"][0]
    ports = {(port["port"], port["protocol"]) for port in rule["ports"]}
    assert ports == {(port, protocol) for port in (53, 5353) for protocol in ("TCP", "UDP")}  # 5353: OpenShift
    assert "to" not in rule  # a cache on the node


def test_a_nim_may_be_reached_by_another_releases_gateways() -> None:
    peer = {"podSelector": {"matchLabels": {"app.kubernetes.io/instance": "riva-gateway"}}}
    of = rendered(with_least(**NIM, networkPolicy={"nimClients": [peer]}), name="riva-gateway-next")
    (rule,) = of["NetworkPolicy/riva-gateway-next-nim"]["spec"]["ingress"]
    own = of["Deployment/riva-gateway-next"]["spec"]["template"]["metadata"]["labels"]
    assert rule["from"] == [{"podSelector": {"matchLabels": own}}, peer]
    assert {port["port"] for port in rule["ports"]} == {"grpc", "http"}


def test_a_nim_may_reach_its_proxy() -> None:
    rule = {"ports": [{"port": 3128, "protocol": "TCP"}]}
    of = rendered(with_least(**NIM, networkPolicy={"egress": {"nim": [rule]}}))
    assert rule in of["NetworkPolicy/riva-gateway-nim"]["spec"]["egress"]
    assert rule not in of["NetworkPolicy/riva-gateway"]["spec"]["egress"]


def test_keys_of_an_identity_provider_may_be_at_another_port() -> None:
    jwt = {"JWT_KEYS": "https://idp.example.com:9443/keys", "JWT_ISSUER": "i", "JWT_AUDIENCE": "a"}
    egress = rendered(with_least(settings=jwt))["NetworkPolicy/riva-gateway"]["spec"]["egress"]
    assert 9443 in {port["port"] for rule in egress for port in rule["ports"]}


@pytest.mark.parametrize(
    "way",
    [{"ingress": {"enabled": True, "host": "a.b"}}, {"gatewayApi": EDGE}, {"service": {"type": "LoadBalancer"}}],
    ids=["ingress", "gateway", "load balancer"],
)
def test_a_way_in_that_the_network_policy_closes_is_told(way: dict[str, Any]) -> None:
    told = "networkPolicy.clients"
    assert told in notes(with_least(**way))
    assert told not in notes(with_least(**way, networkPolicy={"clients": [{"namespaceSelector": {}}]}))
    assert told not in notes(with_least(**way, networkPolicy={"enabled": False}))
    assert told not in notes(LEAST)


@examples
def test_every_example_lets_in_whom_it_names(path: Path) -> None:
    """Prometheus too, with a key that the gateway knows."""
    values = values_of(path)
    told = notes(values)
    assert "networkPolicy.clients" not in told
    assert "networkPolicy.prometheus" not in told
    assert "Prometheus shows no key" not in told
    if values.get("monitoring", {}).get("scrape", {}).get("enabled"):
        assert values["apiKeys"]["secret"]


def test_a_scrape_without_a_key_is_told() -> None:
    scrape = {"scrape": {"enabled": True}}
    told = notes(with_least(monitoring=scrape))
    assert "Prometheus shows no key" in told
    assert "networkPolicy.prometheus" in told
    assert "Prometheus shows no key" not in notes(with_least(monitoring=scrape, settings={"AUTH": False}))


def test_clients_own_addresses_can_be_kept() -> None:
    service = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
    assert rendered(with_least(service=service))["Service/riva-gateway"]["spec"]["externalTrafficPolicy"] == "Local"
    inside = {"type": "ClusterIP", "externalTrafficPolicy": "Local"}  # the API server refuses it there
    assert "externalTrafficPolicy" not in rendered(with_least(service=inside))["Service/riva-gateway"]["spec"]


# --- AWS


def test_releases_of_two_namespaces_do_not_share_a_load_balancer() -> None:
    values = with_least(ingress={"enabled": True, "controller": "alb", "host": "a.b"})
    groups = {
        rendered(values, namespace=namespace)["Ingress/riva-gateway"]["metadata"]["annotations"][
            "alb.ingress.kubernetes.io/group.name"
        ]
        for namespace in ("staging", "production", "n" * 63)
    }
    assert len(groups) == 3
    assert all(len(group) <= 63 for group in groups)


# --- the Gateway API


OWN = {"tls": {"mode": "secret", "secret": "own"}}
_NAME = {"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", "maxLength": 253}


def _exactly(**fields: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(fields), "additionalProperties": False, "properties": fields}


BACKEND_TLS = _exactly(
    targetRefs={
        "type": "array",
        "minItems": 1,
        "maxItems": 1,  # 16 are allowed, and Gateways need not take a second one
        "items": _exactly(group={"const": ""}, kind={"const": "Service"}, name=_NAME, sectionName=_NAME),
    },
    validation={
        "oneOf": [
            _exactly(
                hostname=_NAME,
                caCertificateRefs={
                    "type": "array",
                    "minItems": 1,
                    "items": _exactly(group={"const": ""}, kind={"enum": ["ConfigMap", "Secret"]}, name=_NAME),
                },
            ),
            _exactly(hostname=_NAME, wellKnownCACertificates={"const": "System"}),
        ]
    },
)
"""What the definition of Gateway API 1.4 asks of a BackendTLSPolicy, as far as the chart uses it."""


def to_pods(**backend_tls: Any) -> dict[str, Any]:
    return EDGE | {"backendTLS": {"enabled": True} | backend_tls}


def policies(values: dict[str, Any]) -> dict[str, Any]:
    of = rendered(values)
    found = [document for document in of.values() if document["kind"] == "BackendTLSPolicy"]
    assert {document["apiVersion"] for document in found} <= {"gateway.networking.k8s.io/v1"}  # alpha before 1.4
    ports = {port["name"] for port in of["Service/riva-gateway"]["spec"]["ports"]}
    for document in found:
        jsonschema.validate(document["spec"], BACKEND_TLS)
        (target,) = document["spec"]["targetRefs"]
        assert target["name"] == of["Service/riva-gateway"]["metadata"]["name"]
        assert target["sectionName"] in ports
    return {document["spec"]["targetRefs"][0]["sectionName"]: document["spec"]["validation"] for document in found}


def test_a_gateway_verifies_the_pods_at_both_ports() -> None:
    found = policies(with_least(**OWN, gatewayApi=to_pods(ca={"name": "authority"})))
    ca = [{"group": "", "kind": "ConfigMap", "name": "authority"}]
    assert found["https"] == {"caCertificateRefs": ca, "hostname": "riva-gateway.speech.svc"}
    assert found["grpc"] == found["https"]
    plain = with_least(**OWN, gatewayApi=to_pods(), settings={"GRPC_TLS": False})
    assert policies(plain).keys() == {"https"}
    assert policies(with_least(**OWN, gatewayApi=EDGE)) == {}


def test_a_gateway_may_trust_whom_everybody_trusts() -> None:
    issued = {"mode": "certManager", "certManager": {"issuer": {"name": "public"}, "dnsNames": ["speech.example.com"]}}
    found = policies(with_least(tls=issued, gatewayApi=to_pods()))
    assert found["https"] == {"wellKnownCACertificates": "System", "hostname": "speech.example.com"}
    of = rendered(with_least(tls=issued, gatewayApi=to_pods()))
    assert found["https"]["hostname"] in of["Certificate/riva-gateway"]["spec"]["dnsNames"]
    given = to_pods(ca={"kind": "Secret", "name": "riva-gateway-tls"}, hostname="edge.example.com")
    assert policies(with_least(tls=issued, gatewayApi=given))["grpc"] == {
        "caCertificateRefs": [{"group": "", "kind": "Secret", "name": "riva-gateway-tls"}],
        "hostname": "edge.example.com",
    }


def test_a_gateway_that_nobody_told_of_tls_is_told_of() -> None:
    told = "gatewayApi.backendTLS"
    assert told in notes(with_least(gatewayApi=EDGE))
    assert told not in notes(with_least(**OWN, gatewayApi=to_pods()))
    assert told not in notes(with_least(gatewayApi=EDGE, tls={"mode": "none"}))
    assert told not in notes(with_least(gatewayApi=GKE))
    assert told not in notes(LEAST)


@examples
def test_in_every_example_a_gateway_speaks_what_the_pods_speak(path: Path) -> None:
    assert "gatewayApi.backendTLS" not in notes(values_of(path))


@pytest.mark.parametrize("edge", [EDGE, GKE], ids=["any", "gke"])
def test_a_part_of_the_requests_goes_to_another_release(edge: dict[str, Any]) -> None:
    with_canary = with_least(gatewayApi=edge | {"canary": {"service": "riva-gateway-canary", "percent": 20}})
    of, before = rendered(with_canary), rendered(with_least(gatewayApi=edge))
    routes = [document["spec"]["rules"][0]["backendRefs"] for name, document in of.items() if "Route/" in name]
    assert routes == [
        [
            {"name": "riva-gateway", "port": port, "weight": 80},
            {"name": "riva-gateway-canary", "port": port, "weight": 20},
        ]
        for port in (8443, 50052)
    ]
    changed = {name for name in of if of[name] != before[name]}
    assert all("Route/" in name for name in changed)  # no pod is renewed by it
    assert of.keys() == before.keys()


@pytest.mark.parametrize("edge", [to_pods(), GKE], ids=["any", "gke"])
def test_the_other_release_has_policies_and_no_routes(edge: dict[str, Any]) -> None:
    whole = rendered(with_least(**OWN, gatewayApi=edge))
    alone = rendered(with_least(**OWN, gatewayApi=edge | {"routes": False, "parentRefs": []}))
    routes = {name for name in whole if "Route/" in name}
    assert len(routes) == 2
    assert alone.keys() == whole.keys() - routes
    assert any("Policy/riva-gateway" in name for name in alone.keys() - {"NetworkPolicy/riva-gateway"})


# --- Google


def test_googles_load_balancers_get_what_they_understand() -> None:
    of = rendered(with_least(gatewayApi=GKE, tls={"mode": "secret", "secret": "own"}))
    ports = {port["name"]: port["appProtocol"] for port in of["Service/riva-gateway"]["spec"]["ports"]}
    assert ports == {"https": "HTTPS", "grpc": "HTTP2"}  # small letters are not understood
    routes = {name: document["spec"] for name, document in of.items() if "Route/" in name}
    assert routes.keys() == {"HTTPRoute/riva-gateway", "HTTPRoute/riva-gateway-grpc"}  # there is no GRPCRoute
    assert not any("timeouts" in rule for spec in routes.values() for rule in spec["rules"])  # such a route is refused
    assert routes["HTTPRoute/riva-gateway-grpc"]["rules"][0]["backendRefs"] == [{"name": "riva-gateway", "port": 50052}]
    service = {"group": "", "kind": "Service", "name": "riva-gateway"}
    backend, health = of["GCPBackendPolicy/riva-gateway"]["spec"], of["HealthCheckPolicy/riva-gateway"]["spec"]
    assert backend["targetRef"] == health["targetRef"] == service
    assert backend["default"]["timeoutSec"] == 86400
    grace_s = of["Deployment/riva-gateway"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
    assert backend["default"]["connectionDraining"] == {"drainingTimeoutSec": grace_s}
    ready = {"portSpecification": "USE_FIXED_PORT", "port": 8443, "requestPath": "/readyz"}
    assert health["default"]["config"] == {"type": "HTTPS", "httpsHealthCheck": ready}


def test_googles_load_balancers_are_told_of_plain_text() -> None:
    of = rendered(with_least(gatewayApi=GKE, tls={"mode": "none"}))
    ports = {port["name"]: port["appProtocol"] for port in of["Service/riva-gateway"]["spec"]["ports"]}
    assert ports == {"https": "HTTP", "grpc": "kubernetes.io/h2c"}
    assert of["HealthCheckPolicy/riva-gateway"]["spec"]["default"]["config"].keys() == {"type", "httpHealthCheck"}


# --- KEDA, cert-manager, the Prometheus operator


def test_no_answer_of_prometheus_is_not_taken_for_no_streams() -> None:
    assert trigger()["metadata"]["ignoreNullValues"] == "false"


@examples
def test_no_example_has_fewer_gateways_while_prometheus_is_away(path: Path) -> None:
    for document in rendered(values_of(path)).values():
        if document["kind"] == "ScaledObject":
            spec = document["spec"]
            assert spec["fallback"]["replicas"] >= spec["maxReplicaCount"]


def test_keda_shows_prometheus_a_credential() -> None:
    asked = trigger(
        authenticationRef="prometheus",
        authenticationKind="ClusterTriggerAuthentication",
        metadata={"authModes": "bearer", "unsafeSsl": "true"},
    )
    assert asked["authenticationRef"] == {"name": "prometheus", "kind": "ClusterTriggerAuthentication"}
    assert (
        asked["metadata"].items() >= {"authModes": "bearer", "unsafeSsl": "true", "ignoreNullValues": "false"}.items()
    )
    assert asked["metadata"]["serverAddress"].startswith("http://")


def test_an_issuer_may_be_of_another_kind() -> None:
    issuer = {"name": "private", "kind": "AWSPCAClusterIssuer", "group": "awspca.cert-manager.io"}
    tls = {"mode": "certManager", "certManager": {"issuer": issuer, "dnsNames": ["a.b"]}}
    assert rendered(with_least(tls=tls))["Certificate/riva-gateway"]["spec"]["issuerRef"] == issuer


@pytest.mark.parametrize(("in_it", "asked"), [(False, "speech.example.com"), (True, "riva-gateway.speech.svc")])
def test_prometheus_asks_for_a_name_that_is_in_the_certificate(in_it: bool, asked: str) -> None:
    issued = {"issuer": {"name": "ca"}, "dnsNames": ["speech.example.com"], "clusterNames": in_it}
    of = rendered(
        with_least(
            tls={"mode": "certManager", "certManager": issued},
            monitoring={"scrape": {"enabled": True, "ca": {"secret": "riva-gateway-tls"}}},
        )
    )
    name = of["ServiceMonitor/riva-gateway"]["spec"]["endpoints"][0]["tlsConfig"]["serverName"]
    assert name == asked
    assert name in of["Certificate/riva-gateway"]["spec"]["dnsNames"]
