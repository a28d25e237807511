"""The realtime cores as a server makes them, for tests without one."""

from __future__ import annotations

from urllib.parse import parse_qs

from asr.engine import Engine, Model
from server.conversation import Conversation
from server.faces.realtime.dialect import read_handshake
from server.faces.realtime.setup import RealtimeSetup
from server.realtime_mount import PATH, core_for
from word_engine import MODELS

__all__ = ["PATH", "realtime_core"]


def realtime_core(path: str, engine: Engine, models: tuple[Model, ...] = MODELS) -> Conversation:
    """The core for a client that connects at `path` (with its query) and shows nothing else."""
    query = {name: values[-1] for name, values in parse_qs(path.partition("?")[2]).items()}
    return core_for(read_handshake([], query), RealtimeSetup(models=models, features=engine.features), None)
