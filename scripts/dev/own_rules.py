"""Rules of this project that no general checker has; `python scripts/dev/own_rules.py` prints where they are broken.

Where a line breaks a rule for a good reason, it says so behind itself or in the line above: `# rule(name): the reason`.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

RULES = {
    "deadline": "a call without a timeout waits for ever: give it one",
    "dropped-task": "nobody holds this task: keep it, or it may vanish half done and its failure with it",
    "swallowed": "whatever goes wrong here is never heard of: name what is expected, or say why all of it is",
    "unguarded-json": "what a client sent may be no JSON, or nested without end: catch ValueError, and RecursionError "
    "of the json module",
    "unverified-tls": "a peer that shows no good certificate may be anybody",
    "shown-secret": "a secret becomes part of a text that may be logged or sent",
    "shown-field": "a dataclass that is printed prints it too: field(repr=False)",
    "timed-comparison": "how long == takes tells how much of a secret was right: use hmac.compare_digest",
    "bare-waiver": "a waived check needs its reason behind it",
}
_WAIVER = re.compile(r"#\s*rule\(([a-z-]+)\):\s*\S")
_BARE_WAIVER = re.compile(r"#\s*nosec(?!\s+B\d+(?:,\s*B\d+)*\s+#\s*\S)|#\s*noqa:\s*S\d+(?:,\s*[A-Z]+\d+)*\s*$")
_UNARY = {"unary_unary", "unary_stream", "stream_unary"}
_HTTP = {"requests", "httpx", "httpx2"}
_HTTP_CALLS = {"get", "post", "put", "delete", "request", "stream", "AsyncClient", "Client"}
_SECRET_NAME = re.compile(r"(?:^|_)(?:secret|password|api_key|signature|mac)$")
_SECRET_FIELD = re.compile(r"(?:^|_)(?:secrets?|password|api_key|token|tokens)$")
_LOGS = {"debug", "info", "warning", "error", "exception", "critical", "log"}
_EVERYTHING = {"Exception", "BaseException"}
_CLIENTS_SPEAK_IN = ("src/server/",)
_ITS_OWN_FILES = ("src/server/jobs/store.py", "src/server/access/quota_file.py", "src/server/commands/")


@dataclass(frozen=True, order=True)
class Finding:
    """One line that breaks one rule; `path` is relative to the root."""

    path: str
    line: int
    rule: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {RULES[self.rule]}"


def findings(path: str, source: str) -> list[Finding]:
    """What is wrong in one file, in the order of its lines."""
    found = {(line, rule) for line, rule in _found(path, ast.parse(source))}
    lines = source.splitlines()
    found |= {(number, "bare-waiver") for number, line in enumerate(lines, 1) if _BARE_WAIVER.search(line)}
    waived = {(number, match[1]) for number, line in enumerate(lines, 1) for match in _WAIVER.finditer(line)}
    waived |= {(number + 1, rule) for number, rule in waived}
    return sorted(Finding(path, line, rule) for line, rule in found - waived)


def _found(path: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    yield from _without_deadline(tree)
    guarded = set(_guarded(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _drops_a_task(node.value):
            yield node.lineno, "dropped-task"
        if _swallows(node):
            yield node.lineno, "swallowed"  # type: ignore[attr-defined]
        if isinstance(node, ast.Call) and _reads_json(node) and _from_clients(path) and node not in guarded:
            yield node.lineno, "unguarded-json"
        if _trusts_anybody(node):
            yield node.lineno, "unverified-tls"  # type: ignore[attr-defined]
        yield from ((line, "shown-secret") for line in _shows_a_secret(node))
        if isinstance(node, ast.ClassDef) and any(_name(mark) == "dataclass" for mark in node.decorator_list):
            yield from ((line, "shown-field") for line in _shown_fields(node))
        if isinstance(node, ast.Compare) and _compares_secrets(node):
            yield node.lineno, "timed-comparison"


def _name(node: ast.AST) -> str:
    """The last name of `a`, `x.a` or `x.a()`."""
    if isinstance(node, ast.Call):
        return _name(node.func)
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _without_deadline(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            made = set(_unary_callables(function))
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and _waits_for_ever(node, made):
                    yield node.lineno, "deadline"


def _unary_callables(function: ast.AST) -> Iterator[str]:
    """Names that a gRPC method with one answer is given there."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _name(node.value) in _UNARY:
            yield from map(_name, node.targets if isinstance(node, ast.Assign) else [node.target])


