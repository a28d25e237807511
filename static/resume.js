// How a conversation outlives its connections, and the server's sessions if it must. Pure: no socket,
// no clock, no chance of its own.
//
// Two addresses run through it: bytes of the conversation, counted from the first ever recorded, and
// bytes of the server's session, which begin anew whenever a session has to. Times and utterances are
// moved the same way, so that whoever listens sees one conversation.

import { KeptAudio } from "./kept.js";

export const BYTES_PER_MS = 32; // 16 kHz, mono, 16 bit

const BACKOFF_FIRST_MS = 250;
const BACKOFF_LAST_MS = 5000;
const TIMES = ["start_ms", "end_ms", "audio_ms", "received_ms", "processed_ms"];

/** How long to wait before trying again: anything up to a limit that doubles, so that clients do not come back all at once. */
export function backoffMs(attempt, random = Math.random()) {
  return random * Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** Math.min(attempt, 10));
}

// The close codes that go with errors, for a connection that broke after the one and before the other.
const CODES = { not_found: 4404, idle_timeout: 4408, superseded: 4409, expired: 4410, rate_limited: 4429, slow_reader: 4499, overloaded: 4503, internal: 1011 };
const AGAIN = new Set([1001, 1005, 1006, 1011, 1012, 4408, 4499]);
const WAIT = new Set([1013, 1014, 4429, 4503]);
const UNKNOWN_THERE = new Set([4400, 4404, 4410]); // 4400: a server too old to resume

/**
 * What a closed connection asks for: "again" (connect, go on), "restart" (the server's session is no
 * more: begin another), "wait" (no place now), "taken" (goes on elsewhere) or "stop".
 * @param {object} end
 * @param {number} end.code
 * @param {string} [end.error] code of the fatal error that came before
 * @param {boolean} end.lasting the conversation may outlive a connection
 * @param {boolean} end.asked a resume was asked for, and not answered
 */
export function afterClose({ code, error, lasting, asked }) {
  const cause = (code === 1005 || code === 1006) && error ? (CODES[error] ?? 0) : code;
  if (WAIT.has(cause)) return "wait";
  if (!lasting) return "stop";
  if (asked && UNKNOWN_THERE.has(cause)) return "restart";
  if (cause === 4409) return "taken";
  return AGAIN.has(cause) ? "again" : "stop";
}

export class Thread {
  /** @param {number} keptMs how much audio is held while it may have to be sent again */
  constructor(keptMs) {
    this.keptBytes = keptMs * BYTES_PER_MS;
    this.kept = new KeptAudio();
    this.connected = false; // the server takes audio
    this.sentBytes = 0; // what is written to the connection
    this.receivedBytes = 0; // what the server has told to have
    this.coveredBytes = 0; // what need never be sent again: its text is here, or it is known to get none
    this.baseBytes = 0; // where the server's session begins
    this.baseUtterance = 0;
    this.utterances = 0;
    this.started = 0; // sessions of the server so far
    this.lasting = false;
    this.#forget();
  }

  /** What is recorded and not written to a connection yet. */
  get unsentBytes() {
    return this.kept.endBytes - this.sentBytes;
  }

  /** How much of what was recorded the server does not have, as far as is known, and this page still does. */
  get waitingMs() {
    return (this.kept.endBytes - Math.max(this.receivedBytes, this.kept.startBytes)) / BYTES_PER_MS;
  }

  /** Everything recorded is text by now. */
  get complete() {
    return this.coveredBytes >= this.kept.endBytes;
  }

  /** Takes recorded audio. Of what is not sent, nothing is given up while a connection takes it. */
  record(pcm) {
    this.kept.push(pcm);
    this.kept.trim(this.keptBytes, this.connected ? this.sentBytes : Infinity);
  }

  /** The next audio to send, or null. Where it is no longer held, silence keeps the server's clock right. */
  next(largest) {
    const bytes =
      this.sentBytes < this.kept.startBytes
        ? new Uint8Array(Math.min(largest, this.kept.startBytes - this.sentBytes))
        : this.kept.slice(this.sentBytes, largest);
    if (bytes) this.sentBytes += bytes.byteLength;
    return bytes;
  }

  /** Whether the next connection goes on with a session that the server holds. */
  get resuming() {
    return this.token !== null;
  }

  /** The query of the next connection's address. */
  get query() {
    return this.resuming ? `?session=${encodeURIComponent(this.id)}` : "";
  }

  /** The first message of a connection; `start` is that of a new session. */
  opening(start) {
    if (!this.resuming) return start;
    const { id, token, lastSeq } = this;
    return { type: "resume", session_id: id, resume_token: token, last_seq: lastSeq, sent_bytes: this.sentBytes - this.baseBytes };
  }

  /** The connection is gone. */
  lost() {
    this.connected = false;
  }

  /** The server's session is no more: the next connection starts another. */
  restart() {
    this.#forget();
  }

