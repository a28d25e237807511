"""A stand-in for AWS Secrets Manager as a process of its own (moto's), and the environment that leads to it."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3

REGION = "eu-central-1"
SET_UP_CALLS = 6
"""So many calls are let in without a look at who calls; from then on it matters."""


@dataclass(frozen=True)
class Aws:
    """Where it is, and two who may ask: one for everything, one for nothing."""

    url: str
    allowed: tuple[str, str]
    denied: tuple[str, str]

    def env(self, who: tuple[str, str] | None = None, url: str = "") -> dict[str, str]:
        """The variables of a program that asks there."""
        key_id, key = who or self.allowed
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": key_id,
            "AWS_SECRET_ACCESS_KEY": key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


@contextmanager
def secrets_manager(texts: dict[str, str], binary: dict[str, bytes]) -> Iterator[Aws]:
    """Serve these secrets; together with the two callers they are to make `SET_UP_CALLS`."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        env={"PATH": "/usr/bin:/bin", "INITIAL_NO_AUTH_ACTION_COUNT": str(SET_UP_CALLS + len(texts) + len(binary))},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        url = ""
        for line in process.stderr:
            if match := re.search(r"http://127\.0\.0\.1:[0-9]+", line):
                url = match[0]
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()  # its log must not fill the pipe
        yield _filled(url, texts, binary)
    finally:
        process.kill()
        process.wait()


def _filled(url: str, texts: dict[str, str], binary: dict[str, bytes]) -> Aws:
    def client(service: Any) -> Any:
        return boto3.client(
            service, endpoint_url=url, region_name=REGION, aws_access_key_id="any", aws_secret_access_key="any"
        )

    iam, manager = client("iam"), client("secretsmanager")
    who = {}
    for name in ("allowed", "denied"):
        iam.create_user(UserName=name)
        made = iam.create_access_key(UserName=name)["AccessKey"]
        who[name] = (made["AccessKeyId"], made["SecretAccessKey"])
    policy = '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"secretsmanager:*","Resource":"*"}]}'
    iam.put_user_policy(UserName="allowed", PolicyName="reads", PolicyDocument=policy)
    for name, text in texts.items():
        manager.create_secret(Name=name, SecretString=text)
    for name, data in binary.items():
        manager.create_secret(Name=name, SecretBinary=data)
    iam.list_users()
    return Aws(url, who["allowed"], who["denied"])
