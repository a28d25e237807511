"""English numbers, spoken or written, as separate digits: "twenty five" and "25" both become 2 5.

A recognizer may write a number out or set it in digits, and may group digits as it likes. What is left after this is
only the digits themselves, in order. Ordinals keep a mark at their last digit ("second" and "2nd" are 2th, "twenty
fifth" is 2 5th), and so do decades ("nineties" and "90s" are 9 0s).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_UNIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEEN_WORDS = (
    *("ten", "eleven", "twelve", "thirteen", "fourteen"),
    *("fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS_WORDS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_ORDINAL_WORDS = (
    *("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh"),
    *("twelfth", "thirteenth", "fourteenth", "fifteenth", "sixteenth", "seventeenth", "eighteenth", "nineteenth"),
)
_UNITS = {word: value for value, word in enumerate(_UNIT_WORDS)} | {"nought": 0}
_TEENS = {word: value for value, word in enumerate(_TEEN_WORDS, 10)}
_TENS = {word: value for value, word in zip(range(20, 100, 10), _TENS_WORDS, strict=True)}
_SCALES = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Zeros that each adds."""

_MULTIPLIERS = {"hundred": 2} | _SCALES
_ORDINAL_UNITS = {word: value for value, word in enumerate(_ORDINAL_WORDS[:9], 1)}
_ORDINAL_TEENS = {word: value for value, word in enumerate(_ORDINAL_WORDS[9:], 10)}
_ORDINAL_TENS = {word[:-1] + "ieth": value for word, value in _TENS.items()}
_ORDINAL_SCALES = {word + "th": zeros for word, zeros in _MULTIPLIERS.items()}
_DECADES = {word[:-1] + "ies": value for word, value in _TENS.items()}
_REPEATS = {"double": 2, "triple": 3}
_ZEROS = ("oh", "o")
_ROOM_AFTER_HUNDRED = 100
_ROOM_AFTER_SCALE = 1000
_FIGURES = "0123456789"
_DIGITS = re.compile(r"[0-9]+")
_WRITTEN = re.compile(r"([0-9]+)(st|nd|rd|th|s|'s)?")
_MARKS = {"": "", "s": "s", "'s": "s"}


def is_digit(word: str) -> bool:
    """Whether it is one digit of a number that goes on or ends here, without a mark."""
    return len(word) == 1 and word in _FIGURES


def spelled(tokens: Sequence[str]) -> list[str]:
    """The tokens with each number as its digits. Tokens are in lower case; applying it twice changes nothing more."""
    return _with_zeros(list(_digits(_prepared(tokens))))


def _prepared(tokens: Sequence[str]) -> list[str]:
    """ "double five" is five five, and the article of "a hundred" is no word of its own."""
    prepared: list[str] = []
    for word in reversed(tokens):
        following = prepared[-1] if prepared else ""
        if word == "a" and following in _MULTIPLIERS:
            continue
        if word in _REPEATS and (following in _UNITS or following in _ZEROS):
            prepared[-1:] = ["zero" if following in _ZEROS else following] * _REPEATS[word]
            continue
        prepared.append(word)
    prepared.reverse()
    return prepared


def _digits(tokens: Sequence[str]) -> Iterator[str]:
    at = 0
    while at < len(tokens):
        if (written := _WRITTEN.fullmatch(tokens[at])) is not None:
            digits, mark = written[1], written[2] or ""
            at += 1
            if not mark:
                digits, at = _scaled(digits, tokens, at)
            yield from _marked(digits, _MARKS.get(mark, "th"))
        elif (phrase := _Phrase(tokens, at)).end > at:
            digits, mark, at = phrase.digits, phrase.mark, phrase.end
            if not mark:
                digits, at = _scaled(digits, tokens, at, decimal_only=True)
            yield from _marked(digits, mark)
        else:
            yield tokens[at]
            at += 1


def _marked(digits: str, mark: str) -> Iterator[str]:
    for index, digit in enumerate(digits):
        if digit == ".":
            yield "point"
        else:
            yield digit + mark if index == len(digits) - 1 else digit


