"""Read settings from their sources, strictly, and say in one line what is wrong with them.

Sources, the first that has a key wins: explicit overrides (a command line), the process environment, a
`.env` file, a directory of secret files (one file per key). A key that is not known is refused, because
a misspelt one would otherwise be ignored in silence: every unknown key in `.env`; in the environment,
which other programs share, those with one of our own prefixes and those that are nearly a known key.
Values are never repeated for secret keys, and an unknown key's value never at all. A secret key may hold the name of
its value instead (`asr.secret_values`), whatever source it comes from.
"""

from __future__ import annotations

import difflib
import io
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from dotenv import dotenv_values
from dotenv.parser import parse_stream
from pydantic import SecretStr, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SecretsSettingsSource
from pydantic_settings import SettingsConfigDict as ConfigDict

from asr.errors import ASRError, Code
from asr.secret_values import AWS_PREFIX, FILE_PREFIX, NamedSecrets, SecretProblem, file_of, open_to_all

SECRETS_DIR_KEY = "ASR_SECRETS_DIR"
_SECRET = (SecretStr, SecretStr | None)

_NEAR = 0.84  # of difflib's ratio: `TLS_CRT` is meant to be `TLS_CERT`, `LOCAL_RANK` is another program's
# Kubernetes and Docker describe a service called `riva` to its neighbours in variables such as these.
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT(_\w+)?)$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$|_ENV_\w+$")
_SERVICE_URL = re.compile(r"^(tcp|udp|sctp)://")
# Docker Compose and the deployment scripts read the same .env.
_NEIGHBOURS = ("COMPOSE_", "DEPLOY_")

_UNITS = {
    "_ms": "a whole number of milliseconds",
    "_bytes": "a whole number of bytes",
    "port": "a port number",
}


class SettingsError(ASRError, ValueError):
    """A setting is unknown, missing or wrong. The message is one line: the key, what is wrong, the fix."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(Code.BAD_REQUEST, message, param=key)


class StrictSettings(BaseSettings):
    """Settings that read no source by themselves: `load_settings` gives them their values.

    A field's key is its name in capitals, or its `validation_alias` where the two must differ.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True, populate_by_name=True)

    own_prefixes: ClassVar[tuple[str, ...]] = ()
    """Environment variables that begin so are ours; an unknown one is refused."""
    foreign_keys: ClassVar[frozenset[str]] = frozenset()
    """Known keys of other programs under those prefixes."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only the arguments: constructing settings reads nothing."""
        return (init_settings,)

    @classmethod
    def shares_environment(cls, env: Mapping[str, str]) -> bool:
        """Whether another program's variables under our prefixes are to be expected; unknown ones are told then."""
        return False

    @classmethod
    def known_keys(cls) -> tuple[str, ...]:
        """The environment keys, in order."""
        return tuple(_names(cls).values())

    @classmethod
    def secret_keys(cls) -> tuple[str, ...]:
        """Those of them whose values are secrets, in order."""
        return tuple(key for name, key in _names(cls).items() if cls.model_fields[name].annotation in _SECRET)


S = TypeVar("S", bound=StrictSettings)


def load_settings(
    cls: type[S],
    overrides: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    env_file: str | Path | None = ".env",
    *,
    secrets: NamedSecrets | None = None,
    caution: Callable[[str], None] | None = None,
) -> S:
    """Settings of class `cls` from all sources.

    Args:
        cls: `EngineSettings`, or a class derived from it.
        overrides: values that win over every source, by field name or key; None means "not given".
        env: the environment; None means the process's own.
        env_file: a file of `KEY=value` lines, which need not exist; None means no file.
        secrets: finds the values of secrets that are only named; None means where they say.
        caution: told, in one line each, of what works and is unwise; None means nobody.

    Raises:
        SettingsError: one line that names the key, what is wrong with it, and the fix.
    """
    environment = os.environ if env is None else env
    given = {_names(cls).get(key, key).upper(): value for key, value in (overrides or {}).items() if value is not None}
    from_env = _from_environment(cls, environment, caution)
    from_file = _from_env_file(cls, env_file)
    merged: dict[str, tuple[Any, str]] = {}
    for values, origin in ((from_file, f" in {env_file}"), (from_env, " in the environment"), (given, "")):
        merged.update({key: (value, origin) for key, value in values.items()})
    secrets_dir = merged.get(SECRETS_DIR_KEY, (None, ""))[0]
    for key, value in _from_secrets(cls, secrets_dir, caution).items():
        merged.setdefault(key, (value, f" in {secrets_dir}"))
    return _build(cls, _with_values(cls, merged, secrets or NamedSecrets(), caution))


