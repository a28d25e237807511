"""The one set of rules that a reference and a hypothesis both go through before they are compared.

Made for English; what is written in other scripts keeps its letters and marks. `docs/golden-sets.md` states each rule
with examples, and the tests read them there. A change of the rules is a new version: figures made by two versions
cannot be compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from itertools import pairwise

from evaluation.spoken_numbers import is_digit, spelled

NORMALIZER = "riva-gateway-english/1"
"""Name and version of the rules."""

_APOSTROPHES = dict.fromkeys(map(ord, "’‘‛ʼʻ＇`´′"), "'")
_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
_MINUS = re.compile(r"(?<!\S)[-−–](?=\d)")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_DECIMAL = re.compile(r"(?:(?<=\d)|(?<![^\s$€£¥₹]))\.(?=\d)")
_CLOCK = re.compile(r"(?<![\d:.])(\d{1,2}):00(?![\d:])")
_INITIALS = re.compile(r"(?<![\w'])(?:[^\W\d_]\.)+[^\W\d_](?!\w)\.?")
_SITE = re.compile(r"(?<=\w)\.(?=(?:com|org|net|edu|gov|io)(?!\w))")
_PART = re.compile(r"(?<![\d/])(\d{1,2})[/\u2044](\d{1,2})(?![\d/])")
_PARTS = {
    2: "half",
    3: "third",
    4: "quarter",
    5: "fifth",
    6: "sixth",
    7: "seventh",
    8: "eighth",
    9: "ninth",
    10: "tenth",
}
_MONEY = re.compile(
    r"([$€£¥₹])\s?(\d+(?:,\d+)*)(?:\.(\d\d)(?!\d)|(\.\d+))?(?:\s+(hundred|thousand|million|billion|trillion)(?!\w))?"
)
_COINS = {
    "$": ("dollar", "dollars", "cents"),
    "€": ("euro", "euros", "cents"),
    "£": ("pound", "pounds", "pence"),
    "¥": ("yen", "yen", "sen"),
    "₹": ("rupee", "rupees", "paise"),
}
_SYMBOLS = (
    ("°c", " degrees celsius "),
    ("°f", " degrees fahrenheit "),
    ("°", " degrees "),
    ("%", " percent "),
    ("&", " and "),
    ("@", " at "),
    ("+", " plus "),
    ("=", " equals "),
    ("$", " dollars "),
    ("€", " euros "),
    ("£", " pounds "),
)
_NUMBER_SIGN = re.compile(r"#(?=\d)")
_PIECE = re.compile(r"\d+(?:st|nd|rd|th|'?s)(?!\w)|\d+|\D+")

_FILLERS = frozenset(("uh", "uhh", "uhm", "um", "umm", "hm", "hmm", "hmmm", "mm", "mmm"))
_WORDS = {
    "mr": "mister",
    "mrs": "missus",
    "prof": "professor",
    "vs": "versus",
    "jr": "junior",
    "sr": "senior",
    "ok": "okay",
    "oclock": "o'clock",
    "colour": "color",
    "colours": "colors",
    "favourite": "favorite",
    "neighbour": "neighbor",
    "neighbours": "neighbors",
    "neighbourhood": "neighborhood",
    "harbour": "harbor",
    "honour": "honor",
    "labour": "labor",
    "centre": "center",
    "theatre": "theater",
    "metre": "meter",
    "metres": "meters",
    "litre": "liter",
    "litres": "liters",
    "kilometre": "kilometer",
    "kilometres": "kilometers",
    "grey": "gray",
    "programme": "program",
    "programmes": "programs",
    "travelled": "traveled",
    "travelling": "traveling",
    "cancelled": "canceled",
    "realise": "realize",
    "realised": "realized",
    "organise": "organize",
    "organised": "organized",
    "recognise": "recognize",
    "recognised": "recognized",
}
_UNITS = {
    "km": ("kilometers",),
    "cm": ("centimeters",),
    "mm": ("millimeters",),
    "kg": ("kilograms",),
    "mph": ("miles", "per", "hour"),
}
"""Said in full after a number."""

_SAINTS = frozenset(
    ("andrew", "george", "helena", "james", "john", "joseph", "louis", "mary", "nicholas", "patrick", "paul", "peter")
)
_PENNIES = frozenset(("cent", "cents", "pence", "penny"))
_CURRENCIES = frozenset(name for coin in _COINS.values() for name in coin[:2])


def normalize(text: str) -> str:
    """The words of a text, lower case, one blank between them; "" where there are none.

    Applying it twice changes nothing more. Any text will do; it never raises.
    """
    words: list[str] = []
    for word in spelled(_tokens(_symbols_said(_plain(text)))):
        _append(words, word)
    return " ".join(_titles(words))


def _plain(text: str) -> str:
    """Unicode's compatible form in lower case: plain apostrophes, ASCII digits, no invisible characters."""
    text = _FRACTION.sub(" ", text.translate(_APOSTROPHES))
    for _ in range(2):  # lower case may not be composed yet, and composing may bring apostrophes and format marks
        text = unicodedata.normalize("NFKC", text).lower().translate(_APOSTROPHES)
        text = "".join(char for char in text if unicodedata.category(char) != "Cf")
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def _symbols_said(text: str) -> str:
    """What is written with signs, in words: amounts, fractions, times of day, initials, percent …"""
    text = _MINUS.sub(" minus ", text)
    text = _MONEY.sub(_amount, text)
    text = _THOUSANDS.sub("", text)
    text = _CLOCK.sub(r"\1 o'clock ", text)
    text = _PART.sub(_fraction, text)
    text = _INITIALS.sub(lambda found: found[0].replace(".", "") + " ", text)
    text = _SITE.sub(" dot ", _DECIMAL.sub(" point ", text))
    text = _NUMBER_SIGN.sub(" number ", text)
    for symbol, said in _SYMBOLS:
        text = text.replace(symbol, said)
    return text