  /** A new session is `ready`: it is given what has no text yet. Returns a gap for what is no longer held, or null. */
  ready(message) {
    const again = this.started > 0;
    this.#forget();
    this.id = message.session_id ?? null;
    this.token = message.resume_token ?? null;
    this.lasting = this.token !== null;
    this.lastSeq = message.seq ?? 0;
    this.started += 1;
    this.baseUtterance = again ? this.utterances : 0;
    this.baseBytes = Math.max(this.coveredBytes, this.kept.startBytes);
    this.sentBytes = this.receivedBytes = this.baseBytes;
    this.connected = true;
    const lost = gap(this.coveredBytes, this.baseBytes);
    this.coveredBytes = this.baseBytes;
    return lost;
  }

  /** The session goes on. Returns the gaps that it will have. */
  resumed(message) {
    this.token = message.resume_token ?? this.token;
    const from = this.baseBytes + message.from_bytes;
    const lost = (message.lost_ms ?? 0) * BYTES_PER_MS;
    this.sentBytes = this.receivedBytes = from;
    this.connected = true;
    return [gap(from - lost, from), gap(from, Math.min(this.kept.startBytes, this.kept.endBytes))].filter(Boolean);
  }

  /** Whether the server resumes at a byte that was never recorded: it does not mean this conversation. */
  strange(message) {
    const from = this.baseBytes + message.from_bytes;
    return !(message.from_bytes >= 0) || from > this.kept.endBytes;
  }

  /** A message of the server's session, moved onto the conversation; null for one that was told before. */
  take(message) {
    if (message.seq !== undefined) {
      if (message.seq <= this.lastSeq && message.type !== "ready") return null;
      this.lastSeq = message.seq;
    }
    const moved = this.#moved(message);
    if (moved.type === "partial") this.openMs = moved.start_ms;
    else if (moved.type === "final") {
      this.openMs = null;
      this.#covered(moved.end_ms * BYTES_PER_MS);
    } else if (moved.type === "gap") this.#missed(moved);
    else if (moved.type === "summary" && !message.discarded_ms) this.#covered((moved.audio_ms ?? 0) * BYTES_PER_MS);
    else if (moved.type === "ack") {
      this.receivedBytes = Math.max(this.receivedBytes, this.baseBytes + (message.received_bytes ?? 0));
      if (message.safe_bytes) this.#covered(this.baseBytes + message.safe_bytes);
    }
    return moved;
  }

  /** The number to acknowledge, or null while there is nothing new to. */
  acknowledge() {
    if (this.token === null || this.lastSeq <= this.ackedSeq) return null;
    this.ackedSeq = this.lastSeq;
    return { type: "ack", seq: this.lastSeq };
  }

  // No final will ever cover a gap: it counts like one, once an utterance that is open before it is final.
  #missed({ start_ms, end_ms }) {
    const open = this.openMs !== null && this.openMs < start_ms;
    if (open && start_ms * BYTES_PER_MS > this.coveredBytes) {
      this.gapAhead = [start_ms, end_ms];
      return;
    }
    if (this.openMs !== null && this.openMs < end_ms) this.openMs = null;
    this.#covered(end_ms * BYTES_PER_MS);
  }

  #covered(bytes) {
    this.coveredBytes = Math.max(this.coveredBytes, Math.min(bytes, this.kept.endBytes));
    if (this.gapAhead && this.gapAhead[0] * BYTES_PER_MS <= this.coveredBytes) {
      const end = this.gapAhead[1] * BYTES_PER_MS;
      this.gapAhead = null;
      this.#covered(end);
    }
    this.kept.release(Math.min(this.coveredBytes, this.sentBytes));
  }

  #moved(message) {
    const moved = { ...message };
    const baseMs = this.baseBytes / BYTES_PER_MS;
    for (const name of TIMES) if (typeof message[name] === "number") moved[name] += baseMs;
    if (baseMs && message.words) {
      moved.words = message.words.map((word) => ({ ...word, start_ms: word.start_ms + baseMs, end_ms: word.end_ms + baseMs }));
    }
    const number = /^u(\d+)$/.exec(message.utterance_id ?? "")?.[1];
    if (number !== undefined) {
      moved.utterance_id = `u${Number(number) + this.baseUtterance}`;
      this.utterances = Math.max(this.utterances, Number(number) + this.baseUtterance + 1);
    }
    return moved;
  }

  #forget() {
    this.id = this.token = null;
    this.openMs = null; // where the utterance that is open began
    this.gapAhead = null; // a gap behind it: from, to
    this.lastSeq = this.ackedSeq = 0;
  }
}

function gap(fromBytes, toBytes) {
  if (toBytes <= fromBytes) return null;
  return { type: "gap", start_ms: fromBytes / BYTES_PER_MS, end_ms: toBytes / BYTES_PER_MS, cause: "buffer_overrun", channel: 0 };
}
