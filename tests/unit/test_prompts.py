"""Prompts as phrases."""

from __future__ import annotations

import pytest

from server.prompts import MAX_PHRASES, phrases_of


@pytest.mark.parametrize(
    ("prompt", "phrases"),
    [
        ("", ()),
        ("Parakeet", ("Parakeet",)),
        ("parakeet, riva nim; triton", ("parakeet", "riva nim", "triton")),
        ("Glossary: Aoife, Siobhán", ("Aoife", "Siobhán")),
        ("Aoife\nSiobhán\n\nAoife", ("Aoife", "Siobhán")),
        ('"Zyntriq," “Kubernetes”', ("Zyntriq", "Kubernetes")),
        ("one two three four five six", ("one two three four five six",)),
        ("we talk about nothing in particular here today", ()),
        ("The meeting is led by Aoife Byrne and Tom, who work at Zyntriq.", ("Aoife Byrne", "Tom", "Zyntriq")),
        ("We deploy to EKS. Then iPhone users with GPT4 see it all happen.", ("EKS", "iPhone", "GPT4")),
        ("日本、東京", ("日本", "東京")),
        (" , ;; ", ()),
    ],
)
def test_a_prompt_becomes_the_phrases_to_favour(prompt: str, phrases: tuple[str, ...]) -> None:
    assert phrases_of(prompt) == phrases


def test_keywords_come_first_and_each_phrase_once() -> None:
    assert phrases_of("Riva, Triton", ["Triton", "  NeMo  "]) == ("Triton", "NeMo", "Riva")


def test_there_are_bounds() -> None:
    assert len(phrases_of(", ".join(f"name{n}" for n in range(10_000)))) == MAX_PHRASES
    assert phrases_of("x" * 101) == ()
    assert phrases_of("", ["y" * 101, "z"]) == ("z",)
