"""Debian's Prometheus and Alertmanager as processes of a test, on free ports, and a pager that they call."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import yaml  # type: ignore[import-untyped]

import rules

PATIENCE_S = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Pager:
    """What was sent to the webhook, in order."""

    url: str
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def told(self, name: str, status: str) -> dict[str, Any] | None:
        found = (each for each in self.alerts if each["labels"]["alertname"] == name and each["status"] == status)
        return next(found, None)


@contextmanager
def pager() -> Iterator[Pager]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            receiver.alerts += [{**alert, "receiver": body["receiver"]} for alert in body["alerts"]]
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver = Pager(f"http://127.0.0.1:{server.server_address[1]}/")
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def program(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program whose output goes to a file; it must be gone at the end."""
    with (folder / f"{Path(command[0]).name}.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Prometheus:
    """A client of its HTTP API."""

    url: str

    async def ask(self, path: str, **query: str) -> Any:
        return await asyncio.to_thread(self._ask, path, query)

    def _ask(self, path: str, query: Mapping[str, str]) -> Any:
        data = urllib.parse.urlencode(query).encode() if query else None
        try:
            with urllib.request.urlopen(self.url + path, data, timeout=10) as response:
                answer = json.load(response)
        except urllib.error.HTTPError as error:
            if error.code == 503:  # it listens and is not ready yet
                raise
            answer = json.load(error)
        assert answer["status"] == "success", f"{query}: {answer}"
        return answer["data"]

    async def values(self, expr: str) -> list[tuple[dict[str, str], float]]:
        result = (await self.ask("/api/v1/query", query=expr))["result"]
        return [(each["metric"], float(each["value"][1])) for each in result]


async def until(what: str, true: Callable[[], Any], within_s: float = PATIENCE_S) -> Any:
    """Look every 100 ms; `true` may be a coroutine function."""
    due = time.monotonic() + within_s
    while time.monotonic() < due:
        found = true()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"{what}: not within {within_s} s")


@contextmanager
def monitored(folder: Path, target: str, key: str, receiver: Pager) -> Iterator[Prometheus]:
    """Both programs with the rules and configurations that are shipped, but for a drill's times and addresses."""
    prometheus_port, alertmanager_port = free_port(), free_port()
    for name in rules.RULE_FILES:
        (folder / name).write_text(rules.shortened((rules.FOLDER / name).read_text("utf-8")), "utf-8")
    (folder / "metrics-key").write_text(key)
    config = rules.document("prometheus.yml")
    config["global"] |= {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager_port}"]
    scrape = config["scrape_configs"][0]
    scrape["scheme"] = "http"
    del scrape["tls_config"]
    scrape["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    receivers = yaml.safe_load(rules.shortened((rules.FOLDER / "alertmanager.yml").read_text("utf-8")))
    for each in receivers["receivers"]:
        each["webhook_configs"][0]["url"] = receiver.url
    (folder / "alertmanager.yml").write_text(yaml.safe_dump(receivers), "utf-8")
    with (
        program(
            folder,
            "prometheus-alertmanager",
            "--config.file=alertmanager.yml",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{alertmanager_port}",
            "--cluster.listen-address=",
        ),
        program(
            folder,
            "prometheus",
            "--config.file=prometheus.yml",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
        ),
    ):
        yield Prometheus(f"http://127.0.0.1:{prometheus_port}")
