"""The rules of our own: each catches what it is for, lets pass what it should, and holds in this project."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
OWN: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "dev" / "own_rules.py"))


def broken(source: str, path: str = "src/server/faces/planted.py") -> list[tuple[int, str]]:
    return [(finding.line, finding.rule) for finding in OWN["findings"](path, source)]


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("deadline", "async def f(channel):\n    call = channel.unary_unary('m')\n    await call(b'')"),
        ("deadline", "async def f(self):\n    self.call: X = self.c.unary_stream('m')\n    self.call(b'')"),
        ("deadline", "async def f(channel):\n    pass\n    await channel.stream_unary('m')(b'')"),
        ("deadline", "import requests\ndef f():\n    requests.get('u')"),
        ("deadline", "def f():\n    pass\n    return httpx2.AsyncClient()"),
        ("dropped-task", "\n\nasyncio.create_task(f())"),
        ("dropped-task", "\n\nself._loop.create_task(f())"),
        ("dropped-task", "\n\nasyncio.ensure_future(f())"),
        ("swallowed", "try:\n    f()\nexcept Exception:\n    pass"),
        ("swallowed", "try:\n    f()\nexcept (ValueError, BaseException): ..."),
        ("swallowed", "try:\n    f()\nexcept:\n    pass"),
        ("swallowed", "\n\nwith contextlib.suppress(Exception): f()"),
        ("unguarded-json", "\n\njson.loads(message)"),
        ("unguarded-json", "try:\n    import orjson\n    orjson.loads(m)\nexcept KeyError:\n    pass"),
        ("unguarded-json", "try:\n    pass\n    json.loads(m)\nexcept ValueError:\n    pass"),
        ("unverified-tls", "\n\nhttpx2.AsyncClient(verify=False, timeout=1)"),
        ("unverified-tls", "\n\ncontext.verify_mode = ssl.CERT_NONE"),
        ("shown-secret", "\n\ntext = f'key {settings.key.get_secret_value()}'"),
        ("shown-secret", "\n\nlog.info('start', key=settings.key.get_secret_value())"),
        ("shown-secret", "\n\nraise ValueError(key.get_secret_value())"),
        ("shown-field", "@dataclass\nclass A:\n    token: str = ''"),
        ("shown-field", "@dataclass(frozen=True)\nclass A:\n    old_secrets: tuple[bytes, ...] = field(repr=True)"),
        ("timed-comparison", "\n\nif shown == self._secret: pass"),
        ("timed-comparison", "\n\nif good.api_key != shown: pass"),
        ("bare-waiver", "\n\nhost = '0.0.0.0'  # nosec"),
        ("bare-waiver", "\n\nhost = '0.0.0.0'  # nosec B104"),
        ("bare-waiver", "\n\nhost = '0.0.0.0'  # noqa: S104"),
    ],
)
def test_what_a_rule_is_for_is_found(rule: str, source: str) -> None:
    assert broken(source) == [(3, rule)]


@pytest.mark.parametrize(
    "source",
    [
        "async def f(channel):\n    call = channel.unary_unary('m')\n    await call(b'', timeout=1)",
        "async def f(channel):\n    call = channel.stream_stream('m')\n    call(None)",
        "def f(**more):\n    requests.get('u', **more)",
        "task = asyncio.create_task(f())",
        "group.create_task(f())",
        "try:\n    f()\nexcept ValueError:\n    pass",
        "try:\n    f()\nexcept Exception:\n    log.exception('f')",
        "with contextlib.suppress(OSError): f()",
        "try:\n    json.loads(m)\nexcept (ValueError, RecursionError):\n    pass",
        "try:\n    orjson.loads(m)\nexcept orjson.JSONDecodeError:\n    pass",
        "client = httpx2.AsyncClient(verify=trust, timeout=1)",
        "key = settings.key.get_secret_value()",
        "log.info('start', has_key=settings.key is not None)",
        "if self.secret == '': pass",
        "@dataclass\nclass A:\n    token: str = field(repr=False)\n    key_id: str = ''\n    max_tokens: int = 1",
        "class A:\n    token: str",
        "if hmac.compare_digest(shown, secret): pass",
        "host = '0.0.0.0'  # nosec B104 # compared, not bound",
        "host = '0.0.0.0'  # noqa: S104 - compared, not bound",
    ],
)
def test_what_is_right_is_let_pass(source: str) -> None:
    assert broken(source) == []


def test_a_waiver_names_its_rule_and_its_reason() -> None:
    line = "context.verify_mode = ssl.CERT_NONE"
    assert broken(f"{line}  # rule(unverified-tls): a test of what happens then") == []
    assert broken(f"# rule(unverified-tls): a test of what happens then\n{line}") == []
    assert broken(f"{line}  # rule(unverified-tls):") == [(1, "unverified-tls")]
    assert broken(f"{line}  # rule(deadline): another rule") == [(1, "unverified-tls")]


def test_what_nobody_else_can_write_needs_no_guard() -> None:
    assert broken("json.loads(row.options)", "src/server/jobs/store.py") == []
    assert broken("json.loads(text)", "src/evaluation/documents.py") == []


def test_every_rule_holds_in_this_project() -> None:
    assert [str(finding) for finding in OWN["check"](ROOT)] == []
