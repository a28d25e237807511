"""Every metric of `/metrics`: its name, its meaning, its labels. A sink for what is measured of streams.

The labels are bounded: faces, codes, outcomes and parts come from lists in the code, endpoints from the settings.
Nothing of what a client sends becomes a label. What only grows is not counted here, piece by piece, but brought up to
date by `server.telemetry.readings` when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

from asr.errors import Code
from server.telemetry.record import SERVERS_FAULT, Outcome, StreamRecord, StreamStart
from server.telemetry.watch import Grown

PREFIX = "riva_gateway_"
LIVE_FACES = ("native", "end", "realtime nim", "realtime openai", "realtime openai-beta", "sagemaker", "riva_grpc")
CALL_FACES = ("openai", "rest", "job")
FACES = (*LIVE_FACES, *CALL_FACES)
DOORS = ("native", "end", "realtime", "sagemaker", "riva_grpc", "openai", "rest")
"""Where streams are refused. At the realtime one nobody has said yet which dialect it speaks."""
PARTS = ("ingress", "queue", "upstream", "egress")
LATENCY_BOUNDS_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8, 1.2, 2.0, 5.0, 10.0)
"""With the objectives among them: 0.3 s for partials, 0.8 s for finals."""
LAG_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
RTFX_BOUNDS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
_CODES = frozenset(code.value for code in Code)
_OTHER = "other"


class Metrics:
    """The metrics of a gateway, in a registry of their own; a `server.telemetry.hub.Sink`.

    Attributes:
        registry: where they are.
    """

    def __init__(self, *, jobs_are_shared: bool = False) -> None:
        """Make them.

        Args:
            jobs_are_shared: the gateways of one machine have one database of jobs: each counts all of them.
        """
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._told: dict[str, Grown] = {}  # of the open streams
        self._counters: dict[str, tuple[Counter, ...]] = {}
        self._observers: dict[tuple[str, str], Callable[[float], None]] = {}
        self._add_streams()
        self._add_latencies()
        self._add_upstream()
        self._add_gateway("livemax" if jobs_are_shared else "livesum")
        self._add_written()
        self._greet()

    # See `server.telemetry.hub.Sink` ----------------------------------------------------------------

    def opened(self, start: StreamStart) -> None:
        """A stream was admitted."""
        self.streams_admitted.labels(start.face).inc()

    def happened(self, start: StreamStart, what: str, at_s: float, **about: str | int | float) -> None:
        """What counts here are its client's returns."""
        if what == "resumed":
            self.session_resumes.inc()

    def measured(self, start: StreamStart, what: str, seconds: float) -> None:
        """A latency."""
        observe = self._observers.get((what, start.face))
        if observe is None:
            by_face = self._by_face.get(what)
            one = self.final_latency_part.labels(what) if by_face is None else by_face.labels(start.face)
            observe = self._observers[what, start.face] = one.observe
        observe(seconds)

    def grown(self, start: StreamStart, grown: Grown) -> None:
        """What an open stream has come to by now."""
        told = self._told.get(start.stream_id, Grown())
        self._told[start.stream_id] = grown
        audio_seconds, partials, finals, words = self._growing(start.face)
        audio_seconds.inc((grown.audio_ms - told.audio_ms) / 1000)
        partials.inc(grown.partials - told.partials)
        finals.inc(grown.finals - told.finals)
        words.inc(grown.words - told.words)

    def _growing(self, face: str) -> tuple[Counter, ...]:
        """The counters of one face, found once."""
        found = self._counters.get(face)
        if found is None:
            counters = (self.audio_seconds, self.partials, self.finals, self.words)
            found = self._counters[face] = tuple(counter.labels(face) for counter in counters)
        return found

    def closed(self, record: StreamRecord) -> None:
        """A stream is over."""
        face = record.start.face
        self.grown(record.start, Grown(record.audio_ms, record.partials, record.finals, record.words))
        del self._told[record.start.stream_id]
        self.streams_closed.labels(face, record.outcome.value).inc()
        if record.code:
            self.stream_errors.labels(face, record.code if record.code in _CODES else _OTHER).inc()
        if record.start.kind == "recording" and record.outcome is Outcome.OK and record.rtfx:
            self.recording_rtfx.labels(face).observe(record.rtfx)

    def refused(self, face: str, code: Code) -> None:
        """Somebody was not let in."""
        self.streams_refused.labels(face, code.value).inc()

    # The metrics ------------------------------------------------------------------------------------

    def _add_streams(self) -> None:
        self.info = self._gauge("info", "The gateway that tells this; always 1.", "livemax", "version", "engine")
        self.streams_active = self._gauge("streams_active", "Streams that are open.", "livesum", "face")
        self.streams_limit = self._gauge("streams_limit", "Streams that may be open at once (MAX_STREAMS).", "livesum")
        self.draining = self._gauge("draining", "1 for a gateway that goes down: it admits nobody.", "livesum")
        self.streams_admitted = self._counter("streams_admitted", "Streams that were let in.", "face")
        self.streams_refused = self._counter("streams_refused", "Streams that were not let in.", "face", "code")
        self.streams_closed = self._counter("streams_closed", "Streams that are over, by how.", "face", "outcome")
        self.stream_errors = self._counter("stream_errors", "Streams that an error ended, by it.", "face", "code")
        self.audio_seconds = self._counter("audio_seconds", "Audio that recognizers were given.", "face")
        self.finals = self._counter("finals", "Finals that recognizers gave.", "face")
        self.partials = self._counter("partials", "Partials that recognizers gave.", "face")
        self.words = self._counter("words", "Words in finals.", "face")
        self.recording_rtfx = self._histogram(
            "recording_rtfx", "Seconds of a recording for each second that it took.", RTFX_BOUNDS, "face"
        )
        self.session_resumes = self._counter("session_resumes", "Sessions whose client came back.")
        self.sessions_waiting = self._gauge("sessions_waiting", "Sessions that wait for their client.", "livesum")

    def _add_latencies(self) -> None:
        self.first_partial_latency = self._latency(
            "first_partial", "From a stream's first word, received, to the same word, sent."
        )
        self.partial_latency = self._latency("partial", "From the end of a partial's audio, received, to it, sent.")
        self.final_latency = self._latency("final", "From the end of a final's audio, received, to it, sent.")
        self.queue_wait = self._histogram(
            "queue_wait_seconds", "From a stream's first audio to a recognizer that takes it.", LATENCY_BOUNDS_S, "face"
        )
        self.final_latency_part = self._histogram(
            "final_latency_part_seconds", "What finals waited for; the parts add up.", LATENCY_BOUNDS_S, "part"
        )
        self._by_face = {
            "first_partial": self.first_partial_latency,
            "partial": self.partial_latency,
            "final": self.final_latency,
            "queue_wait": self.queue_wait,
        }

    def _add_upstream(self) -> None:
        where = "endpoint"
        self.upstream_attempts = self._counter("upstream_attempts", "Streams opened at a recognizer.", where)
        self.upstream_errors = self._counter("upstream_errors", "Those of them that failed.", where, "code")
        self.upstream_up = self._gauge("upstream_up", "Whether a recognizer is up: 1, or 0.", "livemin", where)
        self.upstream_breaker_open = self._gauge(
            "upstream_breaker_open", "Its circuit breaker: 1 open, 0.5 half open, 0 closed.", "livemax", where
        )
        self.upstream_streams = self._gauge("upstream_streams", "Streams open at a recognizer.", "livesum", where)
        self.upstream_streams_limit = self._gauge(
            "upstream_streams_limit", "Streams that it may have at once; +Inf where none is known.", "livesum", where
        )
        self.upstream_failovers = self._counter("upstream_failovers", "Streams carried on after a loss.")
        self.upstream_retries = self._counter("upstream_retries", "Attempts after one that had failed.")
        self.upstream_rotations = self._counter("upstream_rotations", "Streams renewed because of their age.")
        self.upstream_replayed_seconds = self._counter("upstream_replayed_seconds", "Audio that was sent again.")
        self.upstream_gaps_seconds = self._counter("upstream_gaps_seconds", "Audio that was lost.")
        self.upstream_given_up = self._counter("upstream_given_up", "Streams that found no recognizer in time.")

    def _add_gateway(self, jobs_mode: str) -> None:
        self.jobs = self._gauge("jobs", "Jobs by their state.", jobs_mode, "state")
        self.spool_bytes = self._gauge("spool_bytes", "Uploads that wait, on disk.", "livemax")
        self.event_loop_lag = self._histogram(
            "event_loop_lag_seconds", "How late the event loop comes to what is due.", LAG_BOUNDS_S
        )
        self.tasks = self._gauge("tasks", "Tasks of the event loop.", "livesum")
        self.certificate_expiry = self._gauge(
            "certificate_expiry_timestamp_seconds", "When a certificate ends, in Unix time.", "livemin", "use"
        )
        self.access_refused = self._counter("access_refused", "Requests without a right to what they asked.", "reason")
        self.quota_refused = self._counter("quota_refused", "Streams over a quota.", "quota")
        self.rollout_position = self._gauge("rollout_position", "1 for where the switch is.", "livemax", "position")
        self.canary_percent = self._gauge("canary_percent", "Streams that the canary gets, of 100.", "livemax")
        self.canary_streams = self._counter("canary_streams", "Streams that were compared.", "arm", "outcome")
        self.canary_aborts = self._counter("canary_aborts", "Canaries that were ended because they did worse.")

    def _add_written(self) -> None:
        self.records_dropped = self._counter("records_dropped", "Records of streams that were not written.")
        self.log_lines_suppressed = self._counter("log_lines_suppressed", "Log lines left out, as many were alike.")
        self.spans_dropped = self._counter("spans_dropped", "Spans that were not sent.")

    def _greet(self) -> None:
        """What is counted seldom is there from the start, as 0: the first failure is an increase, too."""
        for face in FACES:
            self.streams_admitted.labels(face)
            for outcome in Outcome:
                self.streams_closed.labels(face, outcome.value)
        for face in DOORS:
            for code in SERVERS_FAULT:
                self.streams_refused.labels(face, code.value)

    # Inside -----------------------------------------------------------------------------------------

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"{PREFIX}{name}_total", told, labels, registry=self.registry)

    def _gauge(self, name: str, told: str, mode: str, *labels: str) -> Gauge:
        """`mode`: what the gateways of one machine come to together."""
        return Gauge(PREFIX + name, told, labels, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]

    def _histogram(self, name: str, told: str, bounds: Iterable[float], *labels: str) -> Histogram:
        return Histogram(PREFIX + name, told, labels, registry=self.registry, buckets=tuple(bounds))

    def _latency(self, name: str, told: str) -> Histogram:
        return self._histogram(f"{name}_latency_seconds", told, LATENCY_BOUNDS_S, "face")
