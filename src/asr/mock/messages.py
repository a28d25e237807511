"""Scripted responses as Riva's protobuf messages, and Riva's configurations as what the script heeds."""

from __future__ import annotations

from typing import Any

from asr.mock.responses import RawAlternative, RawResponse, RawResult, Request
from asr.mock.sections import ModelRow
from asr.riva_proto import asr as pb


def streaming_response(raw: RawResponse, request_id: str = "") -> Any:
    """A `StreamingRecognizeResponse`; `request_id` is echoed where there is one."""
    message = pb.StreamingRecognizeResponse(results=[_streaming_result(r) for r in raw.results])
    if request_id:
        message.id.value = request_id
    return message


def recognize_response(results: list[RawResult], request_id: str = "") -> Any:
    """A `RecognizeResponse` of the finals among `results`."""
    message = pb.RecognizeResponse(
        results=[
            pb.SpeechRecognitionResult(
                alternatives=[_alternative(a) for a in r.alternatives],
                channel_tag=r.channel_tag,
                audio_processed=r.audio_processed_ms / 1000,
            )
            for r in results
            if r.is_final
        ]
    )
    if request_id:
        message.id.value = request_id
    return message


def config_response(models: tuple[ModelRow, ...], wanted: str = "") -> Any:
    """A `RivaSpeechRecognitionConfigResponse` of the models, or of the one that is named `wanted`."""
    response = pb.RivaSpeechRecognitionConfigResponse()
    for model in models:
        if wanted and model.name != wanted:
            continue
        row = response.model_config.add(model_name=model.name)
        row.parameters["type"] = model.type
        row.parameters["language_code"] = model.language_code
        row.parameters["sample_rate"] = str(model.sample_rate_hz)
        row.parameters["streaming"] = str(model.type == "online")
        row.parameters["offline"] = str(model.type == "offline")
    return response


def request_of(config: Any, *, rate_hz: int, interim_results: bool = False) -> Request:
    """What a `RecognitionConfig` asks of the script."""
    endpointing = config.endpointing_config
    return Request(
        rate_hz=rate_hz,
        interim_results=interim_results,
        words=config.enable_word_time_offsets,
        diarization=config.diarization_config.enable_speaker_diarization,
        max_alternatives=max(1, config.max_alternatives),
        vad_probabilities=config.custom_configuration.get("get_vad_probabilities", "").lower() == "true",
        silence_ms=endpointing.stop_history if endpointing.stop_history > 0 else None,
        eager_ms=endpointing.stop_history_eou if endpointing.stop_history_eou > 0 else None,
    )


def pick_model(models: tuple[ModelRow, ...], *, name: str, language: str, kind: str) -> ModelRow | None:
    """The model that serves a request, or None. `kind` is `online` or `offline`."""
    for model in models:
        if model.type != kind or (name and model.name != name):
            continue
        known = {code.strip().lower() for code in model.language_code.split(",")}
        if language.lower() in ("", "multi", "auto") or "multi" in known or language.lower() in known:
            return model
    return None


def unavailable_model(*, language: str, rate_hz: int, kind: str, cut: bool) -> str:
    """Riva's text for a request that no model serves; `cut`: it names the base language only."""
    shown = language.split("-")[0] if cut else language
    return (
        "Error: Unavailable model requested given these parameters: "
        f"language_code={shown}; sample_rate={rate_hz}; type={kind}; "
    )


def _streaming_result(raw: RawResult) -> Any:
    result = pb.StreamingRecognitionResult(
        alternatives=[_alternative(a) for a in raw.alternatives],
        is_final=raw.is_final,
        stability=raw.stability,
        channel_tag=raw.channel_tag,
        audio_processed=raw.audio_processed_ms / 1000,
    )
    if raw.vad:
        result.pipeline_states.vad_probabilities.extend(raw.vad)
    return result


def _alternative(raw: RawAlternative) -> Any:
    return pb.SpeechRecognitionAlternative(
        transcript=raw.transcript,
        confidence=raw.confidence,
        words=[
            pb.WordInfo(
                word=w.text,
                start_time=w.start_ms,
                end_time=w.end_ms,
                confidence=w.confidence,
                speaker_tag=w.speaker_tag,
                language_code=w.language,
            )
            for w in raw.words
        ],
        language_code=raw.languages,
    )
