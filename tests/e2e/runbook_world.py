"""The place that the runbooks speak of, on one machine: two Rivas, systemd, a GPU host, Prometheus, a pager.

The gateway, Prometheus and Alertmanager are the real programs. What stands in for systemd, apt, git, ssh and the rest
are programs on the PATH that hand their arguments to this module, which knows what the pages may ask of them: anything
else is an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import socketserver
import sqlite3
import stat
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import rules
from asr.mock.plan import load_plan
from asr.mock.riva_server import MockRivaServer
from asr.settings import load_settings
from authority import Authority
from server.settings import ServerSettings

from .command import COMMAND, FIXTURES, sound
from .monitors import Pager, free_port, pager, program
from .warm_command import warm_command

PATIENCE_S = 30.0
GATEWAY_LOG = "riva-gateway.log"
PROGRAMS = (
    "apt-get",
    "useradd",
    "userdel",
    "git",
    "make",
    "chown",
    "systemctl",
    "journalctl",
    "ssh",
    "sqlite3",
    "psql",
)
_PROGRAM = """#!/usr/bin/env bash
# Hands its name and arguments to the test, prints what that says, and ends with its status.
exec 9<> /dev/tcp/127.0.0.1/{port}
printf '%s\\x1f' "${{0##*/}}" "$@" >&9
printf '\\n' >&9
IFS= read -r status <&9
cat <&9
exit "$status"
"""
_PSQL_ONLY = {"SELECT 1": "1", "SELECT count(*) FROM pg_stat_activity": "7"}


class Rivas:
    """Two recognizers that say what a script says, on a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.servers = [MockRivaServer(load_plan({})) for _ in range(2)]
        self.running = [False, False]

    def start(self, number: int) -> None:
        if not self.running[number]:
            self._do(self.servers[number].start())
            self.running[number] = True

    def stop(self, number: int) -> None:
        if self.running[number]:
            self._do(self.servers[number].stop())
            self.running[number] = False

    def addresses(self) -> str:
        return ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def __enter__(self) -> Rivas:
        self._thread.start()
        for number in range(2):
            self.start(number)
        return self

    def __exit__(self, *_: object) -> None:
        for number in range(2):
            self.stop(number)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _do(self, what: object) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(PATIENCE_S)  # type: ignore[arg-type]