def _waits_for_ever(call: ast.Call, unary: set[str]) -> bool:
    if any(word.arg in ("timeout", None) for word in call.keywords):
        return False
    callee = call.func
    if isinstance(callee, ast.Call):
        return _name(callee) in _UNARY
    if isinstance(callee, ast.Attribute) and _name(callee.value) in _HTTP and callee.attr in _HTTP_CALLS:
        return True
    return isinstance(callee, ast.Name | ast.Attribute) and _name(callee) in unary


def _drops_a_task(call: ast.Call) -> bool:
    in_a_group = isinstance(call.func, ast.Attribute) and "group" in _name(call.func.value)
    return _name(call) in ("create_task", "ensure_future") and not in_a_group


def _swallows(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        nothing = all(isinstance(part, ast.Pass | ast.Continue) or _is_word(part) for part in node.body)
        return nothing and (node.type is None or bool(_caught(node) & _EVERYTHING))
    return (
        isinstance(node, ast.Call) and _name(node) == "suppress" and any(_name(arg) in _EVERYTHING for arg in node.args)
    )


def _is_word(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _caught(handler: ast.ExceptHandler) -> set[str]:
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type] if handler.type else []
    return {_name(kind) for kind in kinds} or {"BaseException"}


def _reads_json(call: ast.Call) -> bool:
    return (
        isinstance(call.func, ast.Attribute) and call.func.attr == "loads" and _name(call.func.value).endswith("json")
    )


def _from_clients(path: str) -> bool:
    return path.startswith(_CLIENTS_SPEAK_IN) and not path.startswith(_ITS_OWN_FILES)


def _guarded(tree: ast.Module) -> Iterator[ast.Call]:
    """The calls of a JSON reader in a `try` that catches all it raises."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Try):
            continue
        caught = set[str]().union(*(_caught(handler) for handler in node.handlers))
        for call in (inner for statement in node.body for inner in ast.walk(statement)):
            if isinstance(call, ast.Call) and _reads_json(call):
                assert isinstance(call.func, ast.Attribute)
                bad_text = bool(caught & {"ValueError", "JSONDecodeError"})
                deep = _name(call.func.value) == "orjson" or "RecursionError" in caught
                if caught & _EVERYTHING or (bad_text and deep):
                    yield call


def _trusts_anybody(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return any(
            word.arg == "verify" and isinstance(word.value, ast.Constant) and word.value.value is False
            for word in node.keywords
        )
    return isinstance(node, ast.Attribute) and node.attr == "CERT_NONE"


def _shows_a_secret(node: ast.AST) -> Iterator[int]:
    shows = isinstance(node, ast.JoinedStr | ast.Raise) or (
        isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOGS
    )
    for inner in ast.walk(node) if shows else ():
        if isinstance(inner, ast.Call) and _name(inner) == "get_secret_value":
            yield inner.lineno


def _shown_fields(record: ast.ClassDef) -> Iterator[int]:
    if any(isinstance(node, ast.FunctionDef) and node.name == "__repr__" for node in record.body):
        return
    for node in record.body:
        if not isinstance(node, ast.AnnAssign) or not _SECRET_FIELD.search(_name(node.target)):
            continue
        words = node.value.keywords if isinstance(node.value, ast.Call) else []
        hidden = any(word.arg == "repr" and getattr(word.value, "value", True) is False for word in words)
        if not hidden and not {_name(part) for part in ast.walk(node.annotation)} & {
            "int",
            "float",
            "bool",
            "SecretStr",
        }:
            yield node.lineno


def _compares_secrets(node: ast.Compare) -> bool:
    sides = [node.left, *node.comparators]
    return (
        any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops)
        and any(_SECRET_NAME.search(_name(side)) for side in sides)
        and not any(isinstance(side, ast.Constant) for side in sides)
    )


def check(root: Path, folders: Iterable[str] = ("src", "load", "scripts")) -> list[Finding]:
    """What is wrong in all Python files of these folders."""
    return [
        finding
        for folder in folders
        for path in sorted((root / folder).rglob("*.py"))
        for finding in findings(path.relative_to(root).as_posix(), path.read_text("utf-8"))
    ]


def main() -> int:
    """Print every finding; the exit status is 1 where there is one."""
    found = check(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    for finding in found:
        print(finding)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