def _amount(found: re.Match[str]) -> str:
    one, many, cents = _COINS[found[1]]
    whole, pennies, decimals, scale = found[2].replace(",", ""), found[3], found[4], found[5]
    if scale:
        return f" {whole}.{pennies} {scale} {many} " if pennies else f" {whole}{decimals or ''} {scale} {many} "
    if pennies and pennies != "00":
        small = f"{int(pennies)} {cents}"
        return f" {small} " if not whole.strip("0") else f" {whole} {one if whole == '1' else many} {small} "
    return f" {whole}{decimals or ''} {one if whole == '1' and not decimals else many} "


def _fraction(found: re.Match[str]) -> str:
    above, below = int(found[1]), int(found[2])
    if not 0 < above < below or below not in _PARTS:
        return f"{found[1]} {found[2]}"
    name = _PARTS[below]
    return f" {found[1]} {name if above == 1 else name + 's'} "


def _tokens(text: str) -> list[str]:
    """Words of letters, marks and digits, with apostrophes inside; digits stand apart; fillers are left out."""
    kept = "".join(char if char == "'" or unicodedata.category(char)[0] in "LMN" else " " for char in text)
    tokens: list[str] = []
    for piece in kept.split():
        for part in _PIECE.findall(piece.strip("'")):
            word = part.strip("'")
            if word and (word not in _FILLERS or (word == "mm" and tokens and tokens[-1].isdecimal())):
                tokens.append(word)
    return tokens


def _append(words: list[str], word: str) -> None:
    """Add a word, in the form that is kept, to those before it."""
    before = words[-1] if words else ""
    after_number = is_digit(before)
    if word in _UNITS and after_number:
        words.extend(_UNITS[word])
        return
    word = _WORDS.get(word, word)
    if word == "m" and before in ("a", "p") and len(words) > 1 and (is_digit(words[-2]) or words[-2] == "o'clock"):
        word = words.pop() + "m"
    if word in ("am", "pm"):
        while len(words) > 1 and words[-1] == "o'clock":
            words.pop()
    elif word == "clock" and before == "o":
        words.pop()
        word = "o'clock"
    elif word == "cent" and before == "per":
        words.pop()
        word = "percent"
    elif word in _PENNIES:
        _join_amount(words)
    words.append(word)


def _join_amount(words: list[str]) -> None:
    """ "five dollars and fifty cents" is written without the "and"."""
    at = len(words)
    while at and is_digit(words[at - 1]):
        at -= 1
    end = at
    while at and words[at - 1] == "and":
        at -= 1
    if end < len(words) and at and words[at - 1] in _CURRENCIES:
        del words[at:end]


def _titles(words: Sequence[str]) -> list[str]:
    """Abbreviations that only their neighbour explains: "dr" before a name, "st" before a saint's."""
    output = list(words)
    for index, (word, following) in enumerate(pairwise(words)):
        if word == "dr" and following[0].isalpha():
            output[index] = "doctor"
        elif word == "st" and following in _SAINTS:
            output[index] = "saint"
    return output
