"""How much speaks against a canary, counted so that one may look after every stream. Pure.

Which arm a stream went to was drawn by chance, with a known probability q for the canary. Where the canary is no worse,
what became of a stream says nothing of its arm: given the outcome y it was the canary's with probability q still. So
for any function w(y) ≥ 0 that was fixed before the stream ended, the factor

    w(y) / (q·w(y) + 1 - q)   for a stream of the canary,
    1    / (q·w(y) + 1 - q)   for one of the base

has the mean 1, and the product of the factors of all streams so far is a martingale: the chance that it *ever* comes to
1/alpha is at most alpha (Ville's inequality), however often it is looked at, whatever the outcomes' distribution, and
also where the day's load or q change meanwhile. It grows fastest where w is the likelihood of y at a canary that is
worse by so much, divided by that at the base. (Shafer: Testing by betting, JRSS A 184, 2021; Ramdas, Grünwald, Vovk,
Shafer: Game-theoretic statistics and safe anytime-valid inference, Statistical Science 38, 2023.)

By how much a bad canary is worse is not known, nor since when; so it is a mixture: over several w, in equal parts, and
over the stream k from which on it is worse, with the weights 1/((k+1)(k+2)), which add up to 1. What has not begun to
bet keeps its stake, so a canary that was good for long can still be told from one that has become bad (Shin, Ramdas,
Rinaldo: E-detectors, New England Journal of Statistics in Data Science 2, 2024).
"""

from __future__ import annotations

from collections.abc import Sequence

_MOST = 1e12
"""Enough of it: further factors must not run over."""


class Evidence:
    """Against a canary, of one figure; 1 at first, and seldom far above where the canary is no worse.

    Args:
        alternatives: how many suspicions are followed at a time.
    """

    def __init__(self, alternatives: int) -> None:
        self._running = [0.0] * alternatives
        self._seen = 0

    @property
    def value(self) -> float:
        """By Ville's inequality it comes to 1/alpha with a probability of at most alpha where nothing is wrong."""
        return sum(self._running) / len(self._running) + 1 / (self._seen + 1)

    def weigh(self, canary: bool, share: float, ratios: Sequence[float]) -> None:
        """A stream's outcome is known.

        Args:
            canary: whether it was the canary's.
            share: the probability with which it might have become the canary's, above 0 and below 1.
            ratios: w of its outcome, for each alternative; from what was known before it ended.
        """
        begins = 1 / ((self._seen + 1) * (self._seen + 2))
        self._seen += 1
        for number, ratio in enumerate(ratios):
            factor = (ratio if canary else 1.0) / (share * ratio + 1 - share)
            self._running[number] = min((self._running[number] + begins) * factor, _MOST)
