"""Languages by name and by code."""

from __future__ import annotations

import pytest

from server.languages import code_of, name_of


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ("en", "en"),
        ("en-US", "en-US"),
        ("EN_us", "EN-us"),
        ("english", "en"),
        (" German ", "de"),
        ("norwegian", "no"),
        ("mandarin", "zh"),
        ("auto", ""),
        ("", ""),
        ("klingon", "klingon"),
    ],
)
def test_what_a_client_says_becomes_a_code(said: str, code: str) -> None:
    assert code_of(said) == code


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("en-US", "english"),
        ("de", "german"),
        ("zh-CN", "chinese"),
        ("nb-NO", "norwegian"),
        ("multi", "multi"),
        ("", ""),
    ],
)
def test_a_code_becomes_the_name_that_whisper_gives(code: str, name: str) -> None:
    assert name_of(code) == name


def test_every_name_leads_back_to_a_code_of_that_name() -> None:
    for code in ("en", "fr", "yue", "sw", "he"):
        assert code_of(name_of(code)) == code