def _scaled(digits: str, tokens: Sequence[str], at: int, *, decimal_only: bool = False) -> tuple[str, int]:
    """ "25 thousand", "1 point 5 million": the digits of the whole number, and where the text goes on."""
    end, fraction = at, ""
    pointed = at < len(tokens) and tokens[at] == "point"
    if pointed:
        end += 1
        while end < len(tokens) and (tokens[end] in _UNITS or _DIGITS.fullmatch(tokens[end])):
            fraction += str(_UNITS.get(tokens[end], tokens[end]))
            end += 1
    elif decimal_only:
        return digits, at
    zeros = 0
    while end < len(tokens) and tokens[end] in _MULTIPLIERS:
        zeros += _MULTIPLIERS[tokens[end]]
        end += 1
    if not zeros or (pointed and not fraction):
        return digits, at
    whole = (digits + fraction[:zeros].ljust(zeros, "0")).lstrip("0") or "0"
    return whole + ("." + fraction[zeros:] if len(fraction) > zeros else ""), end


class _Phrase:
    """The longest number in words that begins at a word: "two thousand and nineteen", but "nineteen | ninety".

    Attributes:
        digits: its value.
        mark: "th" of an ordinal, "s" of a decade, else "".
        end: the index after it; that of its beginning where there is none.
    """

    def __init__(self, tokens: Sequence[str], start: int) -> None:
        self.mark = ""
        self.end = start
        self._begun = False
        self._total = 0
        self._group = 0
        """What is below the next scale."""
        self._room = _ROOM_AFTER_SCALE
        """The next word's value must be below this to belong to the number."""
        self._scale = 99
        """Zeros of the scale before; the next one must have fewer."""
        self._hundred_end = self._scale_end = start
        """Where the last hundred, the last thousand … ended: what follows may turn out to be another number's."""
        while self.end < len(tokens) and not self.mark:
            skip = int(tokens[self.end] == "and" and self._begun and self._room >= _ROOM_AFTER_HUNDRED)
            if self.end + skip >= len(tokens) or not self._take(tokens[self.end + skip], after_and=bool(skip)):
                break
            self.end += 1 + skip
            if self._room == _ROOM_AFTER_HUNDRED:
                self._hundred_end = self.end
            elif self._room == _ROOM_AFTER_SCALE:
                self._scale_end = self.end
        self.digits = str(self._total + self._group)

    def _take(self, word: str, *, after_and: bool) -> bool:
        for table, mark in ((_UNITS, ""), (_ORDINAL_UNITS, "th")):
            if word in table:
                return self._add(table[word], mark, room=1, below=10)
        for table, mark in ((_TEENS, ""), (_ORDINAL_TEENS, "th")):
            if word in table:
                return self._add(table[word], mark, room=1, below=100)
        for table, mark in ((_TENS, ""), (_ORDINAL_TENS, "th"), (_DECADES, "s")):
            if word in table:
                return self._add(table[word], mark, room=10, below=100)
        if after_and:
            return False
        if word in _MULTIPLIERS:
            return self._multiply(_MULTIPLIERS[word], "")
        return word in _ORDINAL_SCALES and self._multiply(_ORDINAL_SCALES[word], "th")

    def _add(self, value: int, mark: str, *, room: int, below: int) -> bool:
        if self._begun and (value == 0 or self._room < below):
            return False
        self._begun = True
        self._group += value
        self._room = room
        self.mark = mark
        return True

    def _multiply(self, zeros: int, mark: str) -> bool:
        group = self._group if self._begun else 1
        if group == 0:
            return False
        if zeros == 2:
            if group >= 100:
                return self._end_at(self._hundred_end, group // 100 * 100)
            if self._total and group >= 10:
                return self._end_at(self._scale_end, 0)
            self._group = group * 100
            self._room = _ROOM_AFTER_HUNDRED
        else:
            if zeros >= self._scale:
                return self._end_at(self._scale_end, 0)
            self._total += group * 10**zeros
            self._group = 0
            self._scale = zeros
            self._room = _ROOM_AFTER_SCALE
        self._begun = True
        self.mark = mark
        return True

    def _end_at(self, end: int, group: int) -> bool:
        """ "five hundred six hundred": the six is the next number's."""
        self.end, self._group = end, group
        return False


def _with_zeros(tokens: Sequence[str]) -> list[str]:
    """ "oh" is a zero between digits, and before three digits or more."""
    backwards: list[str] = []
    end = len(tokens)
    while end:
        at = end
        while at and tokens[at - 1] in _ZEROS:
            at -= 1
        if at == end:
            at = end - 1
            backwards.append(tokens[at])
        else:
            inside = at > 0 and is_digit(tokens[at - 1]) and bool(backwards) and backwards[-1][0] in _FIGURES
            before = len(backwards) >= 3 and all(map(is_digit, backwards[-3:]))
            backwards.extend(["0"] * (end - at) if inside or before else reversed(tokens[at:end]))
        end = at
    backwards.reverse()
    return backwards
