"""Made-up runs that look like real ones: what reports, tables and comparisons are tried on."""

from __future__ import annotations

import random

from evaluation.recording import Outcome
from evaluation.results import ClipResult, GoldenRun, RunInfo, Timings
from evaluation.scoring import score
from evaluation.statistics import Interval
from evaluation.summary import Figure
from load.knee import recommend
from load.leaks import leaks
from load.summary import (
    LoadRow,
    Sample,
    Slo,
    Sweep,
    SweepInfo,
    Usage,
)

HOSTILE = "</svg></style><script>alert('x')</script>\"><img src=x onerror=alert(1)>&amp;\x00"

SENTENCES = (
    "my brother came home from the harbour before the rain began",
    "please move the meeting with doctor Adams to Thursday at a quarter past nine",
    "we need two pounds of flour, six eggs and a little salt",
    "the train to Bristol leaves from platform four in eleven minutes",
    "could you read the last paragraph once more, a little slower",
    "the patient was given fifty milligrams in the morning and again at night",
    "nobody in the village remembered who had planted the old chestnut tree",
    "turn the heating down before you leave, and lock the kitchen window",
)
HEARD_FOR = {"harbour": "harbor", "brother": "bother", "Thursday": "Tuesday", "flour": "flower", "Bristol": "crystal",
             "eleven": "seven", "slower": "lower", "fifty": "fifteen", "chestnut": "just not", "heating": "meeting",
             "kitchen": "chicken", "home": "ham", "rain": "train", "night": "nine", "village": "villages"}  # fmt: skip
CONDITIONS = (
    # condition, share of words hurt, median of the first partial and of the final
    ("clean", 0.05, 175, 420),
    ("fast", 0.09, 160, 430),
    ("accents", 0.11, 185, 445),
    ("digits", 0.07, 180, 410),
    ("low_level", 0.08, 190, 440),
    ("music", 0.19, 215, 520),
    ("noise_20db", 0.07, 185, 440),
    ("noise_10db", 0.13, 200, 480),
    ("noise_5db", 0.22, 225, 540),
    ("noise_0db", 0.38, 260, 610),
)


def run_info(**changes: object) -> RunInfo:
    told: dict[str, object] = {
        "target": "https://gateway.example.org:8443",
        "engine": "riva",
        "model": "parakeet-1.1b-en-US-streaming",
        "set_name": "golden",
        "set_fingerprint": "4be1f20c",
        "chunk_ms": 100,
        "tail_ms": 1500,
        "concurrency": 2,
        "normalizer": "riva-gateway-1",
        "started_at": "2026-03-02T09:14:31+00:00",
        "machine": "2 cores, Python 3.11.7",
        "version": "0.1.0",
        "labels": {"driver": "550.90"},
    }
    return RunInfo(**{**told, **changes})  # type: ignore[arg-type]


def clip_result(
    id: str, condition: str, reference: str, hypothesis: str, timings: Timings | None = None, **changes: object
) -> ClipResult:
    scored = score(reference, hypothesis)
    audio_ms = 400 + 330 * len(reference.split()) or 5000
    told: dict[str, object] = {
        "id": id,
        "condition": condition,
        "reference": reference,
        "hypothesis": hypothesis,
        "audio_ms": audio_ms,
        "words": scored.words,
        "chars": scored.chars,
        "timings": timings or Timings(),
        "partials": 9,
        "finals": int(bool(hypothesis)),
        "realtime": timings is not None,
        "elapsed_ms": audio_ms + 1500.0,
        "late_ms": 2.5,
    }
    return ClipResult(**{**told, **changes})  # type: ignore[arg-type]


