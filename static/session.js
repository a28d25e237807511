// One conversation in asr.v1 with the server that this page came from.
//
// Knows the WebSocket, the order of messages and every bound in time; knows nothing of the page or of
// where the audio comes from. It ends exactly once: by the server's `summary` (cleanly), or with a
// problem.

import { Problem, ServerProblem } from "./problems.js";

export const BYTES_PER_MS = 32; // 16 kHz, mono, 16 bit

const READY_TIMEOUT_MS = 15000;
const STOP_TIMEOUT_MS = 10000;
const CLOSE_TIMEOUT_MS = 2000;
// The server acknowledges at least every second while audio flows and every five otherwise.
const SILENCE_TIMEOUT_MS = 20000;
const MAX_WAITING_MS = 60000;

export function serverUrl(location = window.location) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/stream`;
}

export class Session {
  /**
   * @param {object} on
   * @param {(message: object) => void} on.message every message of the server, in order
   * @param {(problem: Error | null) => void} on.end once; null after a clean end
   * @param {object} [options]
   * @param {"live" | "file"} [options.pace]
   * @param {string} [options.url]
   */
  constructor(on, { pace = "live", url = serverUrl() } = {}) {
    this.on = on;
    this.pace = pace;
    this.url = url;
    this.state = "new"; // connecting, open, stopping, ended
    this.early = []; // audio from before the server was ready
    this.sentBytes = 0;
    this.receivedMs = 0;
    this.processedMs = 0;
    this.maxFrameBytes = BYTES_PER_MS * 1000;
    this.lastError = null;
    this.wakeups = new Set();
  }

  /** Connects. Audio may be given to `send` at once. */
  open() {
    this.state = "connecting";
    this.socket = new WebSocket(this.url, ["asr.v1"]);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => {
      this.#write({
        type: "start",
        audio: { encoding: "pcm_s16le", sample_rate_hz: 16000, channels: 1 },
        interim: true,
        words: true,
        pace: this.pace,
      });
    };
    this.socket.onmessage = ({ data }) => this.#receive(data);
    this.socket.onclose = () => this.#closed();
    this.#bound(READY_TIMEOUT_MS, () => new Problem("unreachable", { host: new URL(this.url).host }));
  }

  /** Audio captured or read so far, in ms: sent, or waiting for the server to be ready. */
  get sentMs() {
    return this.sentBytes / BYTES_PER_MS;
  }

  /** Audio that has not left this machine yet, in ms. */
  get waitingMs() {
    const early = this.early.reduce((sum, chunk) => sum + chunk.byteLength, 0);
    return (early + (this.socket?.bufferedAmount ?? 0)) / BYTES_PER_MS;
  }

  /** Sends PCM16 at 16 kHz. Too much of it waiting ends the session with a problem. */
  send(pcm) {
    if (this.state === "new" || this.state === "connecting") this.early.push(pcm);
    else if (this.state === "open") this.socket.send(pcm);
    else return;
    this.sentBytes += pcm.byteLength;
    if (this.waitingMs > MAX_WAITING_MS) {
      this.#end(new Problem("slow", { seconds: Math.round(this.waitingMs / 1000) }));
    }
  }

  /** The audio is complete: the last finals and the summary follow; without progress for 10 s it ends with a problem. */
  stop() {
    if (this.state === "new" || this.state === "connecting") {
      this.stopWanted = true;
      return;
    }
    if (this.state !== "open") return;
    this.state = "stopping";
    this.#write({ type: "stop" });
    this.#boundEnd();
  }

  /** Throws away what is not recognized yet. */
  cancel() {
    if (this.state === "connecting" || this.state === "new") {
      this.#end(null);
    } else if (this.state === "open" || this.state === "stopping") {
      this.state = "stopping";
      this.#write({ type: "cancel" });
      this.#boundEnd();
    }
  }

  /** Drops the connection at once and says nothing: the page is going away. */
  abandon() {
    this.#end(null);
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

  #receive(data) {
    if (this.state === "ended") return;
    let message;
    try {
      message = JSON.parse(data);
    } catch {
      this.#end(new Problem("protocol", { detail: "A message was not JSON." }));
      return;
    }
    if (message.type === "ready") this.#ready(message);
    else if (message.type === "status" && message.state === "draining") this.#drain();
    else if (message.type === "error" && message.fatal) this.lastError = new ServerProblem(message);
    const progress = this.#progress(message);
    if (this.state === "open") this.#boundSilence();
    else if (this.state === "stopping" && progress) this.#boundEnd();
    this.on.message(message);
    if (message.type === "summary") this.#summed();
    this.#wake();
  }

  // Notes how far the server is; true when the message shows that it came further.
  #progress(message) {
    const before = this.processedMs;
    const isResult = message.type === "partial" || message.type === "final";
    if (message.type === "ack") {
      this.receivedMs = message.received_ms ?? this.receivedMs;
      this.processedMs = Math.max(before, message.processed_ms ?? 0);
    } else if (isResult) this.processedMs = Math.max(before, message.end_ms);
    return isResult || this.processedMs > before;
  }

  #ready(message) {
    this.state = "open";
    this.maxFrameBytes = message.limits?.max_frame_bytes ?? this.maxFrameBytes;
    for (const chunk of this.early) this.socket.send(chunk);
    this.early = [];
    if (this.stopWanted) this.stop();
  }

  // The server goes down and takes no more audio: the last finals and the summary follow, as after `stop`.
  #drain() {
    if (this.state !== "open") return;
    this.state = "stopping";
    this.#boundEnd();
  }

  // The summary that was asked for or announced is the end; one that was not is followed by the reason or the close.
  #summed() {
    if (this.state === "stopping") this.#end(null);
    else {
      this.state = "stopping";
      this.unasked = true;
      this.#bound(CLOSE_TIMEOUT_MS, () => this.lastError ?? new Problem("ended"));
    }
  }

  #closed() {
    if (this.unasked && !this.lastError) this.#end(new Problem("ended"));
    else if (this.lastError) this.#end(this.lastError);
    else if (this.state === "connecting") this.#end(new Problem("unreachable", { host: new URL(this.url).host }));
    else this.#end(new Problem("lost"));
  }

  #boundSilence() {
    this.#bound(SILENCE_TIMEOUT_MS, () => new Problem("silent", { seconds: SILENCE_TIMEOUT_MS / 1000 }));
  }

  #boundEnd() {
    this.#bound(STOP_TIMEOUT_MS, () => new Problem("unflushed", { seconds: STOP_TIMEOUT_MS / 1000 }));
  }

  #bound(ms, problem) {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.#end(problem()), ms);
  }

  #write(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  #end(problem) {
    if (this.state === "ended") return;
    this.state = "ended";
    clearTimeout(this.timer);
    this.early = [];
    if (this.socket) {
      this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
      this.socket.close(1000);
    }
    this.#wake();
    this.on.end(problem);
  }

  #wake() {
    const waiting = [...this.wakeups];
    this.wakeups.clear();
    for (const resolve of waiting) resolve();
  }
}
