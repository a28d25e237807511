"""The upstream rows of the fault catalogue, as data: what fails, how it is made to fail, and what is allowed.

Allowed is nearly nothing: every stream ends whole, no word lost, repeated or out of place, and whoever waits is told
something within the row's bound; or, where nobody can help, everyone is refused within it and told why.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from chaos import checks as c
from chaos import strikes as s
from chaos.behaviour import UNAVAILABLE_MODEL, Behaviour
from chaos.checks import Check
from chaos.proxy import Toxic
from chaos.stage import Site
from chaos.strikes import Strike

EXPLICIT_MS = 2_000
SILENT_MS = 15_000
WAIT_MS = 16_000
"""The failover timeout and a second."""
STREAMS = 20
NEVER = 3_600.0


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One fault.

    Attributes:
        number: of the catalogue; letters tell variants apart.
        fault: what fails.
        injected: how.
        sites: the recognizers, in the gateway's order; the first is the one that fails.
        expect: `whole`: every stream ends with all its words; `refused`: none begins; `either`: one or the other.
        answer_ms: the longest that anyone is left alone: without partial, final or error, and without a status that
            says why.
        wait_ms: the longest that anyone is without partial, final or error although told why.
        codes: of the errors that are allowed where streams are refused.
        strike: begins the fault at `strike_at_s`; None where the sites are faulty from the start.
        checks: what is demanded beside that.
        frames, pauses, mutes, pace, chunk: what each client sends (`chaos.clients.Script`).
        streams: clients.
        stagger_s: over which they begin.
        spare_s: what a client waits for beyond its audio before it counts as hung.
        settings: of the gateway; `why` tells why they differ from the defaults.
    """

    number: str
    fault: str
    injected: str
    sites: tuple[Site, ...]
    expect: Literal["whole", "refused", "either"] = "whole"
    answer_ms: int = EXPLICIT_MS
    codes: frozenset[str] = frozenset()
    strike: Strike | None = None
    strike_at_s: float = 2.0
    checks: tuple[Check, ...] = ()
    frames: int = 45
    pauses: tuple[tuple[int, int], ...] = ()
    mutes: tuple[tuple[int, float], ...] = ()
    pace: float = 1.0
    chunk: tuple[int, int] = (400, 6_400)
    streams: int = STREAMS
    stagger_s: float = 1.0
    spare_s: float = 30.0
    settings: dict[str, str] = field(default_factory=dict)
    why: str = ""
    wait_ms: int = WAIT_MS

    @property
    def for_relay(self) -> bool:
        """Whether it says anything about the plain relay, which knows no TLS."""
        return not any(site.tls for site in self.sites)


_DOWN = frozenset({"unavailable", "overloaded"})
_DOWN_OR_LATE = _DOWN | {"timeout"}
_GOOD = Site()
_PROXIED = Site(toxic=Toxic())


def _peer(mode: Any) -> tuple[Site, ...]:
    return (Site(mode=mode), _GOOD)


def _all(behaviour: Behaviour) -> tuple[Site, ...]:
    return (Site(behaviour),)


def _refusing(status: str, text: str) -> tuple[Site, ...]:
    return _all(Behaviour(abort_after=0, abort_status=status, abort_text=text))


_SHORT: dict[str, Any] = {"frames": 20, "pace": 4.0}
"""Rows in which the clock plays no part."""