def golden_run(
    *, seed: int = 7, harm: float = 1.0, slower_ms: float = 0.0, each: int = 16, **info: object
) -> GoldenRun:
    """A run of every condition, silence and a long clip among them.

    Args:
        seed: of what is left to chance; the clips are the same with every seed.
        harm: factor on the share of words that are heard wrong.
        slower_ms: added to each final.
        each: clips of each condition.
        info: changes of `run_info`.
    """
    chance = random.Random(seed)
    clips = []
    for condition, share, first, final in CONDITIONS:
        for n in range(each):
            reference = SENTENCES[n % len(SENTENCES)]
            heard = _misheard(reference, share * harm, chance)
            timings = Timings(
                first_partial_ms=first * chance.lognormvariate(0, 0.22),
                first_text_ms=260 + first * chance.lognormvariate(0, 0.2),
                word_partial_ms=tuple(first * 1.2 * chance.lognormvariate(0, 0.3) for _ in reference.split()),
                word_final_ms=tuple(final * 4 * chance.lognormvariate(0, 0.3) for _ in reference.split()),
                final_ms=(final * chance.lognormvariate(0, 0.16) + slower_ms,),
                partial_gap_ms=tuple(200 * chance.lognormvariate(0, 0.1) for _ in range(8)),
                partial_words=40,
                revised_words=round(40 * share * chance.uniform(0.2, 0.6)),
            )
            clips.append(clip_result(f"{condition}/{n:02}", condition, reference, heard, timings))
    broken: Outcome = "disconnected"
    clips[each + min(4, each - 1)] = clip_result(
        "fast/04", "fast", SENTENCES[4], "", outcome=broken, detail="The connection broke after 1.4 s."
    )
    clips += [clip_result(f"silence/{n}", "silence", "", "", Timings(), audio_ms=8000) for n in range(6)]
    text = " ".join(SENTENCES * 12)
    long = clip_result("long/story", "long", text, _misheard(text, 0.04 * harm, chance), elapsed_ms=9000.0)
    return GoldenRun(run_info(**info), (*clips, long))


def hostile_run() -> GoldenRun:
    """A run in which every text from outside tries to be markup."""
    timings = Timings(first_partial_ms=150.0, final_ms=(400.0,), partial_words=3, revised_words=1)
    clips = (
        clip_result(HOSTILE, HOSTILE, f"said {HOSTILE}", f"heard {HOSTILE} more", timings),
        clip_result("broken" + HOSTILE, HOSTILE, HOSTILE, "", outcome="error", detail=HOSTILE),
    )
    names = (
        "target",
        "engine",
        "model",
        "set_name",
        "set_fingerprint",
        "normalizer",
        "started_at",
        "machine",
        "version",
    )
    return GoldenRun(run_info(**dict.fromkeys(names, HOSTILE), labels={HOSTILE: HOSTILE}), clips)


def _misheard(reference: str, share: float, chance: random.Random) -> str:
    heard = []
    for word in reference.split():
        bare = word.strip(",")
        if chance.random() >= share:
            heard.append(word)
            continue
        kind = chance.random()
        if kind < 0.6:
            heard.append(HEARD_FOR.get(bare, bare[:-1] + ("t" if not bare.endswith("t") else "d")))
        elif kind > 0.8:
            heard += [word, chance.choice(("the", "a", "and"))]
    return " ".join(heard)


SESSIONS = (1, 10, 25, 50, 100, 150, 200, 300, 400)
MEASURED_LOAD = {
    # sessions: first partial p50, p95, p99; final p50, p95, p99; queue p95
    1: (92, 118, 121, 402, 431, 440, 3),
    10: (94, 124, 131, 404, 440, 452, 3),
    25: (95, 127, 139, 405, 446, 461, 4),
    50: (97, 131, 149, 409, 452, 476, 4),
    100: (101, 142, 168, 415, 470, 512, 5),
    150: (110, 163, 214, 428, 515, 590, 7),
    200: (126, 218, 305, 455, 610, 742, 11),
    300: (131, 224, 318, 463, 628, 770, 14),
    400: (133, 229, 327, 466, 634, 781, 15),
}


