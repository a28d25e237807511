"""What a request comes to here: which served model a client means, and what becomes of wishes that nobody can grant.

Pure, and below the faces: the same names mean the same on each of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from asr.engine import Agreement, Features, Model, agree
from asr.errors import quoted
from asr.options import Options

_NVIDIA_CLOUD = (
    r"(?:ai-|cache-aware-)?(?:parakeet|nemotron|canary|conformer|citrinet|whisper)(?:-[\w.]+)*-asr(?:-[\w.]+)*"
)
_OPENAI = r"whisper-1|gpt-[\w.]+(?:-mini)?-transcribe(?:-[\w.]+)*|gpt(?:-live)?-transcribe|gpt-realtime[\w.-]*"
_PUBLISHED = re.compile(f"{_NVIDIA_CLOUD}|{_OPENAI}", re.IGNORECASE)
_FAMILIES = ("parakeet", "canary", "nemotron", "conformer", "citrinet", "whisper")


def resolve_model(
    asked: str, models: Sequence[Model], aliases: Mapping[str, str], *, published: bool = True
) -> tuple[str, str]:
    """The name to ask the recognizer for, and a note for the client where that is not the one it gave.

    A served name is itself. Then come the operator's `aliases` ("" for the recognizer's choice), then the bare name of
    a family (`parakeet`), then, with `published`, the names under which NVIDIA's cloud and OpenAI publish models and
    which clients send unasked. Any other name comes back as it is, to be refused by `asr.engine.agree`.

    >>> from asr.engine import Model
    >>> resolve_model("whisper-1", [Model("parakeet-1.1b", ("en-US",))], {})[0]
    'parakeet-1.1b'
    >>> resolve_model("mine", [Model("parakeet-1.1b", ("en-US",))], {})
    ('mine', '')
    """
    if not asked or any(model.name == asked for model in models):
        return asked, ""
    family = asked.lower()
    if asked in aliases:
        meant = aliases[asked]
    elif family in _FAMILIES:
        meant = next((model.name for model in models if family in model.name.lower()), "")
    elif published and _PUBLISHED.fullmatch(asked):
        meant = ""
    else:
        return asked, ""
    meant = meant or (models[0].name if len(models) == 1 else "")
    answers = f"{meant!r} answers" if meant else "the recognizer's own choice answers"
    return meant, f"The model {quoted(asked)} is not served here; {answers} in its place."


@dataclass(frozen=True, slots=True)
class House:
    """What the operator has settled for every request.

    Attributes:
        aliases: names that clients may use → the served model that is meant, "" for the recognizer's choice.
        refuse_unsupported: whether a wish that the recognizer cannot grant refuses the request; else it is left out,
            with a warning.
    """

    aliases: Mapping[str, str] = field(default_factory=dict)
    refuse_unsupported: bool = False

    def agree(self, options: Options, models: Sequence[Model], features: Features) -> Agreement:
        """As `asr.engine.agree`, for names and by the policy of this house.

        Raises:
            ASRError: see `asr.engine.agree`.
        """
        model, note = resolve_model(options.model, models, self.aliases)
        refuse = self.refuse_unsupported or options.fail_on_unsupported
        agreement = agree(replace(options, model=model, fail_on_unsupported=refuse), models, features)
        return replace(agreement, warnings=(note, *agreement.warnings)) if note else agreement
