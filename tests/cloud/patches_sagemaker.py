"""SageMaker as the scripts use it: updates, which take their time and may fail, and an endpoint that answers.

moto knows no update, takes an endpoint for ready at once, has never heard of GPUs newer than a T4, and overwrites what
is there already.
"""

from __future__ import annotations

import json
import re
from typing import Any

import moto.sagemaker.models as models
import moto.sagemaker.responses as responses
import moto.sagemakerruntime.models as runtime_models
import moto.sagemakerruntime.responses as runtime
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.core.responses import ActionResult
from moto.iam.models import IAMBackend
from moto.logs.models import logs_backends
from moto.s3.models import s3_backends
from moto.sagemaker.exceptions import ValidationError

from cloud.faults import FAULTS

NEW_TYPES = re.compile(r"ml\.(g5|g6|g6e|gr6|p4d|p5)\.\d*xlarge")
IN_PROGRESS = ("Creating", "Updating", "SystemUpdating", "RollingBack", "Deleting")
HEARD = json.dumps(
    {"predictions": [{"results": [{"alternatives": [{"transcript": "hello"}], "is_final": True}], "transport": "grpc"}]}
)
DEAF = json.dumps({"error": "The recognizer is not there.", "code": "unavailable"})


def patch_sagemaker() -> None:
    _types()
    _names()
    _environments()
    _changes()
    _logs()
    _tags()
    _answers()


def _types() -> None:
    original = models.FakeEndpointConfig.validate_instance_type

    def validate(self: Any, instance_type: str) -> None:
        if not NEW_TYPES.fullmatch(instance_type):
            original(self, instance_type)

    models.FakeEndpointConfig.validate_instance_type = validate


def _names() -> None:
    """A name that is taken is refused, and a configuration that an endpoint has cannot be deleted."""
    backend: Any = models.SageMakerModelBackend
    _refuse_again(backend, "create_model", "_models", "model_name")
    _refuse_again(backend, "create_endpoint_config", "endpoint_configs", "endpoint_config_name")
    _refuse_again(backend, "create_endpoint", "endpoints", "endpoint_name")
    delete = backend.delete_endpoint_config

    def delete_endpoint_config(self: Any, name: str) -> None:
        if any(endpoint.endpoint_config_name == name for endpoint in self.endpoints.values()):
            raise ValidationError(message=f"Cannot delete endpoint configuration {name}: an endpoint has it.")
        delete(self, name)

    backend.delete_endpoint_config = delete_endpoint_config


def _environments() -> None:
    """moto takes any environment; Amazon's container has at most 100 variables of 1,024 characters."""
    original = models.SageMakerModelBackend.create_model

    def create_model(self: Any, **options: Any) -> Any:
        variables = (options.get("primary_container") or {}).get("Environment") or {}
        bad = [
            name for name, value in variables.items() if len(value) > 1024 or not re.fullmatch(r"[a-zA-Z_]\w*", name)
        ]
        if len(variables) > 100 or bad:
            raise ValidationError(
                message=f"Value at 'primaryContainer.environment' failed to satisfy constraint: {bad}"
            )
        return original(self, **options)

    models.SageMakerModelBackend.create_model = create_model


def _refuse_again(backend: Any, method: str, things: str, key: str) -> None:
    original = getattr(backend, method)

    def create(self: Any, *args: Any, **kw: Any) -> Any:
        if kw[key] in getattr(self, things):
            raise ValidationError(message=f"Cannot create already existing {things.strip('_')[:-1]} {kw[key]}.")
        return original(self, *args, **kw)

    setattr(backend, method, create)


def _changes() -> None:
    backend: Any = models.SageMakerModelBackend
    create = backend.create_endpoint
    describe = backend.describe_endpoint
    delete = backend.delete_endpoint

    def create_endpoint(self: Any, **kw: Any) -> Any:
        endpoint = create(self, **kw)
        _begin(endpoint, "Creating", "Failed", endpoint.endpoint_config_name)
        return endpoint

    def update_endpoint(self: Any) -> ActionResult:
        backend = self.sagemaker_backend
        name, wanted = self._get_param("EndpointName"), self._get_param("EndpointConfigName")
        endpoint = backend.endpoints.get(name)
        if endpoint is None or wanted not in backend.endpoint_configs:
            raise ValidationError(message=f"Could not find endpoint {name!r} or its configuration {wanted!r}.")
        _refuse_in_progress(endpoint)
        if endpoint.endpoint_status != "InService":
            raise ValidationError(message=f'Cannot update endpoint "{endpoint.arn}": it is {endpoint.endpoint_status}.')
        types = {_type(backend, one) for one in (endpoint.endpoint_config_name, wanted)}
        if len(types) > 1 and _scales(backend, name):
            raise ValidationError(message="The variant primary must be deregistered as a scalable target.")
        _begin(endpoint, "Updating", "InService", wanted)
        return ActionResult({"EndpointArn": endpoint.arn})

    def delete_endpoint(self: Any, endpoint_name: str) -> None:
        endpoint = self.endpoints.get(endpoint_name)
        if endpoint is None:
            return delete(self, endpoint_name)
        _refuse_in_progress(endpoint)
        endpoint.endpoint_status, endpoint.looks_left = "Deleting", 1
        return None

    def describe_endpoint(self: Any, endpoint_name: str) -> Any:
        endpoint = self.endpoints.get(endpoint_name)
        if endpoint is not None and endpoint.endpoint_status == "Deleting":
            endpoint.looks_left -= 1
            if endpoint.looks_left < 0:
                delete(self, endpoint_name)
        if endpoint is not None and endpoint.endpoint_status in ("Creating", "Updating"):
            endpoint.looks_left -= 1
            if endpoint.looks_left < 0:
                _end(self, endpoint)
        return describe(self, endpoint_name)

    backend.create_endpoint = create_endpoint
    backend.describe_endpoint = describe_endpoint
    backend.delete_endpoint = delete_endpoint
    responses.SageMakerResponse.update_endpoint = update_endpoint