def _with_values(
    cls: type[StrictSettings],
    merged: Mapping[str, tuple[Any, str]],
    secrets: NamedSecrets,
    caution: Callable[[str], None] | None,
) -> dict[str, tuple[Any, str]]:
    """The same, with the values of secrets in the place of their names."""
    found: dict[str, tuple[Any, str]] = {}
    secret_keys = cls.secret_keys()
    for key, (value, origin) in merged.items():
        given = value.get_secret_value() if isinstance(value, SecretStr) else value
        named = isinstance(given, str) and given.startswith((AWS_PREFIX, FILE_PREFIX))
        found[key] = (value, origin)
        if named and key in secret_keys:
            found[key] = (_value_of(key, given, origin, secrets), origin)
            if given.startswith(FILE_PREFIX):
                _look_at(key, file_of(given), caution)
        elif named and given.startswith(AWS_PREFIX):
            raise SettingsError(
                key, f"{key}{origin}: {AWS_PREFIX} is for secret keys, which this is not. Give the value itself."
            )
    return found


def _value_of(key: str, name: str, origin: str, secrets: NamedSecrets) -> str:
    try:
        return secrets.value_of(name)
    except SecretProblem as problem:
        raise SettingsError(key, f"{key}{origin}: {problem}") from None


def _look_at(key: str, path: Path, caution: Callable[[str], None] | None) -> None:
    if caution is not None and open_to_all(path):
        caution(f"{key}: every user of this machine may read {path}. Take that right away: chmod o-r.")


def _names(cls: type[StrictSettings]) -> dict[str, str]:
    """Field name → key."""
    return {name: str(field.validation_alias or name).upper() for name, field in cls.model_fields.items()}


def _build(cls: type[S], merged: Mapping[str, tuple[Any, str]]) -> S:
    details: ErrorDetails | None = None
    try:
        return cls(**{key.lower(): value for key, (value, _) in merged.items()})
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
    # Raised out here, so that no traceback shows pydantic's own error beneath this line.
    key = str(details["loc"][0]).upper() if details["loc"] else ""
    raise _explain(cls, key, details, merged.get(key, (None, ""))[1])


def _from_environment(
    cls: type[StrictSettings], env: Mapping[str, str], caution: Callable[[str], None] | None
) -> dict[str, str]:
    found: dict[str, str] = {}
    known = set(cls.known_keys())
    for name, value in env.items():
        key = name.upper()
        if _SERVICE_LINK.search(key) or (key.endswith("_PORT") and _SERVICE_URL.match(value)):
            continue
        if key in known:
            if value != "":
                found[key] = value
        elif key not in cls.foreign_keys and _is_ours(cls, key):
            stranger = _unknown(cls, key, " in the environment")
            if not cls.shares_environment(env):
                raise stranger
            if caution is not None:
                caution(f"{stranger.message} It is taken for one of the NIM's.")
    return found


def _is_ours(cls: type[StrictSettings], key: str) -> bool:
    if key.startswith(cls.own_prefixes):
        return True
    family = key.split("_", 1)[0] + "_"
    relatives = [known for known in cls.known_keys() if known.startswith(family)]
    return bool(difflib.get_close_matches(key, relatives, n=1, cutoff=_NEAR))


