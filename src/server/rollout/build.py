"""Settings → the engine of a gateway: the base that they name, with the former recognizer and the canary beside it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import ValidationError

from asr.build import build_engine
from asr.channels import ChannelsEngine
from asr.config import GatedConfig, ResilientConfig
from asr.engine import Engine
from asr.errors import ASRError, Code
from asr.silence_gate import SilenceGate
from server.rollout.arms import Canary
from server.rollout.control import FILE_NAME, Control
from server.rollout.engine import RolloutEngine
from server.rollout.state import Position, Wanted
from server.settings import ServerSettings


def build_rollout(settings: ServerSettings, base: Engine | None = None) -> Control:
    """The gateway's engine, as `Control.engine`, and what controls it. Nothing is connected or started yet.

    Args:
        settings: name the endpoints.
        base: used in place of the engine that they name.

    Raises:
        ASRError: `bad_request`, for endpoints that cannot be used or are missing.
    """
    former = _beside(settings, "riva_former_endpoints", settings.riva_former_endpoints)
    canary = _beside(settings, "riva_canary_endpoints", settings.riva_canary_endpoints)
    usual = build_engine(settings) if base is None else base
    engine = RolloutEngine(
        usual,
        make_former=None if former is None else (lambda: build_engine(former)),
        make_canary=None if canary is None else (lambda: build_canary(canary, usual)),
        min_streams=settings.asr_canary_min_streams,
    )
    configured = Wanted(Position(settings.asr_switch), settings.asr_canary_percent)
    try:
        return Control(engine, settings.state_dir / FILE_NAME, configured, utc_now=_utc_now)
    except ASRError as error:
        key = "ASR_SWITCH" if error.param == "position" else "ASR_CANARY_PERCENT"
        raise ASRError(error.code, f"{key}: {error.message}", param=key) from None


def build_canary(settings: ServerSettings, base: Engine) -> Canary:
    """The recognizer that these settings name, on trial: `base` carries on what it loses."""
    config = settings.engine_config()
    gate = config.gate if isinstance(config, GatedConfig) else None
    inner = config.member if isinstance(config, GatedConfig) else config
    assert isinstance(inner, ResilientConfig), "endpoints of Riva stand in for each other"
    wrap: Callable[[Engine], Engine] = ChannelsEngine
    if gate is not None:
        wrap = lambda engine: ChannelsEngine(SilenceGate(engine, gate))  # noqa: E731 - as short as the other
    return Canary([build_engine(member) for member in inner.members], base, inner.resilience, wrap)


def _beside(settings: ServerSettings, name: str, endpoints: str) -> ServerSettings | None:
    """The same settings with other endpoints; None where there are none."""
    if not endpoints.strip():
        return None
    changed = {"asr_engine": "riva", "riva_endpoints": endpoints, "riva_host": "", "nim_host": ""}
    try:
        return type(settings)(**{**settings.model_dump(), **changed})
    except ValidationError as error:
        details = error.errors(include_url=False)[0]
        said = str(details.get("ctx", {}).get("error", details["msg"])).replace("RIVA_ENDPOINTS", name.upper())
        where = "" if name.upper() in said else f"{name.upper()}: "
        raise ASRError(Code.BAD_REQUEST, f"{where}{said}", param=name.upper()) from None


def _utc_now() -> datetime:
    return datetime.now(UTC)