UPSTREAM: tuple[Row, ...] = (
    Row("1", "Riva is down before the start", "closed port", (Site(nobody="127.0.0.1:CLOSED"),), "refused",
        codes=_DOWN, checks=(c.not_ready, c.retry_after, c.discreet), **_SHORT),
    Row("2", "Its name cannot be resolved", "a name that nobody has", (Site(nobody="riva.invalid:50051"),), "refused",
        codes=_DOWN_OR_LATE, checks=(c.not_ready, c.discreet), **_SHORT),
    Row("3a", "TCP is accepted, then silence", "raw peer", (Site(mode="accept_silent"),), "refused", 3_000,
        _DOWN_OR_LATE, checks=(c.struck, c.discreet), **_SHORT),
    Row("3b", "The same, beside a good one", "raw peer", _peer("accept_silent"), answer_ms=3_000, checks=(c.struck,)),
    Row("4", "Five seconds until the first result", "stand-in: delay", _all(Behaviour(start_delay_s=5)),
        answer_ms=3_000, checks=(c.told("degraded", STREAMS),), frames=60),
    Row("5", "Slow, with a rising backlog", "proxy: half of the bandwidth that 20 streams need",
        (Site(toxic=Toxic(up_bytes_per_s=320_000)),), answer_ms=SILENT_MS,
        checks=(c.backlog_is_told, c.memory_below(64)), frames=60),
    Row("6a", "Killed in mid-stream, back a second later", "SIGKILL, restart", (_GOOD,), strike=s.kill_and_restart,
        answer_ms=EXPLICIT_MS, checks=(c.told("recovered"), c.little_amplification)),
    Row("6b", "Killed in mid-stream, another one is there", "SIGKILL", (_GOOD, _GOOD), strike=s.kill,
        checks=(c.told("recovered"),)),
    Row("7a", "Dies between the last audio and the final", "stand-in: exits on half-close",
        (Site(Behaviour(die_on_stop=True, faults=1)), _GOOD), checks=(c.told("recovered"),)),
    Row("7b", "Aborts in place of the last final", "stand-in: UNAVAILABLE on half-close",
        _all(Behaviour(abort_on_stop="UNAVAILABLE", faults=1)), checks=(c.told("recovered", STREAMS),)),
    Row("8", "TCP reset in mid-stream", "proxy: RST", (_PROXIED,), strike=s.reset,
        checks=(c.told("recovered"), c.little_amplification)),
    Row("9a", "TCP end in mid-stream", "proxy: FIN", (_PROXIED,), strike=s.finish, checks=(c.told("recovered"),)),
    Row("9b", "TCP end without trailers", "raw peer", _peer("midfin"), checks=(c.struck,)),
    Row("9c", "Stream ends without trailers", "raw peer", _peer("no_trailers"), checks=(c.struck,),
        answer_ms=SILENT_MS),
    Row("9d", "Stream ends with OK in mid-audio", "stand-in", _all(Behaviour(end_after=12, faults=1)),
        checks=(c.told("recovered", STREAMS),)),
    Row("10a", "GOAWAY, greatest age of a connection", "stand-in: max_connection_age 2 s",
        (Site(arguments=("--max-age-ms", "2000")),), frames=60),
    Row("10b", "GOAWAY, streams not processed", "raw peer", _peer("goaway_unprocessed"), checks=(c.struck,)),
    Row("10c", "GOAWAY and end in mid-stream", "raw peer", _peer("goaway_mid"), checks=(c.struck,)),
    Row("11", "GOAWAY too_many_pings", "raw peer", _peer("too_many_pings"), checks=(c.struck,)),
    Row("12", "REFUSED_STREAM", "raw peer", _peer("refused_stream"), checks=(c.struck,)),
    Row("13a", "RST_STREAM INTERNAL_ERROR in mid-stream", "raw peer", _peer("rst_mid"), checks=(c.struck,)),
    Row("13b", "RST_STREAM INTERNAL_ERROR at once", "raw peer", _peer("rst_start"), checks=(c.struck,)),
    Row("13c", "INTERNAL in mid-stream", "stand-in",
        _all(Behaviour(abort_after=13, abort_status="INTERNAL", faults=1)),
        checks=(c.told("recovered", STREAMS),)),
    Row("14", "Two seconds away, two there, three times", "proxy up and down", (_PROXIED,), strike=s.flap, frames=100,
        checks=(c.little_amplification,)),
    Row("15", "Half-open: packets vanish both ways", "proxy: black hole", (_PROXIED, _GOOD),
        strike=s.blackhole("up", "down"), answer_ms=SILENT_MS, frames=120, checks=(c.told("degraded"),)),
    Row("16a", "Packets vanish upwards, and the audio ends meanwhile", "proxy: black hole", (_PROXIED, _GOOD),
        strike=s.blackhole("up"), answer_ms=SILENT_MS),
    Row("16b", "Packets vanish downwards", "proxy: black hole", (_PROXIED, _GOOD), strike=s.blackhole("down"),
        answer_ms=SILENT_MS, frames=120),
    Row("17a", "Process frozen, kernel acknowledges", "SIGSTOP", (_GOOD, _GOOD), strike=s.freeze,
        answer_ms=SILENT_MS, frames=120),
    Row("17b", "Frozen from its first audio on", "raw peer", _peer("freeze"), answer_ms=SILENT_MS, frames=120,
        checks=(c.struck,)),
    Row("18a", "Model stuck, stream open", "stand-in: silent from frame 15 on",
        _all(Behaviour(stuck_after=15, faults=1)), answer_ms=SILENT_MS, frames=120,
        checks=(c.told("degraded", STREAMS), c.told("recovered", STREAMS))),
    Row("18b", "Answers pings and nothing else", "raw peer", _peer("only_pings"), answer_ms=SILENT_MS, frames=130,
        checks=(c.struck,)),
    Row("18c", "Model stuck and reads no more", "stand-in", _all(Behaviour(deaf_after=15, faults=1)),
        answer_ms=SILENT_MS, frames=120, checks=(c.memory_below(64),)),
    Row("19", "Flow-control window of 0", "raw peer", _peer("window_zero"), answer_ms=SILENT_MS, frames=60,
        checks=(c.struck, c.memory_below(64))),
    Row("20a", "Stream limit: calls wait in silence", "stand-in: 5 concurrent streams, another one is there",
        (Site(arguments=("--max-concurrent", "5")), _GOOD), answer_ms=SILENT_MS, frames=60),
    Row("20b", "Stream limit, nobody else", "stand-in: 10 concurrent streams",
        (Site(arguments=("--max-concurrent", "10")),), "either", 3_000, _DOWN_OR_LATE, frames=60),
    Row("21a", "RESOURCE_EXHAUSTED: full, another one is there", "stand-in: 5 streams",
        (Site(Behaviour(max_streams=5)), _GOOD)),
    Row("21b", "RESOURCE_EXHAUSTED: full, nobody else", "stand-in: 5 streams", _all(Behaviour(max_streams=5)),
        "either", codes=frozenset({"overloaded"}), checks=(c.retry_after, c.served(5))),
    Row("22", "RESOURCE_EXHAUSTED: message too large", "stand-in: 8 KiB messages",
        (Site(arguments=("--max-message", "8192")),), "refused", codes=frozenset({"too_large"}),
        checks=(c.one_attempt_each,), frames=50, pace=20.0, chunk=(131_072, 131_072)),
    Row("23a", "Idle streams are released", "stand-in: after 3 s; client mute for 5 s",
        _all(Behaviour(idle_abort_s=3)), answer_ms=7_000, mutes=((20, 5.0),), checks=(c.undisturbed,),
        settings={"RIVA_IDLE_SILENCE_MS": "1000"}, why="3 s in place of Riva's 60 s; the mute client counts 5 s"),
    Row("23b", "The same, and no silence is sent", "stand-in: after 3 s; client mute for 5 s",
        _all(Behaviour(idle_abort_s=3)), answer_ms=7_000, mutes=((20, 5.0),),
        settings={"RIVA_IDLE_SILENCE_MS": "0"}, why="to reach the abort at all"),
    Row("24", "Unknown model", "stand-in: INVALID_ARGUMENT", _refusing("INVALID_ARGUMENT", UNAVAILABLE_MODEL),
        "refused", codes=frozenset({"not_found"}), checks=(c.one_attempt_each, c.says("numbered-asr"), c.discreet),
        **_SHORT),
    Row("25", "Models still loading", "stand-in: no model, UNAVAILABLE", _all(Behaviour(loading=True)), "refused",
        codes=_DOWN, checks=(c.not_ready, c.retry_after, c.works_afterwards), **_SHORT),
    Row("26", "Credentials refused", "stand-in: UNAUTHENTICATED",
        _refusing("UNAUTHENTICATED", "nvapi-0815 has expired at grpc.nvcf.nvidia.com:443"), "refused",
        codes=frozenset({"unavailable"}), checks=(c.one_attempt_each, c.discreet), **_SHORT),
    Row("27a", "HTML page with 502 from a balancer", "raw peer", (Site(mode="http502"),), "refused", codes=_DOWN,
        checks=(c.struck, c.discreet), **_SHORT),
    Row("27b", "The same, beside a good one", "raw peer", _peer("http502"), checks=(c.struck,)),
    Row("28a", "HTTP/1.1 on the port", "raw peer", (Site(mode="http1"),), "refused", codes=_DOWN,
        checks=(c.struck, c.discreet), **_SHORT),
    Row("28b", "Garbage on the port", "raw peer", (Site(mode="garbage"),), "refused", codes=_DOWN,
        checks=(c.struck, c.discreet), **_SHORT),
    Row("29", "Length prefix of 4 GiB", "raw peer", _peer("frame_4gib"), checks=(c.struck, c.memory_below(64))),
    Row("30a", "Undecodable message at once", "raw peer", _peer("bad_proto"), checks=(c.struck,)),
    Row("30b", "Undecodable message in mid-stream", "stand-in",
        _all(Behaviour(undecodable_after=15, faults=1)), checks=(c.told("recovered", STREAMS),)),
    Row("31", "Finals repeated, empty, out of order; times of nonsense", "stand-in", _all(Behaviour(shuffle_after=0)),
        frames=60),
    Row("32a", "Never a final before the audio ends", "stand-in; the client is silent for 3 s",
        _all(Behaviour(finals_every=0)), pauses=((20, 30),), answer_ms=4_500, checks=(c.marked_synthetic,),
        settings={"RIVA_QUIET_FINAL_MS": "1000"}, why="a pause of 3 s in place of 10, with no answer but acks"),
    Row("32b", "Never a final at all", "stand-in; the client is silent for 3 s",
        _all(Behaviour(finals_every=0, final_on_stop=False)), pauses=((20, 30),), answer_ms=4_500,
        checks=(c.marked_synthetic,), settings={"RIVA_QUIET_FINAL_MS": "1000"}, why="as 32a"),
    Row("33", "Bits flipped in transit", "proxy: corrupts TLS for 0.3 s", (Site(toxic=Toxic(), tls="good"),),
        strike=s.corrupt, checks=(c.nothing_damaged, c.told("recovered"))),
    Row("34a", "Certificate of an unknown authority", "stand-in with TLS", (Site(tls="unknown"),), "refused",
        codes=_DOWN, checks=(c.not_ready, c.discreet), **_SHORT),
    Row("34b", "Certificate for another name", "stand-in with TLS", (Site(tls="wrong name"),), "refused",
        codes=_DOWN, checks=(c.not_ready, c.discreet), **_SHORT),
    Row("34c", "Certificate expired", "stand-in with TLS", (Site(tls="expired"),), "refused", codes=_DOWN,
        checks=(c.not_ready, c.discreet), **_SHORT),
    Row("35", "Two recognizers, one always fails", "stand-in: UNAVAILABLE at once",
        (Site(Behaviour(abort_after=0)), _GOOD), streams=40, stagger_s=4.0, checks=(c.few_at_the_bad_one(12),)),
    Row("36", "Eight seconds of outage, 50 clients", "proxy down, then up", (_PROXIED,), strike=s.outage(8), frames=130,
        streams=50, answer_ms=SILENT_MS, checks=(c.recovered_within(6_000), c.little_amplification)),
)  # fmt: skip
