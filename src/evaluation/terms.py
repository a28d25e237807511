"""What the words of a report mean, for those who do not measure recognizers every day."""

from __future__ import annotations

from typing import Literal

from evaluation.markup import Html, section, tag

Report = Literal["golden", "comparison", "load"]

TERMS: dict[str, tuple[str, tuple[Report, ...]]] = {
    "Word error rate (WER)": (
        "Words left out, added or replaced, per word that was said. 10 % is one wrong word in ten.",
        ("golden", "comparison", "load"),
    ),
    "Character error rate (CER)": ("The same, letter by letter.", ("golden", "comparison")),
    "Partial, final": (
        "A partial is text shown while somebody still speaks, and may change. A final no longer changes.",
        ("golden", "comparison", "load"),
    ),
    "First partial": (
        "From the end of the first spoken word, its audio sent, to the first partial with text.",
        ("golden", "comparison", "load"),
    ),
    "Without a partial": (
        "A clip whose first text came in a final counts as a first partial with that, from the beginning of speech.",
        ("golden", "comparison"),
    ),
    "Final": ("From the end of speech, its audio sent, to the final that covers it.", ("golden", "comparison", "load")),
    "Cadence": ("Time between two partials of one utterance.", ("golden",)),
    "Revised": (
        "Share of the words shown in partials that were changed or taken back later. Where nobody speaks: how many.",
        ("golden", "comparison"),
    ),
    "Speed": (
        "Seconds of audio recognized per second, of clips that were sent as fast as they were taken (RTFx).",
        ("golden",),
    ),
    "p50, p95, p99": (
        "Half, 95 % or 99 % of the values are at most as large.",
        ("golden", "comparison", "load"),
    ),
    "95 % confidence interval": (
        "Where the figure would lie, 19 times of 20, if other clips of the same kind were taken.",
        ("golden", "comparison"),
    ),
    "Worse, better": (
        "B's figure differs from A's by more than the margin, and chance alone would hardly do that (p below α).",
        ("comparison",),
    ),
    "p": (
        "How often chance alone would make B look as bad as it does, were it not worse; adjusted for the number of "
        "figures that were tested.",
        ("comparison",),
    ),
    "Margin": ("A difference below this is not called worse, however certain it is.", ("comparison",)),
    "Detectable": (
        "The smallest true difference that this comparison finds four times out of five. Smaller ones may go unseen.",
        ("comparison",),
    ),
    "Sessions": ("Streams that speak at the same time, each in real time.", ("load",)),
    "Refusal": ("A clear answer that there is no room, given before any audio was taken.", ("load",)),
    "Disconnect": ("A connection that broke without a word. There should be none.", ("load",)),
    "Queue": ("From asking for a stream to being told that it is ready.", ("load",)),
    "Throughput": ("Seconds of audio served per second: with 100 sessions, 100 × real time is ideal.", ("load",)),
    "Knee": ("The load at which latency or throughput leaves its straight line.", ("load",)),
    "SLO": ("The service level that a row must keep to count.", ("load",)),
    "Lateness": ("How late this tool itself sent its audio: its own fault, not the gateway's.", ("load",)),
}


def terms(report: Report) -> Html:
    """The legend of a report."""
    said = [tag("div", tag("dt", term), tag("dd", words)) for term, (words, where) in TERMS.items() if report in where]
    return section("Terms", tag("dl", *said, class_="terms"))