def _refuse_in_progress(endpoint: Any) -> None:
    """In SageMaker's words, which are the same for a change and for the end of an endpoint."""
    if endpoint.endpoint_status in IN_PROGRESS or FAULTS.counts("endpoint_busy"):
        raise ValidationError(message=f'Cannot update in-progress endpoint "{endpoint.arn}".')


def _type(backend: Any, config: str) -> str:
    return str(backend.endpoint_configs[config].production_variants[0]["InstanceType"])


def _scales(backend: Any, name: str) -> bool:
    scaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
    return any(f"endpoint/{name}/variant/primary" in each for each in scaling.targets.values())


def _begin(endpoint: Any, status: str, failed: str, config: str) -> None:
    slow = FAULTS.get("endpoint_slow", 1)
    endpoint.endpoint_status, endpoint.looks_left = status, slow
    why = FAULTS.get("endpoint_fails")
    endpoint.outcome = (failed, endpoint.endpoint_config_name, why) if why else ("InService", config, None)


def _end(backend: Any, endpoint: Any) -> None:
    endpoint.endpoint_status, endpoint.endpoint_config_name, why = endpoint.outcome
    said = (
        why
        if isinstance(why, str)
        else "The primary container for production variant primary did not pass the ping health check."
    )
    endpoint.failure_reason = said if why else None
    config = backend.endpoint_configs[endpoint.endpoint_config_name]
    endpoint.production_variants = endpoint._process_production_variants(config.production_variants)
    role = backend._models[config.production_variants[0]["ModelName"]].execution_role_arn.rpartition("/")[2]
    backend.writers = {**getattr(backend, "writers", {}), role: f"/aws/sagemaker/Endpoints/{endpoint.endpoint_name}"}
    logs_backends[backend.account_id][backend.region_name].ensure_log_group(backend.writers[role])


def _logs() -> None:
    """A container's last lines may come late, and make its log anew, as long as its role is there."""
    original = IAMBackend.delete_role

    def delete_role(self: Any, role_name: str) -> None:
        for region, backend in models.sagemaker_backends[self.account_id].items():
            if group := getattr(backend, "writers", {}).get(role_name):
                logs_backends[self.account_id][region].ensure_log_group(group)
        original(self, role_name)

    IAMBackend.delete_role = delete_role


def _tags() -> None:
    """A tag that is set again replaces the former one; a configuration is found by its tags (moto's ARN is a tuple)."""

    def add_tags(self: Any, arn: str, tags: list[dict[str, str]]) -> list[dict[str, str]]:
        resource = self._get_resource_from_arn(arn)
        new = {tag["Key"] for tag in tags}
        resource.tags = [tag for tag in resource.tags if tag["Key"] not in new] + tags
        found: list[dict[str, str]] = resource.tags
        return found

    models.SageMakerModelBackend.add_tags = add_tags
    models.FakeEndpointConfig.arn = property(lambda self: self.endpoint_config_arn, lambda self, _: None)


def _answers() -> None:
    """Whatever is sent, the endpoint hears one word; moto reads no binary bodies, and has no result of its own."""

    def invoke_endpoint(self: Any) -> Any:
        headers = {"Content-Type": "application/json", "x-Amzn-Invoked-Production-Variant": "primary"}
        asked = self.headers.get("X-Amzn-SageMaker-Custom-Attributes", "")
        route = "http" if asked.endswith("http") else "grpc;engine=riva"
        headers["X-Amzn-SageMaker-Custom-Attributes"] = f"transport={route}"
        return 200, headers, DEAF if FAULTS.get("endpoint_deaf") else HEARD

    def invoke_endpoint_async(self: Any, endpoint_name: str, input_location: str) -> tuple[str, str]:
        bucket, key = input_location.removeprefix("s3://").split("/", 1)
        files = s3_backends[self.account_id][self.partition]
        files.get_object(bucket, key)
        out, failed = f"sagemaker/out/{key[-6:]}.out", f"sagemaker/failed/{key[-6:]}-error.out"
        deaf = FAULTS.get("endpoint_deaf")
        if not FAULTS.get("endpoint_asleep"):
            files.put_object(bucket, failed if deaf else out, value=(DEAF if deaf else HEARD).encode())
        return f"s3://{bucket}/{out}", f"s3://{bucket}/{failed}"

    runtime.SageMakerRuntimeResponse.use_raw_body = True  # sound is no UTF-8
    runtime.SageMakerRuntimeResponse.invoke_endpoint = invoke_endpoint
    runtime_models.SageMakerRuntimeBackend.invoke_endpoint_async = invoke_endpoint_async
