"""What the tests of the SageMaker scripts share: an operator with a stand-in for docker, and one deployment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloud.client import Cloud, Ran

KEY = "nvapi-canary-sagemaker-000000000000"
NAME = "speech"
ENDPOINT = f"riva-{NAME}"

_DOCKER = """#!/bin/bash
# Says what it was asked, and gives ECR what is pushed.
set -euo pipefail
printf '%s\\n' "docker $*" >>"$DOCKER_LOG"
case $1 in
login) cat >/dev/null ;;
push)
    name=${2#*/} TYPE=application/vnd.docker.distribution.manifest.v2+json
    # Without layers moto takes one of a hundred digests, and sometimes the same.
    layers="[{\\"digest\\":\\"$2\\"}]"
    aws ecr put-image --repository-name "${name%:*}" --image-tag "${name##*:}" \\
        --image-manifest "{\\"schemaVersion\\":2,\\"mediaType\\":\\"$TYPE\\",\\"layers\\":$layers}" >/dev/null
    ;;
esac
"""


class Operator:
    """Runs the scripts for one deployment; keeps everything that was printed."""

    def __init__(self, cloud: Cloud, folder: Path) -> None:
        self.cloud = cloud
        self.said = ""
        self.folder = folder
        self._log = folder / "docker.log"
        self._bin = folder / "bin"
        self._bin.mkdir(parents=True)
        docker = self._bin / "docker"
        docker.write_text(_DOCKER)
        docker.chmod(0o755)

    @property
    def docker(self) -> list[str]:
        """What docker was asked."""
        return self._log.read_text().splitlines() if self._log.exists() else []

    @property
    def variables(self) -> dict[str, str]:
        """What its docker needs of the environment."""
        return {"PATH": f"{self._bin}:{self.cloud.variables()['PATH']}", "DOCKER_LOG": str(self._log)}

    def run(self, what: str, *words: str, **env: str) -> Ran:
        """`riva-NNN-sagemaker-WHAT.sh`, found by its last words."""
        (script,) = (Path(__file__).resolve().parents[2] / "scripts").glob(f"riva-3*-sagemaker-{what}.sh")
        variables = {**self.variables, "DEPLOY_NAME": NAME, **env}
        ran = self.cloud.run(script.name, *words, env=variables, input=f"{KEY}\n" if what == "role" else "")
        self.said += ran.out + ran.err
        return ran

    def ok(self, what: str, *words: str, **env: str) -> str:
        """The same, where it must work; what it printed."""
        ran = self.run(what, *words, **env)
        assert ran.status == 0, f"{what} {words}: {ran.status}\n{ran.out}\n{ran.err}"
        return ran.out.strip()

    def endpoint(self) -> dict[str, Any]:
        """How the endpoint is."""
        found: dict[str, Any] = self.cloud.client("sagemaker").describe_endpoint(EndpointName=ENDPOINT)
        return found

    def config(self, name: str = "") -> dict[str, Any]:
        """A configuration; by default the endpoint's own."""
        name = name or self.endpoint()["EndpointConfigName"]
        found: dict[str, Any] = self.cloud.client("sagemaker").describe_endpoint_config(EndpointConfigName=name)
        return found

    def model(self) -> dict[str, Any]:
        """The model of the endpoint's own configuration."""
        name = self.config()["ProductionVariants"][0]["ModelName"]
        found: dict[str, Any] = self.cloud.client("sagemaker").describe_model(ModelName=name)
        return found

    def names(self) -> tuple[list[str], list[str]]:
        """Configurations and models that there are."""
        sagemaker = self.cloud.client("sagemaker")
        configs = [one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]]
        return configs, [one["ModelName"] for one in sagemaker.list_models()["Models"]]

    def changes(self) -> list[str]:
        """Calls that changed something."""
        return [call.name for call in self.cloud.changes()]

    def leaks(self) -> list[str]:
        """Where the key can be found, outside of the one call that stores it."""
        stored = {"secretsmanager:CreateSecret", "secretsmanager:PutSecretValue"}
        calls = [f"{one.name} {json.dumps(one.parameters)}" for one in self.cloud.calls if one.name not in stored]
        places = [text for text in (self.said, *self.docker, *calls) if KEY in text]
        return [*places, *self.cloud.where_is(KEY)]