class World:
    """Answers for the programs; `env` is what a shell in it knows.

    Args:
        folder: everything lies in it.
        command: that `make setup` makes.
        rivas: the recognizers.
        receiver: where Alertmanager's messages go.
        services: ends the programs that were started, when it is closed.
    """

    def __init__(
        self, folder: Path, command: Path, rivas: Rivas, receiver: Pager, services: contextlib.ExitStack
    ) -> None:
        self.folder = folder
        self.restarts_for_real = True
        self._command = command
        self.rivas = rivas
        self.receiver = receiver
        self._services = services
        self._gateway: subprocess.Popen[bytes] | None = None
        self._ports = {name: free_port() for name in ("https", "grpc", "prometheus", "alertmanager")}
        for name in ("etc", "prom", "units", "programs", "home"):
            (folder / name).mkdir()
        authority = Authority()
        authority.issue().write(folder / "etc" / "tls.crt", folder / "etc" / "tls.key")
        (folder / "etc" / "ca.crt").write_bytes(authority.pem)

    @property
    def runs(self) -> bool:
        """The gateway does, as far as systemd knows."""
        return self._gateway is not None

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self._ports['prometheus']}"

    @property
    def env(self) -> dict[str, str]:
        """What the pages name by variables, and nothing of this machine's settings."""
        return {
            "PATH": f"{self.folder / 'programs'}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "GATEWAY": "localhost",
            "RIVA": self.rivas.addresses(),
            "SOURCE": "https://git.example.com/speech/riva-gateway",
            "APP": str(self.folder / "app"),
            "ETC": str(self.folder / "etc"),
            "STATE_DIR": str(self.folder / "state"),
            "UNITS": str(self.folder / "units"),
            "PROM": str(self.folder / "prom"),
            "ASR_SERVER": f"https://localhost:{self._ports['https']}",
            "GRPC": f"grpcs://localhost:{self._ports['grpc']}",
            "PROMETHEUS_PORT": str(self._ports["prometheus"]),
            "ALERTMANAGER_PORT": str(self._ports["alertmanager"]),
            "JOBS_DATABASE_URL": "postgresql://gateway@db.example.com/jobs",
        }

    def answer(self, name: str, words: list[str]) -> tuple[int, str]:
        """What that program says to these arguments."""
        answers: dict[str, Callable[[list[str]], str]] = {
            "apt-get": self._apt_get,
            "useradd": self._useradd,
            "userdel": self._userdel,
            "git": self._git,
            "make": self._make,
            "chown": self._chown,
            "systemctl": self._systemctl,
            "journalctl": self._journalctl,
            "ssh": self._ssh,
            "sqlite3": self._sqlite3,
            "psql": self._psql,
        }
        try:
            return 0, answers[name](words)
        except Refused as refused:
            return 64, f"{name} {shlex.join(words)}: {refused}\n"
        except Exception as error:
            return 70, f"{name} {shlex.join(words)}: {error!r}\n"

    def stop_gateway(self) -> None:
        """As systemd does: it may finish what it has."""
        if self._gateway is not None:
            self._gateway.terminate()
            try:
                status = self._gateway.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self._gateway.kill()
                self._gateway.wait()
                raise
            self._gateway = None
            _want(status == 0, f"it ended with {status}")

    # Programs of this machine ---------------------------------------------------------------------

    def _apt_get(self, words: list[str]) -> str:
        if words == ["purge", "-y", "prometheus", "prometheus-alertmanager"]:
            self._services.close()
            return ""
        _want(words == ["update"] or words[:2] == ["install", "-y"], "update, install -y, or purge -y of the watchers")
        return ""

    def _useradd(self, words: list[str]) -> str:
        _want(words[-1] == "riva-gateway" and "--system" in words, "a system user")
        Path(words[words.index("--home-dir") + 1]).mkdir(mode=0o700)
        return ""

    def _userdel(self, words: list[str]) -> str:
        _want(words == ["riva-gateway"], "the system user")
        _want(self._gateway is None, "user riva-gateway is currently used by a process")
        return ""

    def _git(self, words: list[str]) -> str:
        _want(words == ["clone", self.env["SOURCE"], self.env["APP"]], "clone SOURCE APP")
        app = Path(self.env["APP"])
        (app / "tests").mkdir(parents=True)
        (app / "tests" / "fixtures").symlink_to(FIXTURES)
        (app / "scripts").symlink_to(rules.ROOT / "scripts")
        for condition in ("clean", "accents"):
            clips = app / "tests" / "golden" / condition
            clips.mkdir(parents=True)
            sound(clips / "one.wav", 0.6)
            (clips / "one.txt").write_text("Good morning.")
        return ""

    def _make(self, words: list[str]) -> str:
        _want(words == ["-C", self.env["APP"], "setup"], "-C APP setup")
        programs = Path(self.env["APP"]) / ".venv" / "bin"
        programs.mkdir(parents=True)
        (programs / "riva-gateway").symlink_to(self._command)
        return ""

    def _chown(self, words: list[str]) -> str:
        _want(words[0] in ("root:riva-gateway", "root:prometheus"), "root, and the group that reads it")
        _want(all(Path(word).is_file() for word in words[1:]), "files that are there")
        return ""

    def _journalctl(self, words: list[str]) -> str:
        _want(words[:2] == ["-u", "riva-gateway"] and "--no-pager" in words, "-u riva-gateway … --no-pager")
        return (self.folder / GATEWAY_LOG).read_text("utf-8")

    def _systemctl(self, words: list[str]) -> str:
        match words:
            case ["daemon-reload"]:
                pass
            case ["enable", "--now", "riva-gateway"]:
                self._start_gateway()
            case ["disable", "--now", "riva-gateway"]:
                self.stop_gateway()
            case ["restart", "riva-gateway"]:
                self._restart_gateway()
            case ["restart", "prometheus", "prometheus-alertmanager"]:
                self._watch()
            case ["status", "riva-gateway", "--no-pager"]:
                return "Active: active (running)\n" if self._gateway is not None else "Active: inactive (dead)\n"
            case ["show", "-p", "MainPID", "--value", "riva-gateway"]:
                return f"{self._gateway.pid if self._gateway is not None else 0}\n"
            case _:
                raise Refused("no page says this")
        return ""

    def _restart_gateway(self) -> None:
        """For real, or as far as a start reads its settings: where nobody looks at what came of it."""
        if self.restarts_for_real:
            self.stop_gateway()
            self._start_gateway()
            return
        _, settings = self._unit()
        load_settings(ServerSettings, {}, env=settings, env_file=None)

    def _unit(self) -> tuple[dict[str, str], dict[str, str]]:
        """What systemd would do, and the settings that it would give."""
        unit = _pairs(Path(self.env["UNITS"]) / "riva-gateway.service")
        return unit, _pairs(Path(unit["EnvironmentFile"]))

    def _start_gateway(self) -> None:
        unit, settings = self._unit()
        program_of_unit, *words = shlex.split(unit["ExecStart"])
        _want(Path(program_of_unit).resolve() == self._command, "the unit starts what was installed")
        here = {
            "LISTEN_HOST": "127.0.0.1",
            "PORT": str(self._ports["https"]),
            "GRPC_PORT": str(self._ports["grpc"]),
            "PATH": self.env["PATH"],
            "HOME": self.env["HOME"],
        }
        _want(settings.get("LISTEN_HOST") == "0.0.0.0", "the unit's settings listen for others")
        with (self.folder / GATEWAY_LOG).open("ab") as log:
            self._gateway = subprocess.Popen(
                [COMMAND, *words],
                cwd=unit["WorkingDirectory"],
                env=settings | here,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_limit(int(unit["LimitNOFILE"])),
            )

    def _watch(self) -> None:
        """Both programs with what the page has made, but for times and for where messages go."""
        prom = Path(self.env["PROM"])
        for name, changes in {
            "prometheus.yml": (
                ("scrape_interval: 15s", "scrape_interval: 1s"),
                ("credentials_file: ", f"credentials_file: {prom}/"),
                ("ca_file: ", f"ca_file: {prom}/"),
                ("- recording-rules", f"- {prom}/recording-rules"),
                ("- alerts", f"- {prom}/alerts"),
            ),
            "alertmanager.yml": (
                ("https://pager.example.com/alerts", self.receiver.url),
                ("https://tickets.example.com/alerts", self.receiver.url),
            ),
        }.items():
            text = (prom / name).read_text("utf-8")
            for written, put in changes:
                _want(written in text, f"{name} has no {written!r}")
                text = text.replace(written, put)
            (self.folder / name).write_text(rules.shortened(text) if name == "alertmanager.yml" else text, "utf-8")
        self._services.close()
        self._services.enter_context(
            program(
                self.folder,
                "prometheus-alertmanager",
                "--config.file=alertmanager.yml",
                f"--storage.path={self.folder / 'alertmanager'}",
                f"--web.listen-address=127.0.0.1:{self._ports['alertmanager']}",
                "--cluster.listen-address=",
            )
        )
        self._services.enter_context(
            program(
                self.folder,
                "prometheus",
                "--config.file=prometheus.yml",
                f"--storage.tsdb.path={self.folder / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self._ports['prometheus']}",
            )
        )

    # The GPU host, and the database ---------------------------------------------------------------

    def _ssh(self, words: list[str]) -> str:
        _want(words[0] == "127.0.0.1", "the host of an endpoint")
        there = shlex.split(" ".join(words[1:]))  # the shell over there reads it once more
        match there:
            case ["docker", "ps", "-a", "--format", "{{.Names}} {{.Status}}"]:
                return "riva Up 3 hours\n" if all(self.rivas.running) else "riva Exited (137) 4 minutes ago\n"
            case ["docker", "logs", "--tail", number, "riva"] if number.isdigit():
                return "Riva gRPC Server is READY\n"
            case ["docker", "restart", "riva"]:
                self.rivas.start(1)
                return "riva\n"
            case ["nvidia-smi", query, "--format=csv,noheader"]:
                known = {
                    "name": "NVIDIA L4",
                    "memory.used": "21034 MiB",
                    "memory.total": "23034 MiB",
                    "utilization.gpu": "97 %",
                    "clocks_throttle_reasons.active": "0x0000000000000000",
                }
                asked = query.removeprefix("--query-gpu=").split(",")
                _want(set(asked) <= set(known), f"there is no {asked}")
                return ", ".join(known[name] for name in asked) + "\n"
            case _:
                raise Refused("no page says this")

    def _sqlite3(self, words: list[str]) -> str:
        option, path, statement = words
        _want(option == "-readonly", "the gateway has it open")
        _want(Path(path) == Path(self.env["STATE_DIR"]) / "jobs.sqlite", path)
        return "".join("|".join(map(str, row)) + "\n" for row in self._rows(statement))

    def _psql(self, words: list[str]) -> str:
        """The statements are tried on the gateway's own tables, which are the same in both databases."""
        url, option, statement = words
        _want(url == self.env["JOBS_DATABASE_URL"] and option == "-c", "URL -c STATEMENT")
        if statement in _PSQL_ONLY:
            return f" {_PSQL_ONLY[statement]}\n(1 row)\n"
        rows = self._rows(statement)
        return "".join(" " + " | ".join(map(str, row)) + "\n" for row in rows) + f"({len(rows)} rows)\n"

    def _rows(self, statement: str) -> list[tuple[object, ...]]:
        path = Path(self.env["STATE_DIR"]) / "jobs.sqlite"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(statement).fetchall()


