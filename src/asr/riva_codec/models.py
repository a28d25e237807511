"""The list of models: rows of `GetRivaSpeechRecognitionConfig` ↔ `asr.engine.Model`.

Riva has a row for each use of a model, `online` (streaming) or `offline`; one model may have both.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from asr.engine import SAMPLE_RATE_HZ, Model
from asr.riva_proto import Message
from asr.riva_proto import asr as pb

MULTI = "multi"
"""The language name of a model that finds out the language by itself."""


def read_models(response: Message, *, prefer: str = "") -> tuple[Model, ...]:
    """The models of a `RivaSpeechRecognitionConfigResponse`, in the server's order.

    Rows of one name become one model. A model with several languages gets `multi` as its first, since an empty
    language code lets the server find out. The model named `prefer` comes first, then those that stream.
    """
    merged: dict[str, Model] = {}
    for row in response.model_config:
        model = _read_row(row.model_name, dict(row.parameters))
        known = merged.get(model.name)
        if known is not None:
            model = Model(
                model.name,
                _languages((*known.languages, *model.languages)),
                streaming=known.streaming or model.streaming,
                offline=known.offline or model.offline,
                parameters=MappingProxyType({**model.parameters, **known.parameters}),
            )
        merged[model.name] = model
    return tuple(sorted(merged.values(), key=lambda m: (m.name != prefer, not m.streaming)))


def wire_language(language: str, model: Model | None) -> str:
    """How the language is told to the server: `multi` only to one that uses the word itself, else as ""."""
    if language != MULTI:
        return language
    codes = model.parameters.get("language_code", "") if model is not None else ""
    return MULTI if MULTI in (code.strip() for code in codes.split(",")) else ""


def config_rows(models: Sequence[Model]) -> Message:
    """The `RivaSpeechRecognitionConfigResponse` that lists them: a row for each use of each model."""
    response = pb.RivaSpeechRecognitionConfigResponse()
    for model in models:
        for kind, offered in (("online", model.streaming), ("offline", model.offline)):
            if not offered:
                continue
            row = response.model_config.add(model_name=model.name)
            row.parameters.update(
                {
                    "sample_rate": str(SAMPLE_RATE_HZ),
                    **model.parameters,
                    "type": kind,
                    "language_code": ",".join(model.languages),
                    "streaming": str(kind == "online"),
                    "offline": str(kind == "offline"),
                }
            )
    return response


def _read_row(name: str, parameters: dict[str, str]) -> Model:
    kind = parameters.get("type", "").strip().lower()
    flags = {key: parameters.get(key, "").strip().lower() == "true" for key in ("streaming", "offline")}
    streaming = kind == "online" or flags["streaming"]
    offline = kind == "offline" or flags["offline"]
    if not streaming and not offline:
        streaming = offline = True
    codes = [code.strip() for code in parameters.get("language_code", "").split(",")]
    return Model(
        name,
        _languages(tuple(code for code in codes if code)),
        streaming=streaming,
        offline=offline,
        parameters=MappingProxyType(parameters),
    )


def _languages(codes: tuple[str, ...]) -> tuple[str, ...]:
    unique = tuple(dict.fromkeys(codes))
    if len(unique) > 1 or not unique:
        return (MULTI, *(code for code in unique if code != MULTI))
    return unique
