"""`riva-gateway golden`: a run, its figures, its verdict, its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import typer

from asr.client import RivaASRClient
from asr.errors import ASRError, Code
from evaluation.clips import ClipSet
from evaluation.golden import Pace, RunPlan, late_clips, run_set
from evaluation.profiles import Judgement, Profile, guard_limits, judge, load_profile
from evaluation.report import golden_page
from evaluation.results import ClipResult, GoldenRun
from evaluation.sets import load_set, only, sampled
from evaluation.summary import Summary, summarize
from server.commands.connection import Recognizer, connect
from server.commands.exits import Exit, Stop, complain, exit_of, run_async
from server.commands.golden_choice import applies, profile_name, set_folder, target_of
from server.commands.golden_files import check_places, read_run, write_json, write_text
from server.commands.golden_progress import ClipBar
from server.commands.golden_tables import show_run
from server.commands.golden_words import count, verdict

SEED = 1
"""Of `--sample`: the same clips each time."""

MAX_TOLD = 5
"""So many failed streams are told of by name."""


@dataclass(frozen=True, slots=True)
class GoldenFlags:
    """What a run was asked for, beside the recognizer."""

    set_folder: Path | None = None
    only: tuple[str, ...] = ()
    sample: int | None = None
    pace: str = "auto"
    chunk_ms: int = 100
    tail_ms: int = 1500
    concurrency: int = 2
    language: str = ""
    model: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    json_file: Path | None = None
    html_file: Path | None = None
    profile_file: Path | None = None
    quiet: bool = False

    def plan(self, target: str) -> RunPlan:
        """As `evaluation` takes it."""
        return RunPlan(
            chunk_ms=self.chunk_ms,
            tail_ms=self.tail_ms,
            concurrency=self.concurrency,
            pace=cast(Pace, self.pace),  # the flag takes no other
            language=self.language,
            model=self.model,
            target=target,
            labels=dict(self.labels),
        )

    def clips(self) -> ClipSet:
        """The clips asked for.

        Raises:
            Stop: no set is named, and there is none here.
            ASRError: it cannot be read, or has no such condition.
        """
        chosen = only(load_set(set_folder(self.set_folder, Path.cwd())), self.only)
        for note in chosen.notes:
            complain(note)
        return chosen if self.sample is None else sampled(chosen, self.sample, SEED)

    @property
    def places(self) -> tuple[tuple[str, Path | None], ...]:
        """Where results are to go."""
        return (("--json", self.json_file), ("--html", self.html_file), ("--write-profile", self.profile_file))


def run_golden(flags: GoldenFlags, to: Recognizer, profile: str | None) -> None:
    """Measure, show, judge, write.

    Raises:
        Stop: it could not be measured.
        Exit: with status 1, when a limit is missed or a stream failed.
    """
    check_places(*flags.places)
    named = None if profile is None else wanted_profile(profile)
    run = run_async(_measure(flags, to, flags.clips()))
    if profile is None:
        named = own_profile(run)
    _conclude(run, named, flags.places, quiet=flags.quiet)


def report_file(
    path: Path, profile: str | None, *, html_file: Path | None, profile_file: Path | None, quiet: bool
) -> None:
    """Show a stored run.

    Raises:
        Stop: it cannot be read.
        Exit: as `run_golden`.
    """
    places = (("--html", html_file), ("--write-profile", profile_file))
    check_places(*places)
    run = read_run(path)
    _conclude(run, own_profile(run) if profile is None else wanted_profile(profile), places, quiet=quiet)


def own_profile(run: GoldenRun) -> Profile | None:
    """The profile of the recognizer that was asked, where it has one that says something about these clips."""
    name = profile_name(None, run.info.engine)
    if name is None:
        return None
    profile = load_profile(name)
    return profile if applies(profile, {clip.condition for clip in run.clips}) else None


def wanted_profile(name: str) -> Profile | None:
    """The profile of that name or file; None for `none`.

    Raises:
        Stop: there is none.
    """
    chosen = profile_name(name, "")
    try:
        return None if chosen is None else load_profile(chosen)
    except ASRError as error:
        raise Stop(f"--profile: {error.message}", Exit.CONFIGURATION) from None


def document(run: GoldenRun, summary: Summary, judgement: Judgement | None) -> dict[str, Any]:
    """The stored result; `summary` and `judgement` are there for other programs, and are not read back."""
    more: dict[str, Any] = {"summary": asdict(summary)}
    if judgement is not None:
        more["judgement"] = {"kept": judgement.kept, "measured": judgement.measured, **asdict(judgement)}
    return {**run.to_json(), **more}


def told_failures(run: GoldenRun, side: str = "") -> list[ClipResult]:
    """The streams that failed, told of on stderr.

    Raises:
        Stop: all of them did.
    """
    failed = [clip for clip in run.clips if clip.outcome != "ok"]
    if failed and len(failed) == len(run.clips):
        raise Stop(f"{side}no stream came to its end. {failed[0].detail}", _status(failed[0]))
    for clip in failed[:MAX_TOLD]:
        complain(f"{side}{clip.id}: {clip.outcome}: {clip.detail}")
    if len(failed) > MAX_TOLD:
        complain(f"{side}{count(len(failed) - MAX_TOLD, 'further stream')} failed")
    return failed


def _status(failed: ClipResult) -> Exit:
    """What a stream's failure means; its detail begins with the failure's code."""
    code = failed.detail.partition(":")[0]
    return exit_of(ASRError(Code(code), failed.detail)) if code in set(Code) else Exit.UNAVAILABLE


async def _measure(flags: GoldenFlags, to: Recognizer, clips: ClipSet) -> GoldenRun:
    async with connect(to) as client:
        engine = await recognizer_behind(client)
        with ClipBar(clips.clips, tail_ms=flags.tail_ms, quiet=flags.quiet) as bar:
            plan = flags.plan(target_of(to.config))
            run = await run_set(client, clips, plan, now=datetime.now(UTC), on_clip=bar.done)
    return replace(run, info=replace(run.info, engine=engine))


async def recognizer_behind(client: RivaASRClient) -> str:
    """`local`, `riva` or `mock`, also where a gateway is between; `gateway` where that does not tell."""
    name = client.engine_name
    return name if name != "gateway" else (await client.health()).engine or name


def _conclude(
    run: GoldenRun, profile: Profile | None, places: Sequence[tuple[str, Path | None]], *, quiet: bool
) -> None:
    """Show, judge, write.

    Raises:
        Stop: every stream failed, or a file cannot be written.
        Exit: with status 1, when a stream failed or a limit is missed.
    """
    failed = told_failures(run)
    summary, judgement = summarize(run), None if profile is None else judge(run, profile)
    if not quiet:
        show_run(run, summary)
    if late := late_clips(run):
        complain(
            f"this machine was too busy to stream {count(len(late), 'clip')} in time, by up to "
            f"{max(clip.late_ms for clip in late):.0f} ms: their latencies are partly its own"
        )
    info = run.info
    if info.busy and info.load_average is not None:
        complain(
            f"this machine had too much to do (load average up to {info.load_average:.1f} on {info.cores} cores): "
            "latencies are partly its own"
        )
    for line in ["no profile: no limit was looked at"] if judgement is None else verdict(judgement):
        typer.echo(line)
    for flag, path in places:
        match path, flag:
            case None, _:
                continue
            case Path(), "--json":
                write_json(path, document(run, summary, judgement))
            case Path(), "--write-profile":
                write_text(path, guard_limits(run, path.stem))
            case _:
                write_text(path, golden_page(run, summary, judgement))
    if failed or (judgement is not None and not judgement.kept):
        raise typer.Exit(Exit.FAILED)
