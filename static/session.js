// One conversation in asr.v1 with the server that this page came from, over as many connections as
// it takes.
//
// Knows the WebSocket, the order of messages and every bound in time; knows nothing of the page or of
// where the audio comes from. What is kept, resumed and restarted is worked out in resume.js. It ends
// exactly once: by the server's `summary` (cleanly), or with a problem.

import { offers } from "./key.js";
import { Problem, ServerProblem } from "./problems.js";
import { BYTES_PER_MS, Thread, afterClose, backoffMs } from "./resume.js";

export { BYTES_PER_MS };

const READY_TIMEOUT_MS = 15000;
const DIAL_TIMEOUT_MS = 8000; // a connection that went nowhere is given up sooner than browsers do
const STOP_TIMEOUT_MS = 10000;
const CLOSE_TIMEOUT_MS = 2000;
// The server acknowledges at least every second while audio flows and every five otherwise.
const SILENCE_TIMEOUT_MS = 20000;
const DEAD_TIMEOUT_MS = 8000; // the same where a new connection costs nothing
const PROOF_TIMEOUT_MS = 3000; // and where there is reason to doubt
// How long without a connection: while somebody speaks, and when only the last words are missing.
const GIVE_UP_MS = 120000;
const GIVE_UP_STOPPED_MS = 60000;
const STEADY_MS = 5000; // a connection that lived so long was a good one
const MAX_WAITS = 5;
const MAX_WAIT_MS = 30000;
const USUAL_WAIT_MS = 2000;
const MAX_FAULTS = 3; // of the server, since the last final
const MAX_WAITING_MS = 90000;
/** How much audio is kept for a server that is away, by pace. */
export const KEPT_MS = { live: 60000, file: 300000 };
const MAX_BUFFERED_BYTES = 256 * 1024;
const PUMP_MS = 50; // bufferedAmount has no event
const ACK_MS = 2000;

