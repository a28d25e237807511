"""What `golden` measures and by which limits, where the flags leave it open. Pure but for a look at a folder."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from pathlib import Path

from asr.config import EngineConfig, GatedConfig, GatewayConfig, LocalConfig, MockConfig, ResilientConfig, RivaConfig
from evaluation.profiles import Profile
from server.commands.exits import Exit, Stop

OWN_SET = Path("tests/golden")
"""Where a checkout has its set."""

NO_PROFILE = "none"
_OF_ENGINE = {"local": "local", "riva": "riva"}
_MEASURED = {"local"}
"""Profiles whose limits were measured on the set of this repository."""


def set_folder(given: Path | None, working_directory: Path) -> Path:
    """The set to score.

    Raises:
        Stop: none is named, and the working directory is no checkout.
    """
    if given is not None:
        return given
    own = working_directory / OWN_SET
    if own.is_dir():
        return own
    raise Stop(
        f"There is no {OWN_SET} here. Name a folder of sound and texts with --set DIR, "
        "or start the command in a checkout of riva-gateway.",
        Exit.CONFIGURATION,
    )


def profile_name(given: str | None, engine: str) -> str | None:
    """The profile to hold the run against, or None.

    Args:
        given: `--profile`.
        engine: who recognizes (`local`, `riva`, `mock`), also behind a gateway; "" where that is not known.
    """
    if given is not None:
        return None if given == NO_PROFILE else given
    return _OF_ENGINE.get(engine)


def applies(profile: Profile, conditions: Collection[str]) -> bool:
    """Whether a recognizer's own profile says something about a set.

    The guard of the embedded recognizer was measured on one set: what it allows for all clips together means nothing
    where none of the conditions that it names is there. Targets hold for any set.
    """
    if profile.name not in _MEASURED:
        return True
    named = {condition for rule in profile.rules for condition in rule.conditions if condition != "*"}
    return any(fnmatchcase(condition, pattern) for condition in conditions for pattern in named)


def target_of(config: EngineConfig) -> str:
    """What is asked, for people, without what may be secret."""
    member = config.member if isinstance(config, GatedConfig) else config
    members = member.members if isinstance(member, ResilientConfig) else (member,)
    match members[0]:
        case GatewayConfig(url=url):
            scheme, _, rest = url.partition("://")
            return f"{scheme}://{rest.rpartition('@')[2]}"
        case RivaConfig():
            return ", ".join(one.endpoint for one in members if isinstance(one, RivaConfig))
        case MockConfig(plan=plan):
            return "mock recognizer" if plan is None else f"mock recognizer, {plan.name}"
        case LocalConfig():
            return "embedded recognizer"
