"""What every realtime conversation of a server has in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from asr.audio import Stereo
from asr.engine import Features, Model
from asr.options import Options
from server.models import House, resolve_model


@dataclass(frozen=True, slots=True)
class RealtimeSetup:
    """Limits and rules.

    Attributes:
        start_timeout_ms: how long a client's first message may take.
        max_session_ms: how long a connection may last.
        stereo: what becomes of several channels where a dialect takes them: "mix" or "refuse".
        refuse_unsupported: whether what the engine cannot do refuses a session; else it is left out with a warning.
        models: what the engine served when the client connected; empty where it could not tell.
        features: what the engine can do.
        aliases: model names that clients may use → the served one that is meant ("" for the engine's choice).
    """

    start_timeout_ms: int = 10_000
    max_session_ms: int = 3_600_000
    stereo: Stereo = "mix"
    refuse_unsupported: bool = False
    models: tuple[Model, ...] = ()
    features: Features = field(default_factory=Features)
    aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def settle(self, options: Options) -> tuple[Options, tuple[str, ...]]:
        """What becomes of a client's options, and a sentence for all that is left out or taken for something else.

        Without `models` only the rules of the server are applied: the rest shows when the take begins.

        Raises:
            ASRError: `not_found`, `unsupported`: see `asr.engine.agree`.
        """
        if not self.models:
            model, note = resolve_model(options.model, (), self.aliases)
            refuse = self.refuse_unsupported or options.fail_on_unsupported
            return replace(options, model=model, fail_on_unsupported=refuse), (note,) if note else ()
        agreement = House(self.aliases, self.refuse_unsupported).agree(options, self.models, self.features)
        return agreement.options, agreement.warnings