def _from_env_file(cls: type[StrictSettings], env_file: str | Path | None) -> dict[str, str]:
    if env_file is None:
        return {}
    problem = ""
    values: Mapping[str, str | None] = {}
    broken = 0
    try:
        text = _text_of(Path(env_file).expanduser())
        broken = _broken_line(text)
        values = {} if broken else dotenv_values(stream=io.StringIO(text))
    except (OSError, UnicodeDecodeError) as error:
        problem = type(error).__name__
    if problem:
        raise SettingsError(
            str(env_file), f"{env_file} cannot be read ({problem}). Make it a UTF-8 file that this user may read."
        )
    if broken:
        # Not quoted: it may be half of a secret.
        raise SettingsError(
            str(env_file), f"{env_file} line {broken}: this is not KEY=value. Correct it, or put a # in front."
        )
    found = {name.upper(): value for name, value in values.items()}
    for key in found:
        if key not in cls.known_keys() and not key.startswith(_NEIGHBOURS):
            raise _unknown(cls, key, f" in {env_file}")
    return {key: value for key, value in found.items() if value and not key.startswith(_NEIGHBOURS)}


def _text_of(path: Path) -> str:
    # A pipe is a file too: shells hand secrets over as one. It can be read once only.
    return path.read_text(encoding="utf-8") if path.is_file() or path.is_fifo() else ""


def _broken_line(text: str) -> int:
    """The number of the first line that dotenv would pass over in silence, or 0."""
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            said = binding.original.string
            blank = said[: len(said) - len(said.lstrip())]
            return binding.original.line + blank.count("\n")
    return 0


def _from_secrets(
    cls: type[StrictSettings], directory: object, caution: Callable[[str], None] | None
) -> dict[str, str]:
    if not directory:
        return {}
    path = Path(str(directory)).expanduser()
    if not path.is_dir():
        raise SettingsError(
            SECRETS_DIR_KEY,
            f"{SECRETS_DIR_KEY}: {path} is not a directory. Give one that holds a file per key, or leave it unset.",
        )
    problem = ""
    values: dict[str, str] = {}
    files: list[Path] = []
    try:
        values = SecretsSettingsSource(cls, secrets_dir=path)()
        files = list(path.iterdir())
    except (OSError, UnicodeDecodeError, ValueError):
        problem = "a file in it cannot be read"
    if problem:
        raise SettingsError(SECRETS_DIR_KEY, f"{SECRETS_DIR_KEY}: {problem}. Make its files readable UTF-8 text.")
    for file in files:
        if file.name.upper() in cls.secret_keys():
            _look_at(file.name.upper(), file, caution)
    return {name.upper(): value for name, value in values.items() if value != ""}


def _unknown(cls: type[StrictSettings], key: str, origin: str) -> SettingsError:
    near = difflib.get_close_matches(key.upper(), cls.known_keys(), n=1, cutoff=0.5)
    fix = f"Did you mean {near[0]}?" if near else "Remove it; .env.example lists the keys there are."
    return SettingsError(key, f"{key}{origin}: there is no such setting. {fix}")


def _explain(cls: type[StrictSettings], key: str, details: ErrorDetails, origin: str) -> SettingsError:
    if details["type"] == "extra_forbidden":
        return _unknown(cls, key, origin)
    if details["type"] == "value_error":
        # Our own validators write whole sentences: what is wrong, then the fix. Those about several keys
        # begin with the one to blame.
        message = str(details.get("ctx", {}).get("error", details["msg"]))
        return SettingsError(key or message.partition(": ")[0], f"{key}{origin}: {message}" if key else message)
    name = next(name for name, known in _names(cls).items() if known == key)
    secret = cls.model_fields[name].annotation in _SECRET
    shown = "the value" if secret else _shown(details["input"])
    return SettingsError(key, f"{key}{origin}: {shown} {_problem(name, details)}")


def _problem(name: str, details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    wanted = next((text for suffix, text in _UNITS.items() if name.endswith(suffix)), "a whole number")
    match details["type"]:
        case "int_parsing" | "int_type" | "int_from_float":
            return f"is not a whole number. Set it to {wanted}."
        case "greater_than_equal":
            return f"is too small. Set it to {wanted} of at least {context['ge']}."
        case "less_than_equal":
            return f"is too large. Set it to {wanted} of at most {context['le']}."
        case "bool_parsing" | "bool_type":
            return "is neither yes nor no. Set it to on or off."
        case "literal_error":
            return f"is not a choice. Set it to {str(context['expected']).replace(chr(39), '')}."
        case _:
            return f"does not fit ({details['msg']}). See .env.example."


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
