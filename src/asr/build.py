"""Settings → an engine: the only room that names every engine.

Each engine is imported when it is first built, so that a program pays for the one that it uses: gRPC,
pocketsphinx and websockets are not loaded by `import asr`.
"""

from __future__ import annotations

from asr.channels import ChannelsEngine
from asr.config import (
    EngineConfig,
    GatedConfig,
    GatewayConfig,
    LocalConfig,
    MockConfig,
    ResilientConfig,
    RivaConfig,
)
from asr.engine import Engine
from asr.settings import EngineSettings


def build_engine(setup: EngineSettings | EngineConfig) -> Engine:
    """The engine that settings choose, or that a config record describes.

    Nothing is connected or started yet: an engine does that with its first stream.

    Raises:
        ASRError: `bad_request` or `not_found`, when a plan, a certificate file or the voice detector of the silence
            gate cannot be used.
    """
    config = setup.engine_config() if isinstance(setup, EngineSettings) else setup
    return ChannelsEngine(_build(config))


def _build(config: EngineConfig) -> Engine:
    match config:
        case LocalConfig():
            from asr.engines.local import LocalEngine

            return LocalEngine(config)
        case RivaConfig():
            from asr.engines.riva import RivaEngine

            return RivaEngine(config)
        case ResilientConfig():
            from asr.resilience.resilient import ResilientEngine

            return ResilientEngine([_build(member) for member in config.members], config.resilience)
        case GatedConfig():
            from asr.silence_gate import SilenceGate

            return SilenceGate(_build(config.member), config.gate)
        case MockConfig():
            from asr.engines.mock import MockEngine
            from asr.mock.plan import MockPlan, load_plan

            return MockEngine(MockPlan() if config.plan is None else load_plan(config.plan))
        case GatewayConfig():
            from asr.engines.gateway import GatewayEngine

            return GatewayEngine(config)