export function serverUrl(location = window.location) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`;
}

export class Session {
  /**
   * @param {object} on
   * @param {(message: object) => void} on.message the server's messages, in order, each once and on one clock; and
   *   two of this page's own: a `gap` for audio that could not be kept, and `restarted` {start_ms} when another
   *   session of the server goes on from there
   * @param {(problem: Error | null) => void} on.end once; null after a clean end
   * @param {(link: {state: "away" | "waiting" | "back", retryMs?: number, lostMs?: number}) => void} [on.link] the
   *   connection was lost, waits for a place at the server, or is there again
   * @param {object} [options]
   * @param {"live" | "file"} [options.pace]
   * @param {string} [options.url]
   */
  constructor(on, { pace = "live", url = serverUrl() } = {}) {
    this.on = on;
    this.pace = pace;
    this.url = url;
    this.state = "new"; // connecting, open, away, stopping, ended
    this.thread = new Thread(KEPT_MS[pace]);
    this.stopWanted = false;
    this.processedMs = 0;
    this.lostMs = 0; // in gaps since the connection was lost
    this.maxFrameBytes = BYTES_PER_MS * 1000;
    this.lastError = null;
    this.attempt = this.waits = this.faults = 0;
    this.ackedAt = this.openedAt = 0;
    this.wakeups = new Set();
  }

  /** Connects. Audio may be given to `send` at once. */
  open() {
    this.state = "connecting";
    this.#dial();
  }

  /** Audio captured or read so far, in ms. */
  get sentMs() {
    return this.thread.kept.endBytes / BYTES_PER_MS;
  }

  /** How much of it the server has, as far as it told. */
  get receivedMs() {
    return this.thread.receivedBytes / BYTES_PER_MS;
  }

  /** Audio that has not left this machine yet, in ms. */
  get waitingMs() {
    const buffered = this.state === "open" || this.state === "stopping" ? this.socket.bufferedAmount : 0;
    return (this.thread.unsentBytes + buffered) / BYTES_PER_MS;
  }

  /** Audio that is kept for the server until it can be reached, in ms. */
  get keptMs() {
    return this.thread.waitingMs;
  }

  /** Whether the conversation outlives its connection. */
  get lasting() {
    return this.thread.lasting;
  }

  /** Takes PCM16 at 16 kHz. Too much of it waiting at an open connection ends the session with a problem. */
  send(pcm) {
    if (this.stopWanted || this.state === "stopping" || this.state === "ended") return;
    this.thread.record(pcm);
    this.#pump();
    if (this.state === "open" && this.waitingMs > MAX_WAITING_MS) {
      this.#end(new Problem("slow", { seconds: Math.round(this.waitingMs / 1000) }));
    }
  }

  /** The audio is complete: the last finals and the summary follow; without progress for 10 s it ends with a problem. */
  stop() {
    if (this.stopWanted) return;
    this.stopWanted = true;
    if (this.state !== "open") return;
    this.#boundEnd();
    this.#pump();
  }

  /** Throws away what is not recognized yet. */
  cancel() {
    if (this.state === "open" || this.state === "stopping") {
      this.state = "stopping";
      this.cancelled = true;
      this.#write({ type: "cancel" });
      this.#boundEnd();
    } else this.#end(null);
  }

  /** Drops the connection at once and says nothing: the page is going away. */
  abandon() {
    this.#end(null);
  }

  /** The network may have changed: connects now if it is away, and has the connection proved if there is one. */
  hurry() {
    if (this.state === "away" && (this.retry || this.socket.readyState === WebSocket.CONNECTING)) {
      this.attempt = 0;
      this.#detach();
      this.#dial();
    } else if (this.lasting && (this.state === "open" || this.state === "stopping")) {
      this.#write({ type: "keepalive" });
      this.#boundLife(PROOF_TIMEOUT_MS);
    }
  }

  /** Resolves at the next message, at the end, or after `ms`. */
  nextNews(ms) {
    return new Promise((resolve) => {
      this.wakeups.add(resolve);
      setTimeout(() => {
        this.wakeups.delete(resolve);
        resolve();
      }, ms);
    });
  }

  // Connections

  #dial() {
    clearTimeout(this.retry);
    this.retry = null;
    this.lastError = null;
    if (this.stopWanted && this.thread.started > 0 && !this.thread.resuming && this.thread.complete) {
      this.#end(null); // all of it is text: there is nothing to begin another session for
      return;
    }
    this.asked = this.thread.resuming;
    this.socket = new WebSocket(this.url + this.thread.query, ["asr.v1", ...offers()]);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.#write(this.thread.opening(this.#start()));
      if (this.state === "away") this.#bound(this.asked ? DIAL_TIMEOUT_MS : READY_TIMEOUT_MS, () => this.#lost());
    };
    this.socket.onmessage = ({ data }) => this.#receive(data);
    this.socket.onclose = ({ code }) => this.#closed(code);
    if (this.state === "connecting") this.#bound(READY_TIMEOUT_MS, () => this.#end(this.#unreachable()));
    else this.#bound(DIAL_TIMEOUT_MS, () => this.#lost());
  }

  #start() {
    const audio = { encoding: "pcm_s16le", sample_rate_hz: 16000, channels: 1 };
    return { type: "start", audio, interim: true, words: true, pace: this.pace };
  }

  // The server takes audio, for the first time or again.
  #opened(gaps) {
    const back = this.state === "away";
    this.state = "open";
    this.asked = false;
    this.openedAt = performance.now();
    clearTimeout(this.timer);
    if (this.stopWanted) this.#boundEnd();
    for (const lost of gaps) {
      this.lostMs += lost.end_ms - lost.start_ms;
      this.on.message(lost);
    }
    if (back) this.on.link?.({ state: "back", lostMs: this.lostMs });
    this.lostMs = 0;
    this.#boundLife();
    this.#pump();
  }

  #closed(code) {
    const error = this.lastError;
    const { lasting } = this;
    switch (this.cancelled ? "stop" : afterClose({ code, error: error?.code, lasting, asked: this.asked })) {
      case "restart":
        this.thread.restart();
        this.#dial();
        return;
      case "again":
        if ((code === 1011 || error?.code === "internal") && (this.faults += 1) >= MAX_FAULTS) break;
        this.#lost();
        return;
      case "wait":
        if (this.#wait(error?.retryAfterMs ?? USUAL_WAIT_MS)) return;
        break;
      case "taken":
        this.#end(new Problem("taken"));
        return;
      default:
    }
    if (this.unasked && !error) this.#end(new Problem("ended"));
    else if (error) this.#end(error);
    else if (this.state === "connecting") this.#end(this.#unreachable());
    else this.#end(new Problem("lost"));
  }

  // The connection is gone, or as good as gone: another is made in a moment.
  #lost() {
    const now = performance.now();
    if (now - this.openedAt > STEADY_MS && this.state !== "away") this.attempt = 0;
    if (this.state !== "away") this.awaySince = now;
    const patienceMs = this.stopWanted ? GIVE_UP_STOPPED_MS : GIVE_UP_MS;
    if (now - this.awaySince > patienceMs) {
      this.#end(new Problem("lost", { seconds: patienceMs / 1000 }));
      return;
    }
    this.#retryIn(backoffMs(this.attempt));
    this.attempt += 1;
    this.on.link?.({ state: "away" });
  }

  // No place at the server now. False when it is not worth while to try any longer.
  #wait(ms) {
    if (this.waits >= MAX_WAITS || ms > MAX_WAIT_MS) return false;
    this.waits += 1;
    this.#retryIn(ms * (1 + Math.random() / 4));
    this.on.link?.({ state: "waiting", retryMs: ms });
    return true;
  }

  #retryIn(ms) {
    this.#detach();
    if (this.state !== "connecting") this.state = "away";
    this.retry = setTimeout(() => this.#dial(), ms);
  }

  #detach() {
    clearTimeout(this.timer);
    clearTimeout(this.life);
    clearTimeout(this.pumping);
    this.thread.lost();
    if (!this.socket) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(this.state === "ended" ? 1000 : 4408);
  }

  // Messages

  #receive(data) {
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      this.#end(new Problem("protocol", { detail: "A message was not JSON." }));
      return;
    }
    if (message.type === "error" && message.fatal) this.lastError = new ServerProblem(message);
    if (message.type === "resumed") this.#resumed(message);
    else if (message.type === "ready") this.#ready(message);
    else this.#told(message);
    this.#wake();
  }

  #ready(message) {
    const again = this.thread.started > 0;
    const lost = this.thread.ready(message);
    this.maxFrameBytes = message.limits?.max_frame_bytes ?? this.maxFrameBytes;
    this.processedMs = this.receivedMs;
    this.draining = false;
    if (again) this.on.message({ type: "restarted", start_ms: this.receivedMs });
    this.on.message(this.thread.take(message));
    this.#opened(lost ? [lost] : []);
  }

  #resumed(message) {
    if (this.thread.strange(message)) {
      this.thread.restart();
      this.#lost();
      return;
    }
    const gaps = this.thread.resumed(message);
    this.#acknowledge();
    this.#opened(gaps);
  }

  #told(message) {
    if (this.state === "away") return; // not of the session: how a refusal came about
    const told = this.thread.take(message);
    const settled = this.state === "open" || this.state === "stopping";
    if (settled) this.#boundLife();
    if (!told) return;
    if (told.type === "final") this.faults = 0;
    if (settled) this.waits = 0;
    if (told.type === "status" && told.state === "draining") this.#drain();
    const progress = this.#progress(told);
    if (settled && this.stopWanted && progress) this.#boundEnd();
    this.on.message(told);
    if (told.type === "summary") this.#summed();
    else if (performance.now() - this.ackedAt > ACK_MS) this.#acknowledge();
  }

  // Notes how far the server is; true when the message shows that it came further.
  #progress(message) {
    const before = this.processedMs;
    const isResult = message.type === "partial" || message.type === "final";
    if (message.type === "ack") this.processedMs = Math.max(before, message.processed_ms ?? 0);
    else if (isResult) this.processedMs = Math.max(before, message.end_ms);
    return isResult || this.processedMs > before;
  }

  #acknowledge() {
    const ack = this.thread.acknowledge();
    if (!ack) return;
    this.ackedAt = performance.now();
    this.#write(ack);
  }

  // The server goes down. What lasts goes on at its successor; else it takes no more audio, and the last finals and
  // the summary follow, as after `stop`.
  #drain() {
    this.draining = true;
    if (this.lasting || this.state !== "open") return;
    this.state = "stopping";
    this.#boundEnd();
  }

  // The summary that was asked for or announced is the end; one that was not is followed by the reason or the close.
  #summed() {
    const whole = !this.draining || !this.lasting || this.thread.complete;
    if (this.cancelled || (whole && (this.state === "stopping" || this.stopWanted))) {
      this.#end(null);
      return;
    }
    clearTimeout(this.life);
    if (this.lasting && this.draining) {
      this.thread.restart();
      this.thread.lost();
      this.awaySince = performance.now();
      this.state = "away";
      this.on.link?.({ state: "away" });
      this.socket.onmessage = null;
      this.socket.onclose = () => this.#lost();
      this.#bound(CLOSE_TIMEOUT_MS, () => this.#lost());
    } else {
      this.state = "stopping";
      this.unasked = true;
      this.#bound(CLOSE_TIMEOUT_MS, () => this.#end(this.lastError ?? new Problem("ended")));
    }
  }

  // Audio and the stop after it

  #pump() {
    clearTimeout(this.pumping);
    if (this.state !== "open") return;
    const largest = Math.max(2, this.maxFrameBytes - (this.maxFrameBytes % 2));
    while (this.socket.bufferedAmount < MAX_BUFFERED_BYTES) {
      const bytes = this.thread.next(largest);
      if (!bytes) break;
      this.socket.send(bytes);
    }
    if (this.thread.unsentBytes > 0) this.pumping = setTimeout(() => this.#pump(), PUMP_MS);
    else if (this.stopWanted) {
      this.state = "stopping";
      this.#write({ type: "stop" });
      this.#boundEnd();
    }
  }

  #write(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  // Bounds

  #boundLife(ms = DEAD_TIMEOUT_MS) {
    clearTimeout(this.life);
    if (this.lasting) this.life = setTimeout(() => this.#lost(), ms);
    else if (this.state === "open") {
      const problem = () => new Problem("silent", { seconds: SILENCE_TIMEOUT_MS / 1000 });
      this.life = setTimeout(() => this.#end(problem()), SILENCE_TIMEOUT_MS);
    }
  }

  #boundEnd() {
    this.#bound(STOP_TIMEOUT_MS, () => this.#end(new Problem("unflushed", { seconds: STOP_TIMEOUT_MS / 1000 })));
  }

  #bound(ms, then) {
    clearTimeout(this.timer);
    this.timer = setTimeout(then, ms);
  }

  #unreachable() {
    return new Problem("unreachable", { host: new URL(this.url).host });
  }

  #end(problem) {
    if (this.state === "ended") return;
    this.state = "ended";
    clearTimeout(this.retry);
    this.#detach();
    this.#wake();
    this.on.end(problem);
  }

  #wake() {
    const waiting = [...this.wakeups];
    this.wakeups.clear();
    for (const resolve of waiting) resolve();
  }
}
