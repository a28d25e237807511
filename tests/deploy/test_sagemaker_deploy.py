"""An endpoint on SageMaker: up, up again, changed, changed to something that fails, and down to nothing."""

from __future__ import annotations

import pytest

from cloud.client import Cloud
from deploy.sagemaker_steps import ENDPOINT, KEY, NAME, Operator


@pytest.fixture(scope="module")
def operator(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """With an image and a role."""
    cloud.reset()
    found = Operator(cloud, tmp_path_factory.mktemp("o"))
    found.ok("image", "--yes", NGC_API_KEY=KEY)
    found.ok("role", "--yes")
    return found


def test_the_way_of_an_endpoint(operator: Operator) -> None:
    assert operator.ok("deploy", "--yes") == ENDPOINT
    first = operator.endpoint()["EndpointConfigName"]
    variant = operator.config()["ProductionVariants"][0]
    assert variant["InstanceType"] == "ml.g6.2xlarge"
    assert variant["InferenceAmiVersion"] == "al2023-ami-sagemaker-inference-gpu-4-1"
    assert variant["ContainerStartupHealthCheckTimeoutInSeconds"] == 2400
    container = operator.model()["PrimaryContainer"]
    assert "@sha256:" in container["Image"]
    assert container["Environment"]["NGC_API_KEY"] == f"aws-sm:riva-{NAME}/ngc"
    assert container["Environment"]["NIM_START_TIMEOUT_MS"] == "2340000"

    # again: nothing to do
    before = operator.changes()
    operator.ok("deploy", "--yes")
    assert [call for call in operator.changes()[len(before) :] if not call.endswith(":InvokeEndpoint")] == []

    # changed: another name, and the former one is kept
    operator.ok("deploy", "--yes", "--profile", "ctc")
    second = operator.endpoint()["EndpointConfigName"]
    assert second != first
    operator.ok("deploy", "--yes", "--profile", "nemotron", "--type", "ml.g5.2xlarge")
    third = operator.endpoint()["EndpointConfigName"]
    configs, models = operator.names()
    assert sorted(configs) == sorted([second, third])
    assert len(models) == 2

    # changed to something that does not come up: the former one serves
    operator.cloud.faults.set(endpoint_fails=True)
    ran = operator.run("deploy", "--yes", "--profile", "ctc", "--type", "ml.g6e.2xlarge")
    operator.cloud.faults.clear()
    assert ran.status == 4, ran.err
    assert (operator.endpoint()["EndpointConfigName"], operator.endpoint()["EndpointStatus"]) == (third, "InService")
    assert sorted(operator.names()[0]) == sorted([second, third])
    assert "serves again" in ran.err

    # by hand
    operator.ok("deploy", "--yes", "--rollback")
    assert operator.endpoint()["EndpointConfigName"] == second
    status = operator.ok("status")
    assert f"version        {second}" in status
    assert f"before         {third}" in status
    assert "about $1.22 an hour" in status

    assert operator.leaks() == []
    operator.ok("destroy", "--yes")
    assert operator.cloud.leftovers(NAME) == []
    operator.ok("destroy", "--yes")
    assert operator.leaks() == []
