"""Secrets from AWS Secrets Manager, with boto3, which is imported when the first one is asked for.

Region and credentials are boto3's own business: the `AWS_…` variables, its files, the role of the machine. Nobody
waits for long: a start that cannot have its secrets fails while somebody still looks.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from asr.secret_values import SecretProblem, shown

CONNECT_TIMEOUT_S = 1.5
READ_TIMEOUT_S = 2.0
ATTEMPTS = 2
PATIENCE_S = 6.0
"""For one secret, all told: looking for credentials and resolving names have longer timeouts of their own."""

_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_GO_ALONG = "give the value itself, or file:/path"


class SecretsManager(Protocol):
    """What is needed of boto3's client."""

    def get_secret_value(self, *, SecretId: str) -> Mapping[str, Any]:  # noqa: N803 - boto3's spelling
        """One secret: `SecretString` or `SecretBinary`."""
        ...


def secret_text(name: str, connect: Callable[[], SecretsManager] | None = None) -> str:
    """The text of a secret, within `PATIENCE_S`.

    Args:
        name: its name or ARN.
        connect: makes the client; None: boto3's, set up as boto3 sets itself up.

    Raises:
        SecretProblem: it cannot be had.
    """
    make = connect if connect is not None else _boto3_client()
    answer: list[str | SecretProblem] = []

    def ask() -> None:
        try:
            answer.append(read_secret(make, name))
        except SecretProblem as problem:
            answer.append(problem)
        except Exception as error:  # whatever a plugin of boto3 does: its kind is told, its words may hold anything
            answer.append(SecretProblem(f"{shown(name)} cannot be read ({type(error).__name__}). Look into AWS_…."))

    # A thread that nobody waits for at the end: name servers and roles cannot be told to hurry.
    thread = threading.Thread(target=ask, name="aws-secret", daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    found = answer[0] if answer else _unreachable(name, f"no answer within {PATIENCE_S:g} s")
    if isinstance(found, SecretProblem):
        raise found
    return found


def read_secret(connect: Callable[[], SecretsManager], name: str) -> str:
    """The text of a secret, from that client.

    Raises:
        SecretProblem: in the words for people, whatever boto3 raised.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        answer = connect().get_secret_value(SecretId=name)
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        problem = _refused(name, str(error.response.get("Error", {}).get("Code", "")), status)
    except BotoCoreError as error:
        problem = _failed(name, error)
    else:
        text = answer.get("SecretString")
        if isinstance(text, str):
            return text
        problem = SecretProblem(f"{shown(name)} holds bytes, not text. Store it with --secret-string.")
    # Raised out here, so that no traceback shows what boto3 was told.
    raise problem


def _boto3_client() -> Callable[[], SecretsManager]:
    try:
        import boto3
        from botocore.config import Config
    except ImportError:
        raise SecretProblem(
            f"it names a secret of AWS Secrets Manager, and boto3 is not installed. Install riva-gateway[aws], or "
            f"{_GO_ALONG}."
        ) from None
    spoken = logging.getLogger("botocore")
    if spoken.level == logging.NOTSET:
        # At DEBUG it repeats every answer, and the answers here are secrets.
        spoken.setLevel(logging.INFO)
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
    )
    # A session of its own: nothing is left behind in boto3's default one.
    return lambda: boto3.session.Session().client("secretsmanager", config=config)


def _refused(name: str, code: str, status: int) -> SecretProblem:
    if code == "ResourceNotFoundException":
        return SecretProblem(f"{shown(name)} does not exist. Correct its name, or AWS_DEFAULT_REGION.")
    if code in _DENIED or status in (401, 403):
        return SecretProblem(
            f"{shown(name)} may not be read ({code}). Allow secretsmanager:GetSecretValue on it, or correct the "
            "credentials of AWS."
        )
    if code == "DecryptionFailure":
        return SecretProblem(f"{shown(name)} cannot be decrypted. Allow kms:Decrypt on its key.")
    if code == "InvalidRequestException":
        return SecretProblem(f"{shown(name)} is not to be had now; it may be marked for deletion. Restore it.")
    return SecretProblem(f"{shown(name)} was refused ({code or 'no reason given'}). Look it up in AWS.")


def _failed(name: str, error: Exception) -> SecretProblem:
    kind = type(error).__name__
    if kind == "NoRegionError":
        return SecretProblem(f"{shown(name)} is in no known region. Set AWS_DEFAULT_REGION.")
    if "Credential" in kind or kind in ("ProfileNotFound", "TokenRetrievalError", "UnauthorizedSSOTokenError"):
        return SecretProblem(f"{shown(name)} cannot be read: no credentials of AWS ({kind}). Set AWS_… or give a role.")
    return _unreachable(name, kind)


def _unreachable(name: str, why: str) -> SecretProblem:
    return SecretProblem(
        f"{shown(name)} cannot be read: AWS Secrets Manager is out of reach ({why}). Check the network and "
        "AWS_DEFAULT_REGION."
    )
