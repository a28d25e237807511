"""`riva-gateway load`: what is asked for, judged before anything starts; the sweep; its verdict; its files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import typer

from asr.config import EngineConfig, GatedConfig, GatewayConfig, ResilientConfig, RivaConfig
from asr.errors import Action, ASRError, Code
from asr.session.address import address_of, tls_context
from evaluation.clips import ClipSet
from evaluation.sets import load_set, only
from load.arrivals import Mode
from load.gauges import Facts, Watch
from load.plan import Door
from load.summary import Slo, Sweep
from load.sweep import Listener, SweepPlan, most_sessions, sweep
from server.commands.connection import Connection, Recognizer, connect, recognizer
from server.commands.exits import Exit, Stop, complain, run_async
from server.commands.golden_choice import set_folder
from server.commands.golden_files import check_places, write_json, write_text
from server.commands.load_progress import LoadScreen
from server.commands.load_words import conclusion, length_ms, numbers, slo_line, verdict
from server.commands.target import Target, parse_server

SHORT_MS = 20_000
"""Where no `--only` chooses, clips are no longer than this: sessions end near the time that was asked for."""
_EASY = "clean"


@dataclass(frozen=True, slots=True)
class LoadFlags:
    """What was asked for, as written."""

    sessions: str
    mode: Mode
    duration: str
    ramp: str
    session_length: str | None
    find_limit: bool
    set_folder: Path | None
    only: tuple[str, ...]
    chunk_ms: int
    workers: int | None
    slo_first_partial_ms: float
    slo_final_ms: float
    slo_errors: float
    watch: str | None
    pids: tuple[int, ...]
    json_file: Path | None
    html_file: Path | None
    quiet: bool

    def plan(self, door: Door) -> SweepPlan:
        """As `load` takes it.

        Raises:
            Stop: a flag is wrong, or asks for more than this machine allows.
            ASRError: as `clips`.
        """
        plan = SweepPlan(
            door,
            self.clips(),
            numbers(self.sessions),
            self.mode,
            duration_ms=length_ms(self.duration, "--duration"),
            ramp_ms=length_ms(self.ramp, "--ramp"),
            session_ms=None if self.session_length is None else length_ms(self.session_length, "--session-length"),
            chunk_ms=self.chunk_ms,
            workers=self.workers,
            slo=Slo(self.slo_first_partial_ms, self.slo_final_ms, self.slo_errors / 100),
            find_limit=self.find_limit,
        )
        try:
            plan.step(1)
        except ValueError as error:
            raise Stop(str(error), Exit.CONFIGURATION) from None
        return replace(plan, most=_room_for(max(plan.sessions), self.workers))

    def clips(self) -> ClipSet:
        """What is said.

        Raises:
            Stop: no set is named, and there is none here.
            ASRError: it cannot be read, or has no such condition.
        """
        chosen = only(load_set(set_folder(self.set_folder, Path.cwd())), self.only)
        if self.only:
            return chosen
        spoken = [clip for clip in chosen.clips if clip.text and clip.audio_ms <= SHORT_MS]
        easy = [clip for clip in spoken if clip.condition == _EASY]
        clips = tuple(easy or spoken or chosen.clips)
        return replace(chosen, clips=clips)


def run_load(flags: LoadFlags, target: Target, to: Recognizer) -> None:
    """Measure, show, judge, write.

    Raises:
        Stop, ASRError: it could not be measured.
        Exit: 1 where the verdict is bad, 130 after Ctrl-C.
    """
    check_places(("--json", flags.json_file), ("--html", flags.html_file))
    door = door_of(to.config)
    plan = flags.plan(door)
    watched = _watched(flags.watch, to.config if target.kind == "gateway" else None)
    for pid in flags.pids:
        if not psutil.pid_exists(pid):
            raise Stop(f"--pid {pid}: there is no such process on this machine.", Exit.CONFIGURATION)
    try:
        found = run_async(_measure(flags, plan, to, watched))
    except RuntimeError as error:  # a process that sends could not be started
        raise Stop(str(error), Exit.FAILED) from None
    if not flags.quiet:
        typer.echo(slo_line(found.slo))
    for line in conclusion(found):
        typer.echo(line)
    if flags.json_file is not None:
        write_json(flags.json_file, found.to_json())
    if flags.html_file is not None:
        from load.report import load_page  # brings the plots, which a run without a report does not need

        write_text(flags.html_file, load_page(found))
    status, why = verdict(found)
    if why:
        complain(why)
    if status is not Exit.OK:
        raise typer.Exit(status)


def door_of(config: EngineConfig) -> Door:
    """Where the streams go, and what they bring along: TLS, metadata, a token.

    Raises:
        Stop: it is no server.
    """
    member = config.member if isinstance(config, GatedConfig) else config
    if isinstance(member, ResilientConfig):
        member = member.members[0]
    match member:
        case GatewayConfig():
            address = address_of(member.url)
            bearer = (("Authorization", f"Bearer {member.token}"),) if member.token else ()
            return Door("websocket", address.stream, address.secure, member.ca_cert, member.insecure, bearer)
        case RivaConfig():
            tls = member.ssl or member.root_cert is not None or member.client_cert is not None
            return Door(
                "grpc",
                member.endpoint,
                tls,
                _at_home(member.root_cert),
                metadata=member.metadata,
                client_cert=_at_home(member.client_cert),
                client_key=_at_home(member.client_key),
            )
        case _:
            raise Stop("--url names no server.", Exit.CONFIGURATION)


def _at_home(path: Path | None) -> Path | None:
    return None if path is None else path.expanduser()


@dataclass(frozen=True, slots=True)
class _Watched:
    """The gateway whose `/readyz` is looked at: its base URL, trust in it, and a credential."""

    url: str | None = None
    tls: ssl.SSLContext | None = None
    token: str = field(default="", repr=False)


def _watched(watch: str | None, asked: EngineConfig | None) -> _Watched:
    config = asked
    if watch is not None:
        if parse_server(watch, flag="--watch").kind != "gateway":
            raise Stop(f"--watch {watch!r}: name the gateway's page, as https://host:8443.", Exit.CONFIGURATION)
        config = recognizer(Connection(server=watch)).config
    if not isinstance(config, GatewayConfig):
        return _Watched()
    address = address_of(config.url)
    token = config.token if address.secure or address.loopback else ""
    return _Watched(address.http, tls_context(config) if address.secure else None, token)


async def _measure(flags: LoadFlags, plan: SweepPlan, to: Recognizer, watched: _Watched) -> Sweep:
    await _reachable(to)
    watch = Watch(watched.url, watched.tls, flags.pids, token=watched.token)
    try:
        facts = await watch.facts()
        if watched.url is not None:
            _warn_of_gauges(facts, flags.watch is not None)
        with LoadScreen(quiet=flags.quiet) as screen:
            listener = Listener(screen.step, screen.progress, screen.row)
            started = datetime.now(UTC).isoformat(timespec="seconds")
            return await sweep(plan, watch, facts, listener, started_at=started)
    finally:
        await watch.aclose()


async def _reachable(to: Recognizer) -> None:
    """Raises ASRError: nobody is there, or not ready, or it wants another credential."""
    async with connect(to) as client:
        readiness = await client.health()
        if not readiness.ready:
            raise ASRError(Code.UNAVAILABLE, readiness.detail, retryable=False, action=Action.NONE)
        if isinstance(to.config, GatewayConfig):
            await client.models()  # its readiness is told to everybody; what needs a credential is not


def _warn_of_gauges(facts: Facts | None, asked_for: bool) -> None:
    if facts is None and asked_for:
        complain("--watch: no gateway answers there; its gauges are not told")
    elif facts is not None and not facts.gauges:
        complain("this gateway does not tell of its process; give --pid where it runs on this machine")


def _room_for(sessions: int, workers: int | None) -> int:
    """Make room for the sockets of that many sessions, and say how many there could be.

    Raises:
        Stop: this system does not allow so many.
    """
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return 100_000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else max(soft, 1 << 20)
    if sessions > most_sessions(most, workers):
        raise Stop(
            f"{sessions} sessions need more open files than the {most} that this system allows a process. "
            "Raise the hard limit (ulimit -Hn), or spread the sessions with --workers.",
            Exit.CONFIGURATION,
        )
    if soft < most:
        # Workers inherit it.
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return most_sessions(most, workers)
