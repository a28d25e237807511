"""The SageMaker scripts beside the usual way: images, recordings from S3, every route, and what they refuse."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cloud.client import Cloud
from deploy.sagemaker_steps import ENDPOINT, KEY, NAME, Operator


@pytest.fixture
def operator(cloud: Cloud, tmp_path: Path) -> Operator:
    cloud.faults.clear()
    cloud.reset()
    return Operator(cloud, tmp_path)


def test_an_image_is_built_once_for_what_is_in_it(operator: Operator) -> None:
    address = operator.ok("image", "--yes", NGC_API_KEY=KEY)
    assert address.startswith(f"123456789012.dkr.ecr.us-east-2.amazonaws.com/riva-{NAME}@sha256:")
    (build,) = [line for line in operator.docker if line.startswith("docker build ")]
    assert "NIM_IMAGE=nvcr.io/nim/nvidia/parakeet-1-1b-rnnt-multilingual:1.5.0" in build
    (found,) = operator.cloud.client("ecr").describe_repositories()["repositories"]
    assert found["imageTagMutability"] == "IMMUTABLE"
    assert found["imageScanningConfiguration"]["scanOnPush"] is True
    assert operator.cloud.client("ecr").get_lifecycle_policy(repositoryName=f"riva-{NAME}")["lifecyclePolicyText"]

    before = operator.changes()
    assert operator.ok("image", "--yes") == address
    assert operator.changes() == before
    # an image that is there already, and one of another registry
    assert operator.ok("image", "--image", address) == address
    assert operator.changes() == before
    copy = operator.ok("image", "--yes", "--image", "registry.example/gateway-with-a-nim:1")
    assert copy != address
    assert "docker pull --platform linux/amd64 registry.example/gateway-with-a-nim:1" in operator.docker
    assert len([line for line in operator.docker if line.startswith("docker build ")]) == 1
    assert operator.leaks() == []


def test_recordings_from_s3_and_no_instance_while_nothing_waits(operator: Operator) -> None:
    image = operator.ok("image", "--yes", "--image", "registry.example/gateway-with-a-nim:x")
    operator.ok("role", "--yes", "--async")
    operator.ok("deploy", "--yes", "--async", "--auto-stop", "--max-instances", "3", "--image", image)
    assert f"s3://riva-{NAME}-sm-" in operator.config()["AsyncInferenceConfig"]["OutputConfig"]["S3OutputPath"]
    assert operator.config()["AsyncInferenceConfig"]["ClientConfig"]["MaxConcurrentInvocationsPerInstance"] == 4
    assert operator.model()["PrimaryContainer"]["Environment"]["SAGEMAKER_TIMEOUT_MS"] == "3540000"
    scaling = operator.cloud.client("application-autoscaling")
    (bounds,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (bounds["MinCapacity"], bounds["MaxCapacity"]) == (0, 3)
    policies = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert sorted(one["PolicyName"] for one in policies) == [ENDPOINT, f"{ENDPOINT}-wake"]
    (alarm,) = operator.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["MetricName"] == "HasBacklogWithoutCapacity"
    role = operator.cloud.client("iam").get_role_policy(RoleName=f"riva-{NAME}-sagemaker", PolicyName="endpoint")
    everything = [one for one in role["PolicyDocument"]["Statement"] if one["Resource"] == "*"]
    assert [one["Action"] for one in everything] == ["ecr:GetAuthorizationToken", "cloudwatch:PutMetricData"]
    assert everything[1]["Condition"]["StringLike"]["cloudwatch:namespace"] == ["AWS/SageMaker", "/aws/sagemaker/*"]

    said = operator.run("invoke", "async")
    assert json.loads(said.out)["predictions"]
    assert "--invocation-timeout-seconds 3600" in said.err  # SageMaker's own is 15 minutes
    assert f"the result will be at s3://riva-{NAME}-sm-" in said.err
    operator.cloud.faults.set(endpoint_asleep=True)
    late = operator.run("invoke", "async", "--wait", "1")
    operator.cloud.faults.clear()
    assert (late.status, late.out) == (3, ""), late.err
    (place,) = re.findall(r"the result will be at (s3://\S+/sagemaker/out/\S+)", late.err)
    assert "if it fails, why: s3://" in late.err
    assert "wakes first: 20 to 40 minutes" in late.err
    assert f"it may still come: aws s3 cp {place} -" in late.err
    assert "(6000)" in operator.ok("invoke", "--help")  # the longest recording, after the longest start

    # another machine type, which SageMaker refuses to a variant that scales: it scales as before afterwards
    operator.ok("deploy", "--yes", "--async", "--image", image, "--type", "ml.g5.2xlarge")
    assert operator.config()["ProductionVariants"][0]["InstanceType"] == "ml.g5.2xlarge"
    (bounds,) = scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"]
    assert (bounds["MinCapacity"], bounds["MaxCapacity"]) == (0, 3)
    again = scaling.describe_scaling_policies(ServiceNamespace="sagemaker")["ScalingPolicies"]
    assert sorted(one["PolicyName"] for one in again) == [ENDPOINT, f"{ENDPOINT}-wake"]
    kept = "TargetTrackingScalingPolicyConfiguration"
    assert [one[kept] for one in again if kept in one] == [one[kept] for one in policies if kept in one]
    (alarm,) = operator.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    assert alarm["AlarmActions"] == [one["PolicyARN"] for one in again if one["PolicyName"].endswith("-wake")]
    assert "asynchronous" in operator.ok("status", "--log", "0")

    # taken away in the middle of a change: SageMaker wants it to end before that; what the next start needs may stay
    before = operator.changes()
    listed = operator.run("destroy", "--dry-run").err
    for kind in ("endpoint", "scaling", "alarm", "config", "model", "log", "bucket", "repository", "role", "secret"):
        assert f"\n{kind:<10} " in listed
    assert "with all recordings and results in it" in listed
    # no answer is not "there is none"; and under another name, or in another region, there is nothing: that is told
    operator.cloud.faults.set(denied=["sagemaker:DescribeEndpoint"])
    ran = operator.run("destroy", "--yes")
    operator.cloud.faults.clear()
    assert (ran.status, "nothing" in ran.err) == (1, False), ran.err
    ran = operator.run("destroy", "--yes", DEPLOY_NAME="peech")
    assert (ran.status, f"other deployments there: {NAME}\n" in ran.err) == (0, True), ran.err
    ran = operator.run("destroy", "--yes", "--region", "us-west-2")
    assert (ran.status, "it is in us-east-2" in ran.err) == (2, True), ran.err
    assert operator.changes() == before
    operator.cloud.faults.set(endpoint_slow=6, endpoint_busy=1)
    sagemaker = operator.cloud.client("sagemaker")
    config = operator.endpoint()["EndpointConfigName"]
    with pytest.raises(ClientError, match=f'Cannot update in-progress endpoint "arn:.*/{ENDPOINT}"'):
        sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName=config)
    sagemaker.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName=config)
    with pytest.raises(ClientError, match="Cannot update in-progress endpoint"):
        sagemaker.delete_endpoint(EndpointName=ENDPOINT)
    operator.cloud.faults.set(endpoint_busy=1)  # once more, after the change: its load begins another
    ran = operator.run("destroy", "--yes", "--keep-image")
    assert (ran.status, "Updating, and can be deleted when that has ended" in ran.err) == (0, True), ran.err
    assert operator.names() == ([], [])
    assert sagemaker.list_endpoints()["Endpoints"] == []
    results = operator.cloud.client("s3").list_objects_v2(Bucket=f"riva-{NAME}-sm-123456789012-us-east-2")["Contents"]
    assert [one["Key"] for one in results if one["Key"].startswith("sagemaker/out/")]
    assert "nothing of 'speech' is left on SageMaker in us-east-2 but what --keep-image keeps" in ran.err
    operator.ok("destroy", "--yes")
    assert operator.cloud.leftovers(NAME) == []
    assert scaling.describe_scalable_targets(ServiceNamespace="sagemaker")["ScalableTargets"] == []
    assert operator.leaks() == []


def test_a_role_may_fetch_the_image_of_another_deployment(operator: Operator) -> None:
    def repositories() -> list[str]:
        role = operator.cloud.client("iam").get_role_policy(RoleName=f"riva-{NAME}-sagemaker", PolicyName="endpoint")
        (fetch,) = [one for one in role["PolicyDocument"]["Statement"] if "ecr:BatchGetImage" in one["Action"]]
        return [arn.rpartition("/")[2] for arn in fetch["Resource"]]

    operator.ok("role", "--yes")
    assert repositories() == [f"riva-{NAME}"]
    operator.ok("role", "--yes", "--image-of", "other")
    assert repositories() == [f"riva-{NAME}", "riva-other"]
    before = operator.changes()
    operator.ok("role", "--yes")
    assert repositories() == [f"riva-{NAME}", "riva-other"]
    assert operator.changes() == before


def test_each_route_says_the_command_that_does_it(operator: Operator, tmp_path: Path) -> None:
    image = operator.ok("image", "--yes", "--image", "registry.example/gateway-with-a-nim:x")
    operator.ok("role", "--yes")
    operator.ok("deploy", "--yes", "--image", image, "--max-instances", "2")
    expected = {
        "auto": "--content-type 'multipart/form-data; boundary=",
        "grpc": "--custom-attributes X-Amzn-SageMaker-Custom-Attributes=/invocations/grpc",
        "raw": "--custom-attributes 'transport=auto;language_code=en-US'",
        "json": "--content-type application/json",
    }
    for route, said in expected.items():
        ran = operator.run("invoke", route)
        assert (ran.status, "predictions" in ran.out) == (0, True), ran.err
        assert said in ran.err
        assert f"aws sagemaker-runtime invoke-endpoint --endpoint-name {ENDPOINT}" in ran.err
        # what is printed can be typed again, or it is said why not
        assert (route != "raw") is ("that body is deleted" in ran.err)
    kept = tmp_path / "body"
    assert "that body is deleted" not in operator.run("invoke", "speakers", "--keep", str(kept)).err
    body = kept.read_bytes()
    assert b'name="speaker_diarization"\r\n\r\ntrue\r\n' in body
    assert b'name="max_speakers"\r\n\r\n4\r\n--' in body
    assert operator.run("invoke", "async").status == 2
    large = tmp_path / "large.wav"
    large.write_bytes(bytes(26_214_401))
    refused = operator.run("invoke", "raw", str(large))
    assert (refused.status, "async" in refused.err) == (2, True)
    missing = operator.run("invoke", "two-way", "--python", "python3.99")
    assert (missing.status, "aws-sdk-sagemaker-runtime-http2" in missing.err) == (2, True)


def test_what_fails_is_told_and_leaves_nothing_that_costs(operator: Operator) -> None:
    assert operator.run("deploy", "--yes").status == 2  # no image
    image = operator.ok("image", "--yes", "--image", "registry.example/gateway-with-a-nim:x")
    ran = operator.run("deploy", "--yes", "--image", image)
    assert (ran.status, "riva-310-sagemaker-role.sh" in ran.err) == (2, True)
    for words, said in (
        (("--type", "ml.g4dn.xlarge"), "compute capability"),
        (("--env", "RIVA_API_KEY=nvapi-plain"), "does not belong"),
        (("--auto-stop",), "--async alone"),
        (("--start-timeout", "9999"), "120 to 3600"),
    ):
        refused = operator.run("deploy", "--yes", "--image", image, *words)
        assert (refused.status, said in refused.err) == (2, True), refused.err
    assert "nvapi-plain" not in operator.said
    operator.ok("role", "--yes")
    before = operator.changes()
    operator.ok("deploy", "--dry-run", "--image", image)
    assert operator.changes() == before

    operator.cloud.faults.set(endpoint_fails="Unable to provision requested ML compute capacity")
    ran = operator.run("deploy", "--yes", "--image", image)
    assert (ran.status, "Run this again later" in ran.err) == (3, True), ran.err
    assert operator.cloud.client("sagemaker").list_endpoints()["Endpoints"] == []
    operator.cloud.faults.clear()
    operator.ok("deploy", "--yes", "--image", image, "--max-instances", "3")
    operator.cloud.client("sagemaker").update_endpoint_weights_and_capacities(
        EndpointName=ENDPOINT, DesiredWeightsAndCapacities=[{"VariantName": "primary", "DesiredInstanceCount": 2}]
    )
    operator.ok("deploy", "--yes", "--image", image, "--profile", "nemotron")
    (update,) = [call for call in operator.cloud.calls if call.operation == "UpdateEndpoint"]
    assert update.parameters["RetainAllVariantProperties"] is True  # the load that two carry is still there
    first = operator.endpoint()["EndpointConfigName"]

    # it comes up and does not recognize: back again
    operator.cloud.faults.set(endpoint_deaf=True)
    ran = operator.run("deploy", "--yes", "--image", image, "--profile", "ctc")
    assert (ran.status, operator.endpoint()["EndpointConfigName"]) == (4, first), ran.err
    assert "the answer is no transcript" in ran.err
    operator.cloud.faults.clear()

    operator.ok("destroy", "--yes", "--keep-image")
    assert operator.names() == ([], [])
    assert len(operator.cloud.client("ecr").describe_repositories()["repositories"]) == 1
    ran = operator.run("status")
    assert (ran.status, "there is no endpoint" in ran.err) == (3, True)
