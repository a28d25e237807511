"""Settings → the NIM that is started beside the gateway."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asr.engine import Engine, Readiness
from asr.environment import others_environment
from asr.nim_http import NimHttp
from server.nim.beside import NimBeside, NimPlan
from server.settings import ServerSettings

_OURS = frozenset({*ServerSettings.known_keys(), "GRPC_VERBOSITY", "GRPC_ENABLE_FORK_SUPPORT"})
"""Never passed on: our own settings, among them every other secret, and what we have set for ourselves."""


def build_nim(settings: ServerSettings, engine: Engine, stop: asyncio.Event) -> NimBeside | None:
    """The NIM of `NIM_COMMAND`, or None where there is none: then it runs elsewhere.

    Args:
        settings: what is started, and how it is to listen.
        engine: recognizes by the NIM's gRPC.
        stop: set where the gateway cannot go on without the NIM.
    """
    if not settings.nim_command:
        return None
    key = settings.ngc_api_key
    secrets = () if key is None else (key.get_secret_value(),)
    plan = NimPlan(
        settings.nim_command,
        nim_environment(settings),
        secrets,
        start_timeout_ms=settings.nim_start_timeout_ms,
        drain_ms=settings.drain_delay_ms + settings.drain_timeout_ms,
    )
    http = NimHttp(settings.nim_host or "127.0.0.1", settings.nim_http_port)
    return NimBeside(plan, _ready(http, engine), stop)


def nim_environment(settings: ServerSettings) -> dict[str, str]:
    """The whole environment of the NIM: the container's own without our settings, its key, and where it listens."""
    env = others_environment(_OURS)
    if settings.ngc_api_key is not None:
        env["NGC_API_KEY"] = settings.ngc_api_key.get_secret_value()
    if settings.nim_tags_selector:
        env["NIM_TAGS_SELECTOR"] = settings.nim_tags_selector
    env["NIM_HTTP_API_PORT"] = str(settings.nim_http_port)
    env["NIM_GRPC_API_PORT"] = str(settings.riva_grpc_port)
    return env


def _ready(http: NimHttp, engine: Engine) -> Callable[[], Awaitable[Readiness]]:
    """Asks the NIM's HTTP API until it has said yes once (it may be slow under load), and its gRPC every time."""
    said_yes = False

    async def ready() -> Readiness:
        nonlocal said_yes
        if not said_yes:
            state = await http.ready()
            if not state.ready:
                return state
            said_yes = True
        return await engine.ready()

    return ready
