"""Names of models, as clients of other services give them."""

import pytest

from asr.engine import Features, Model
from asr.errors import ASRError, Code
from asr.options import Options
from server.models import House, resolve_model

PARAKEET = Model("parakeet-1.1b-rnnt", ("en-US",))
CANARY = Model("canary-1b", ("multi",))


def test_a_served_name_is_itself():
    assert resolve_model("canary-1b", [PARAKEET, CANARY], {"canary-1b": "parakeet-1.1b-rnnt"}) == ("canary-1b", "")


def test_nothing_asked_is_nothing_said():
    assert resolve_model("", [PARAKEET], {}) == ("", "")


def test_an_alias_of_the_operator():
    name, note = resolve_model("fast", [PARAKEET, CANARY], {"fast": "canary-1b"})
    assert name == "canary-1b"
    assert note == "The model 'fast' is not served here; 'canary-1b' answers in its place."


def test_an_alias_may_leave_the_choice_to_the_recognizer():
    assert resolve_model("fast", [PARAKEET, CANARY], {"fast": ""})[0] == ""


def test_a_family_takes_the_first_of_its_members():
    assert resolve_model("Canary", [PARAKEET, CANARY], {})[0] == "canary-1b"


def test_a_family_that_is_not_served_is_answered_by_what_is():
    assert resolve_model("canary", [PARAKEET], {})[0] == "parakeet-1.1b-rnnt"


@pytest.mark.parametrize(
    "name",
    [
        "whisper-1",
        "gpt-4o-transcribe",
        "gpt-4o-mini-transcribe-2025-12-15",
        "gpt-4o-transcribe-diarize",
        "gpt-realtime-whisper",
        "parakeet-1.1b-en-US-asr-streaming-silero-vad-sortformer",
        "ai-parakeet-ctc-1_1b-asr",
    ],
)
def test_published_names_are_understood(name: str):
    model, note = resolve_model(name, [PARAKEET], {})
    assert model == PARAKEET.name
    assert repr(name) in note
    assert resolve_model(name, [PARAKEET], {}, published=False) == (name, "")


def test_any_other_name_is_left_to_be_refused():
    assert resolve_model("gpt-4o", [PARAKEET], {}) == ("gpt-4o", "")


def test_a_house_settles_names_and_policy():
    house = House({"mine": "canary-1b"}, refuse_unsupported=True)
    agreed = house.agree(Options(model="mine", language="de"), [PARAKEET, CANARY], Features())
    assert agreed.model is CANARY
    assert agreed.warnings == ("The model 'mine' is not served here; 'canary-1b' answers in its place.",)
    with pytest.raises(ASRError) as caught:
        house.agree(Options(profanity_filter=True), [PARAKEET], Features())
    assert caught.value.code is Code.UNSUPPORTED
    assert House().agree(Options(profanity_filter=True), [PARAKEET], Features()).warnings
