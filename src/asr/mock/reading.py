"""Build a frozen record from a mapping, strictly: wrong keys and types are named, with the way out.

Only what plans need: whole and real numbers, booleans, text, choices, lists, maps of text, and records.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from asr.errors import ASRError, Code

T = TypeVar("T")

_KINDS: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def read_record(record: type[T], value: object, path: str = "") -> T:
    """An instance of the dataclass `record` from a mapping of its fields.

    Args:
        record: the dataclass.
        value: a mapping; where the first field is a list of text, also a bare string for it.
        path: what to call the place in errors (`faults[0]`).

    Raises:
        ASRError: `bad_request` naming the key, what was found there and what may stand there.
    """
    hints = get_type_hints(record)
    names = [f.name for f in fields(record)]  # type: ignore[arg-type]  # T is a dataclass by contract
    if isinstance(value, str) and hints[names[0]] == tuple[str, ...]:
        value = {names[0]: value}
    if not isinstance(value, Mapping):
        raise _bad(path, f"must be a table of keys, not {value!r}")
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1, cutoff=0.5)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known here: {', '.join(names)}."
            raise ASRError(
                Code.BAD_REQUEST, f"Unknown plan key {_join(path, str(key))!r}. {hint}", param=_join(path, str(key))
            )
    for each in fields(record):  # type: ignore[arg-type]  # as above
        if each.name not in value and each.default is MISSING and each.default_factory is MISSING:
            raise _bad(_join(path, each.name), "must be given")
    read = {name: _read(hints[name], value[name], _join(path, name)) for name in names if name in value}
    try:
        return record(**read)
    except ASRError as error:
        where = _join(path, error.param or "")
        raise ASRError(error.code, f"Plan key {where!r}: {error.message}", param=where) from None


def _read(kind: Any, value: object, path: str) -> Any:
    origin = get_origin(kind)
    if origin is Literal:
        choices = get_args(kind)
        if value not in choices:
            near = difflib.get_close_matches(str(value), [str(c) for c in choices], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _bad(path, f"is {value!r}; it must be one of {', '.join(map(str, choices))}{hint}")
        return value
    if origin is tuple:
        return _read_list(get_args(kind)[0], value, path)
    if origin is Mapping or kind is Mapping:
        if not isinstance(value, Mapping) or not all(isinstance(v, str) for v in value.values()):
            raise _bad(path, "must be a table of texts")
        return types.MappingProxyType({str(k): v for k, v in value.items()})
    if is_dataclass(kind) and isinstance(kind, type):
        return read_record(kind, value, path)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise _bad(path, f"is {value!r}; it must be {_KINDS[kind]}")
    return value


def _read_list(kind: Any, value: object, path: str) -> tuple[Any, ...]:
    if kind is str and isinstance(value, str):
        return tuple(value.split())
    if not isinstance(value, list | tuple):
        raise _bad(path, f"must be a list, not {value!r}")
    return tuple(_read(kind, item, f"{path}[{i}]") for i, item in enumerate(value))


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path and name else path or name


def _bad(path: str, what: str) -> ASRError:
    where = f"Plan key {path!r}" if path else "A plan"
    return ASRError(Code.BAD_REQUEST, f"{where} {what}" + ("" if what.endswith("?") else "."), param=path or None)
