"""The rules for texts: those that the document states, and what holds of any text."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluation.normalizer import NORMALIZER, normalize

PAGE = (Path(__file__).parents[2] / "docs" / "golden-sets.md").read_text("utf-8")
ROWS = [
    re.findall(r"`([^`]+)`", row)[-3:]
    for row in re.findall(r"^\|.*\|$", PAGE.split("becomes |\n", 1)[1].split("\n\n", 1)[0], re.MULTILINE)[1:]
]

TRICKY = (
    *("zero", "one", "five", "ten", "nineteen", "twenty", "ninety", "hundred", "thousand", "million", "trillion"),
    *("first", "second", "twelfth", "twentieth", "hundredth", "thousandth", "nineties", "double", "triple", "oh", "o"),
    *("a", "and", "point", "per", "cent", "cents", "dollars", "pence", "o'clock", "clock", "p", "m", "am", "dr", "st"),
    *("louis", "mr", "uh", "mm", "km", "mph", "5", "12", "007", "1,000", "1.5", "2nd", "5s", "90's", "10:00", "10:30"),
    *("1/2", "2/3", "3½", "$5", "$5.50", "$", "£3", "%", "&", "-5", "-", "#1", "u.s.", "a.m.", "f.i.v.e.", "x.com"),
    *("°C", "'tis", "boys'", "don’t", "´", "x²", "İ", "ß", "ﬁ", "५", "㎏", "\u200d", "\u0301"),
)
tricky_texts = st.builds(
    lambda parts: "".join(part for pair in parts for part in pair),
    st.lists(st.tuples(st.sampled_from(TRICKY), st.sampled_from((" ", " ", " ", "-", ", ", ""))), max_size=8),
)
any_text = st.text(max_size=60) | tricky_texts


@pytest.mark.parametrize(("written", "also", "becomes"), ROWS)
def test_the_document_tells_the_rules(written: str, also: str, becomes: str) -> None:
    assert normalize(written) == becomes
    assert normalize(also) == becomes
    assert normalize(becomes) == becomes


def test_the_document_has_a_table_and_names_the_rules() -> None:
    assert len(ROWS) > 30
    assert all(len(row) == 3 for row in ROWS)
    assert f"`{NORMALIZER}`" in PAGE


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("", ""),
        (" \n ?! ", ""),
        ("um", ""),
        ("one hundred and five", "1 0 5"),
        ("one hundred and first", "1 0 1th"),
        ("one hundred and one hundred", "1 0 0 and 1 0 0"),
        ("two thousand and five hundred", "2 5 0 0"),
        ("five hundred thousand million", "5 0 0 0 0 0 1 0 0 0 0 0 0"),
        ("five thousand six thousand", "5 0 0 0 6 0 0 0"),
        ("five hundred six hundred", "5 0 0 6 0 0"),
        ("one hundred and twenty five hundred", "1 0 0 and 2 5 0 0"),
        ("two thousand nineteen hundred", "2 0 0 0 1 9 0 0"),
        ("two thousand six hundred", "2 6 0 0"),
        ("five million six hundred thousand two", "5 6 0 0 0 0 2"),
        ("five, twelve", "5 1 2"),
        ("one hundred hundred", "1 0 0 1 0 0"),
        ("one hundred and thousand", "1 0 0 and 1 0 0 0"),
        ("12,000 million", "1 2 0 0 0 0 0 0 0 0 0"),
        ("2/2", "2 2"),
        ("dr 5", "dr 5"),
        ("cafe\u00ad\u0301", "café"),
        ("twenty zero", "2 0 0"),
        ("nineteen hundred", "1 9 0 0"),
        ("twenty twenty five", "2 0 2 5"),
        ("one hundred twenty thousand", "1 2 0 0 0 0"),
        ("five and twenty", "5 and 2 0"),
        ("twenty and five", "2 0 and 5"),
        ("hundreds of people", "hundreds of people"),
        ("one oh one", "1 0 1"),
        ("oh no", "oh no"),
        ("oh seven seven five", "0 7 7 5"),
        ("oh five oh five oh five", "0 5 0 5 0 5"),
        ("1.2345678 million", "1 2 3 4 5 6 7 point 8"),
        ("0.5 million", "5 0 0 0 0 0"),
        ("three point", "3 point"),
        ("three point million", "3 point 1 0 0 0 0 0 0"),
        ("version 1.2.3", "version 1 point 2 point 3"),
        ("$1", "1 dollar"),
        ("$1.00", "1 dollar"),
        ("$0.50", "5 0 cents"),
        ("$2.55 billion", "2 5 5 0 0 0 0 0 0 0 dollars"),
        ("£1.20", "1 pound 2 0 pence"),
        ("5 mm, mm, yes", "5 millimeters yes"),
        ("24/7", "2 4 7"),
        ("10:00:30", "1 0 0 0 3 0"),
        ("mp3", "mp 3"),
        ("rock 'n' roll", "rock n roll"),
        ("می\u200cخواهم", "میخواهم"),
        ("नमस्ते दुनिया", "नमस्ते दुनिया"),
        ("你好，世界", "你好 世界"),
        ("9" * 5000 + " trillion", " ".join("9" * 5000 + "0" * 12)),
    ],
)
def test_single_texts(text: str, becomes: str) -> None:
    assert normalize(text) == becomes


@settings(max_examples=120, deadline=None)
@given(any_text)
def test_twice_is_once(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once


@settings(max_examples=60, deadline=None)
@given(any_text)
def test_what_is_left_are_words(text: str) -> None:
    for word in normalize(text).split(" "):
        assert word == word.strip("'")
        assert not re.search(r"[^\S\n]|[.,;:!?%$€£&@#/\\()\[\]{}<>*=+_\"-]", word)
        assert not word.isdecimal() or len(word) == 1


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**12), st.sampled_from(("", "th")))
def test_digits_come_out_as_they_are(number: int, mark: str) -> None:
    expected = " ".join(str(number)) + mark
    assert normalize(f"{number}{mark}") == expected
    assert normalize(f"{number:,}{mark}") == expected


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 10**12 - 1), st.booleans())
def test_numbers_in_words_are_those_in_digits(number: int, with_and: bool) -> None:
    assert normalize(said(number, "and " if with_and else "")) == normalize(str(number))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(("house", "river", "didn't", "ärger", "привет", "fifty", "12", "7th", "three"))))
def test_the_order_of_words_is_kept(words: list[str]) -> None:
    kept = {"fifty": "5 0", "12": "1 2", "three": "3"}
    # A word between two numbers keeps them from being put together.
    apart = [part for word in words for part in (word, "x")]
    assert normalize(" ".join(apart)) == " ".join(kept.get(word, word) for word in apart)


SMALL = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SCALES = ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred"))


def said(number: int, conjunction: str) -> str:
    """A number in English words."""
    for value, name in SCALES:
        if number >= value:
            above, rest = divmod(number, value)
            tail = f" {conjunction if rest < 100 else ''}{said(rest, conjunction)}" if rest else ""
            return f"{said(above, conjunction)} {name}{tail}"
    if number < 20:
        return SMALL[number]
    return TENS[number // 10 - 2] + (f"-{SMALL[number % 10]}" if number % 10 else "")
