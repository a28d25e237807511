"""An endpoint on SageMaker: up, up again, changed, changed to something that fails, and down to nothing; and what of it
stays where a flag says nothing.
"""

from __future__ import annotations

import json

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
    operator.ok("deploy", "--yes", "--selector", "mode=str,type=prompt")
    second = operator.endpoint()["EndpointConfigName"]
    assert second != first
    operator.ok("deploy", "--yes", "--profile", "rnnt", "--type", "ml.g5.2xlarge")
    third = operator.endpoint()["EndpointConfigName"]
    configs, models = operator.names()
    assert sorted(configs) == sorted([second, third])
    assert len(models) == 2

    # changed to something that does not come up: the former one serves
    operator.cloud.faults.set(endpoint_fails=True)
    ran = operator.run("deploy", "--yes", "--type", "ml.g6e.2xlarge")
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


@pytest.fixture(scope="module")
def served(operator: Operator) -> Operator:
    """With an endpoint."""
    if not operator.cloud.client("sagemaker").list_endpoints()["Endpoints"]:
        operator.ok("deploy", "--yes", "--no-smoke")
    return operator


def _refused(operator: Operator, said: str, *words: str, what: str = "deploy", **env: str) -> None:
    """It ends with status 2 and these words, and has changed nothing."""
    before = operator.changes()
    ran = operator.run(what, *words, **env)
    assert (ran.status, said in ran.err) == (2, True), ran.err
    assert operator.changes() == before


def test_what_is_not_said_stays(served: Operator) -> None:
    served.ok("deploy", "--yes", "--type", "ml.g5.2xlarge", "--start-timeout", "3000", "--max-instances", "3",
              "--target", "50", "--env", "LOG_LEVEL=debug,MAX_AUDIO_MS=1000")  # fmt: skip
    served.cloud.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=ENDPOINT, DesiredWeightsAndCapacities=[{"VariantName": "primary", "DesiredInstanceCount": 2}]
    )
    # a change shows what it changes, that alone, and asks before anything is made
    words = ("--type", "ml.g6.4xlarge", "--env", "MAX_AUDIO_MS=")
    _refused(served, "  type  ml.g5.2xlarge → ml.g6.4xlarge\n  MAX_AUDIO_MS  1000 → none\n", *words)
    served.ok("deploy", "--yes", *words)
    variant, environment = served.config()["ProductionVariants"][0], served.model()["PrimaryContainer"]["Environment"]
    assert (variant["InstanceType"], variant["ContainerStartupHealthCheckTimeoutInSeconds"]) == ("ml.g6.4xlarge", 3000)
    assert (environment["LOG_LEVEL"], environment["NIM_START_TIMEOUT_MS"]) == ("debug", "2940000")
    assert "MAX_AUDIO_MS" not in environment
    # two instances carry the load: so they do after another machine type, for which scaling rests
    update = [call for call in served.cloud.calls if call.operation == "UpdateEndpoint"][-1]
    assert update.parameters["RetainAllVariantProperties"] is True
    # the bounds of scaling alone: its target stays
    served.ok("deploy", "--yes", "--max-instances", "4")
    scaling = served.cloud.client("application-autoscaling")
    (bounds,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    (policy,) = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert (bounds["MinCapacity"], bounds["MaxCapacity"]) == (1, 4)
    assert policy["TargetTrackingScalingPolicyConfiguration"]["TargetValue"] == 50


def test_models_come_with_the_image_that_has_them(served: Operator) -> None:
    was = served.model()["PrimaryContainer"]
    address = served.ok("image", "--yes", "--profile", "ctc")
    # nothing is said: nothing changes, and the newer image is told of
    before = served.changes()
    assert "--image newest" in served.run("deploy", "--yes").err
    assert (served.changes(), served.model()["PrimaryContainer"]) == (before, was)
    _refused(served, "has the models of 'ctc'", "--yes", "--image", address, "--profile", "rnnt")
    _refused(served, "no image of nemotron", "--yes", "--profile", "nemotron")
    served.ok("deploy", "--yes", "--no-smoke", "--image", "newest")
    now = served.model()["PrimaryContainer"]
    assert now["Image"] == address
    assert now["Environment"]["NIM_TAGS_SELECTOR"] == "name=parakeet-1-1b-ctc-en-us,mode=str"
    served.ok("deploy", "--yes", "--no-smoke", "--profile", "rnnt")
    assert (served.model()["PrimaryContainer"]["Image"], address != was["Image"]) == (was["Image"], True)


def test_what_would_fail_after_half_an_hour_is_refused_at_once(served: Operator) -> None:
    image = served.model()["PrimaryContainer"]["Image"]
    _refused(served, "does not become one that reads from S3", "--yes", "--async")
    _refused(served, "SageMaker has no ml.gr6.4xlarge", "--yes", "--type", "ml.gr6.4xlarge")
    _refused(served, "at a price that is not known", "--type", "ml.p4de.24xlarge")
    _refused(served, "it takes images from ECR alone", "--yes", "--image", "nvcr.io/nim/nvidia/x:1")
    _refused(served, "has no gateway in it", "--image", "public.ecr.aws/nvidia/nim:x", what="image")
    # an endpoint that reads from S3, with another one's image
    files = {"DEPLOY_NAME": "files"}
    wish = ("--yes", "--async", "--image", image)
    served.ok("role", "--yes", "--async", "--topic", "arn:aws:sns:us-east-2:123456789012:told", **files)
    _refused(served, "riva-310-sagemaker-role.sh --async --image-of speech", *wish, **files)
    served.ok("role", "--yes", "--image-of", NAME, **files)
    served.cloud.client("s3").delete_bucket(Bucket="riva-files-sm-123456789012-us-east-2")
    _refused(served, "there is no bucket riva-files-sm-", *wish, **files)
    iam, policy = served.cloud.client("iam"), {"RoleName": "riva-files-sagemaker", "PolicyName": "endpoint"}
    may = json.dumps(iam.get_role_policy(**policy)["PolicyDocument"])
    assert ":told" in may
    iam.put_role_policy(**policy, PolicyDocument=may.replace("/sagemaker/in/", "/elsewhere/"))
    _refused(served, "may not use what this endpoint needs: s3:::riva-files-sm-", *wish, **files)


def test_a_change_that_aws_has_no_room_for_is_no_bad_version(served: Operator) -> None:
    was, names = served.endpoint()["EndpointConfigName"], served.names()
    served.cloud.faults.set(denied=["sagemaker:UpdateEndpoint"])
    ran = served.run("deploy", "--yes", "--type", "ml.g6.8xlarge")
    assert (ran.status, "serves as before" in ran.err) == (1, True), ran.err
    assert "ResourceLimitExceeded: ask for more of 'ml.g6.8xlarge for endpoint usage'" in ran.err
    served.cloud.faults.clear()
    served.cloud.faults.set(endpoint_fails="Unable to provision requested ML compute capacity")
    ran = served.run("deploy", "--yes", "--type", "ml.g6.8xlarge")
    assert (ran.status, f"AWS has no ml.g6.8xlarge now; {was} serves as before" in ran.err) == (3, True), ran.err
    assert (served.endpoint()["EndpointConfigName"], sorted(served.names())) == (was, sorted(names))


def test_it_all_goes_away(served: Operator) -> None:
    assert served.leaks() == []
    served.ok("destroy", "--yes")
    assert served.cloud.leftovers(NAME) == []
    served.ok("destroy", "--yes")
    assert served.leaks() == []
