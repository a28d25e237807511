"""A secret that is named instead of given: `aws-sm:<id>[#<field>]` or `file:<path>` in place of its value.

What is told of a failure is the name and the reason, never a value, nor a part of one.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path

AWS_PREFIX = "aws-sm:"
FILE_PREFIX = "file:"
MAX_SECRET_BYTES = 65_536
"""Of one value; as many as AWS Secrets Manager keeps."""

_SHOWN_CHARS = 200


class SecretProblem(ValueError):
    """A named secret cannot be had. The message: which one, what is wrong, the fix; no value."""


class NamedSecrets:
    """Gives the values that references stand for. Each secret of AWS is asked for once.

    Args:
        ask_aws: the text of an AWS secret, by its name or ARN; raises `SecretProblem`. None: AWS itself is asked.
    """

    def __init__(self, ask_aws: Callable[[str], str] | None = None) -> None:
        self._ask_aws = ask_aws
        self._answers: dict[str, str] = {}

    def value_of(self, text: str) -> str:
        """What `text` stands for: itself, where it names no other place.

        Raises:
            SecretProblem: the place does not have it.
        """
        if text.startswith(AWS_PREFIX):
            return self._from_aws(text.removeprefix(AWS_PREFIX))
        if text.startswith(FILE_PREFIX):
            return read_secret_file(file_of(text))
        return text

    def _from_aws(self, reference: str) -> str:
        name, mark, field = (part.strip() for part in reference.partition("#"))
        if not name or (mark and not field):
            raise SecretProblem(f"{AWS_PREFIX} names nothing. Write {AWS_PREFIX}name, or {AWS_PREFIX}name#field.")
        if name not in self._answers:
            if self._ask_aws is None:
                from asr.aws_secrets import secret_text

                self._ask_aws = secret_text
            self._answers[name] = self._ask_aws(name)
        text = self._answers[name]
        value = (_field(name, text, field) if mark else text).rstrip("\r\n")
        if not value:
            raise SecretProblem(f"{shown(reference)} is empty. Store the value, or correct the name.")
        return value


def file_of(reference: str) -> Path:
    """The path in `file:<path>`; `file:///path` is one too."""
    path = reference.removeprefix(FILE_PREFIX)
    return Path(path.removeprefix("//") if path.startswith("///") else path).expanduser()


def read_secret_file(path: Path) -> str:
    """The one value in a file, without the line ends behind it.

    Raises:
        SecretProblem: it cannot be read, is empty, too large or not text.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SECRET_BYTES + 1)
        text = data.decode("utf-8").rstrip("\r\n")
    except OSError as error:
        problem = f"cannot be read ({error.strerror}). Give a file that this user may read."
    except UnicodeDecodeError:
        problem = "is not UTF-8 text. Store the value alone, as text."
    else:
        if len(data) > MAX_SECRET_BYTES:
            problem = f"holds more than {MAX_SECRET_BYTES} bytes. Give the file that holds the value alone."
        elif not text:
            problem = "is empty. Store the value in it."
        else:
            return text
    # Raised out here: a decoding error in the traceback would show the bytes.
    raise SecretProblem(f"{path} {problem}")


def open_to_all(path: Path) -> bool:
    """Whether every user of this machine may read that file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & stat.S_IROTH)


def shown(reference: str) -> str:
    """A reference, in one line of bounded length."""
    text = repr(reference)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}…'"


def _field(name: str, text: str, field: str) -> str:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        problem = f"is no JSON object, so it has no field {field!r}. Leave #{field} out, or store an object."
    elif field not in found:
        problem = f"has no field {field!r}. Correct what stands behind the #."
    elif not isinstance(found[field], str):
        problem = f"has a field {field!r} that is not a text. Store it as one, in quotes."
    else:
        return str(found[field])
    raise SecretProblem(f"{shown(name)} {problem}")