class Refused(Exception):
    """A stand-in does not know what it is told."""


def _want(true: bool, what: str) -> None:
    if not true:
        raise Refused(what)


def _pairs(path: Path) -> dict[str, str]:
    """`KEY=value` lines: of a unit, or of its file of settings."""
    lines = path.read_text("utf-8").splitlines()
    pairs = (line.partition("=") for line in lines if "=" in line and not line.startswith("#"))
    return {key: value for key, _, value in pairs}


def _limit(files: int) -> Callable[[], None]:
    import resource

    def lower() -> None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    return lower


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """An empty machine with its neighbours. On the way out everything that was started is ended."""
    with warm_command(folder) as commands, Rivas() as rivas, pager() as receiver, contextlib.ExitStack() as services:
        place = World(folder, commands / "riva-gateway", rivas, receiver, services)
        with _programs(place):
            try:
                yield place
            finally:
                place.stop_gateway()


@contextmanager
def _programs(place: World) -> Iterator[None]:
    class Caller(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            name, *words = self.rfile.readline().decode().rstrip("\n").split("\x1f")[:-1]
            status, text = place.answer(name, words)
            self.wfile.write(f"{status}\n{text}".encode())

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Caller) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        for name in PROGRAMS:
            path = place.folder / "programs" / name
            path.write_text(_PROGRAM.format(port=server.server_address[1]))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