def load_row(sessions: int, *, refusals: int = 0, limited: bool = False, **changes: object) -> LoadRow:
    first50, first95, first99, final50, final95, final99, queue = MEASURED_LOAD[sessions]
    offered = sessions * 2
    rate = 0.065 + sessions % 9 / 1500
    told: dict[str, object] = {
        "sessions": sessions,
        "peak": sessions - refusals // 2,
        "offered": offered,
        "done": offered - refusals,
        "wall_ms": 64_000.0,
        "wer": Figure(rate, Interval(rate - 0.4 / (sessions + 9), rate + 0.5 / (sessions + 9)), 80 * sessions),
        "cer": Figure(0.031, Interval(0.028, 0.035), 400 * sessions),
        "connect_p50_ms": 2.1,
        "connect_p95_ms": 4.4,
        "queue_p50_ms": queue * 0.5,
        "queue_p95_ms": float(queue),
        "first_text_p50_ms": first50 + 241.0,
        "first_text_p99_ms": first99 + 263.0,
        "first_partial_p50_ms": float(first50),
        "first_partial_p95_ms": float(first95),
        "first_partial_p99_ms": float(first99),
        "word_partial_p50_ms": first50 * 1.13,
        "word_partial_p95_ms": first95 * 1.21,
        "word_final_p50_ms": final50 * 4.1,
        "word_final_p95_ms": final95 * 6.3,
        "final_p50_ms": float(final50),
        "final_p95_ms": float(final95),
        "final_p99_ms": float(final99),
        "throughput": (sessions - refusals / 2) * 0.97,
        "errors": 0,
        "refusals": refusals,
        "disconnects": 0,
        "timeouts": 0,
        "error_rate": refusals / offered,
        "retry_after": 1.0 if refusals else None,
        "refusal_p95_ms": 8.4 if refusals else None,
        "late_p99_ms": 0.9 + sessions / 100,
        "late_max_ms": 4.0 + sessions / 20,
        "workers": 2,
        "worker_cpu": min(0.04 + sessions / 700, 0.96),
        "generator_limited": limited,
        "slo_kept": not refusals and not limited,
        "missed": (f"{refusals / offered:.1%} of the sessions failed or were refused (limit 0.5%)",)
        if refusals
        else (),
        "limit": "generator" if limited else "refusals" if refusals else "none",
        "usage": (
            Usage(
                "gateway",
                0.02 + sessions / 260,
                61_000_000 + 240_000 * sessions,
                24 + 2 * sessions,
                12,
                9 + 3 * sessions,
            ),
        ),
    }
    return LoadRow(**{**told, **changes})  # type: ignore[arg-type]


def sweep(*, limited: bool = False, mode: str = "steady", leaking: bool = False) -> Sweep:
    """A sweep up to twice what the gateway admits.

    Args:
        limited: whether the tool was too slow in the last row.
        mode: of the run; `soak` has samples of an hour.
        leaking: whether the memory of the soak grows.
    """
    refused = {300: 142, 400: 322}
    rows = [load_row(n, refusals=refused.get(n, 0), limited=limited and n == SESSIONS[-1]) for n in SESSIONS]
    soak = mode == "soak"
    if soak:
        rows = [load_row(100)]
    samples = tuple(_sample(i, leaking=leaking) for i in range(120)) if soak else ()
    info = SweepInfo(
        target="wss://gateway.example.org:8443",
        wire="websocket",
        engine="riva",
        mode=mode,
        set_name="golden",
        clips=48,
        chunk_ms=100,
        duration_ms=60_000,
        normalizer="riva-gateway-1",
        started_at="2026-03-02T11:40:02+00:00",
        machine="2 cores, Python 3.11.7",
        version="0.1.0",
    )
    failures = ("464 × refused: The gateway is at its limit of 230 streams. Try again in 2 s.",)
    notes = ("Gateway and load tool share one machine.",)
    return Sweep(
        info,
        Slo(),
        tuple(rows),
        recommend(rows, 2),
        samples,
        leaks(samples, trend=soak),
        () if soak else failures,
        notes,
    )


def _sample(i: int, *, leaking: bool) -> Sample:
    chance = random.Random(i)
    loaded = 3 < i < 116
    memory = 62e6 + (23e6 if loaded else 3e6) + chance.uniform(-4e5, 4e5) + (i * 2.1e5 if leaking else 0)
    return Sample(
        at_ms=i * 30_000.0,
        source="gateway",
        sessions=100 if loaded else 0,
        cpu_share=None if i == 0 else (0.41 if loaded else 0.01) + chance.uniform(0, 0.03),
        memory_bytes=round(memory),
        open_files=224 if loaded else 24,
        threads=12,
        tasks=(310 if loaded else 9) + chance.randrange(3),
        streams=100 if loaded else 0,
    )
