"""Keys and tokens at the command line, and a gateway that takes them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import requests

from keyring import bearer
from word_engine import WordEngine

from .command import Shell
from .gateway import running

SECRET = "s" * 40
REVOKED_WITHIN_S = 5.0
PATIENCE_S = 10.0


@pytest.fixture
def shell(tmp_path: Path, warm: Path) -> Shell:
    return Shell(tmp_path, {"TOKEN_SECRET": SECRET}, warm)


def told(done: subprocess.CompletedProcess[bytes]) -> str:
    return done.stderr.decode()


async def test_a_key_lives_from_its_making_to_its_revocation(shell: Shell, tmp_path: Path) -> None:
    async def run(*arguments: str, key: str = "") -> subprocess.CompletedProcess[bytes]:
        with_key = replace(shell, more=shell.more | ({"ASR_API_KEY": key} if key else {}))
        return await asyncio.to_thread(with_key.run, *arguments)

    made, again = await asyncio.gather(
        run("key", "create", "app", "--scope", "transcribe", "--scope", "mint", "--expires", "90d", "--streams", "3"),
        run("key", "create", "bad name"),
    )
    key = made.stdout.decode().strip()
    assert re.fullmatch(r"rgw_[0-9a-f]{12}_[0-9a-f]{48}", key), told(made)
    assert key not in told(made)
    assert (again.returncode, again.stdout) == (2, b"")
    assert "letters, digits" in told(again)

    async with running(WordEngine(), tmp_path / "state", token_secret=SECRET) as addresses:
        at = ("models", "--server", addresses.url)
        listed, refused, taken, own, minted = await asyncio.gather(
            run("key", "list", "--json"),
            run(*at),
            run(*at, key=key),
            run("token", "--ttl", "1m"),
            run("token", "--server", addresses.url, "--single-use", "--subject", "ann@example.com", key=key),
        )
        (row,) = json.loads(listed.stdout)
        assert (row["name"], row["state"], row["streams"]) == ("app", "good", 3)
        assert key.rpartition("_")[2] not in listed.stdout.decode()
        assert (refused.returncode, refused.stdout) == (2, b"")
        assert "ASR_API_KEY" in told(refused)
        assert taken.returncode == 0, told(taken)
        ticket, token = minted.stdout.decode().strip(), own.stdout.decode().strip()
        assert ticket.startswith("rgt_"), told(minted)

        def models(credential: str) -> int:
            return requests.get(
                f"{addresses.url}/v1/models", headers=bearer(credential), timeout=PATIENCE_S
            ).status_code

        too_much, by_token, once = await asyncio.gather(
            run("token", "--server", addresses.url, "--scope", "admin", key=key),
            asyncio.to_thread(models, token),
            asyncio.to_thread(models, ticket),
        )
        assert (by_token, once) == (200, 200)
        assert (too_much.returncode, too_much.stdout) == (2, b"")
        assert "admin" in told(too_much)

        revoked = await run("key", "revoke", row["id"])
        assert revoked.returncode == 0
        began = asked = time.monotonic()
        while (left := await asyncio.to_thread(models, key)) == 200:
            assert asked - began < REVOKED_WITHIN_S
            asked = time.monotonic()
        assert left == 401
        assert await asyncio.to_thread(models, ticket) == 401


def test_a_terminal_is_told_that_a_key_is_shown_once(shell: Shell) -> None:
    status, shown = shell.on_terminal("key", "create", "dashboard", "--scope", "metrics")
    assert status == 0
    assert re.search(r"^rgw_\w+\r?$", shown, re.MULTILINE)
    assert "shown only now" in shown
    status, shown = shell.on_terminal("key", "list", columns=200)
    assert status == 0
    assert "dashboard" in shown
    assert "metrics" in shown


WRONG = [
    (("key", "revoke", "nobody"), 4, "There is no key 'nobody'"),
    (("key", "create", "app", "--expires", "soon"), 2, "--expires 'soon'"),
    (("key", "create", "app", "--scope", "fly"), 2, "--scope"),
    (("token", "--ttl", "2h"), 2, "TOKEN_TTL_MS"),
    (("token", "--server", "https://localhost:1"), 2, "ASR_API_KEY is not set"),
    (("token", "--server", "localhost:1"), 2, "https://host:port"),
    (("token", "--insecure"), 2, "give --server too"),
]


def test_what_is_wrong_is_one_line(shell: Shell) -> None:
    with ThreadPoolExecutor(len(WRONG)) as threads:
        runs = list(threads.map(lambda case: shell.run(*case[0]), WRONG))
    for (arguments, status, line), done in zip(WRONG, runs, strict=True):
        assert (done.returncode, done.stdout) == (status, b""), arguments
        assert line in told(done)
        assert told(done).count("\n") == 1
        assert told(done).startswith("riva-gateway: ")


@pytest.mark.parametrize("server", ["http://gateway.example:8080", "grpc://gateway.example:50052"])
def test_a_key_never_travels_in_plain_text(shell: Shell, server: str) -> None:
    done = replace(shell, more={"ASR_API_KEY": "rgw_canary"}).run("models", "--server", server)
    assert done.returncode == 2
    assert "ASR_API_KEY" in told(done)
    assert "unencrypted" in told(done)
    assert "canary" not in told(done)


def test_a_broken_file_of_keys_is_named_and_left_alone(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    path = tmp_path / "state" / "keys.json"
    path.write_text("{")
    done = shell.run("key", "create", "app")
    assert (done.returncode, done.stdout) == (2, b"")
    assert str(path) in told(done)
    assert path.read_text() == "{"
