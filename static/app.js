// Wires the page: buttons, keys and drops on one side, microphone, files and sessions on the other.
// One session at a time; the transcript lives on between them.

import { askForKey } from "./access.js";
import { Microphone, checkMicrophoneSupport } from "./capture.js";
import { clock } from "./captions.js";
import { decodeFile, streamFile } from "./file.js";
import { headers } from "./key.js";
import { CaptureClock, median } from "./latency.js";
import { Meter } from "./meter.js";
import { Problem, asProblem } from "./problems.js";
import { BYTES_PER_MS, KEPT_MS, Session } from "./session.js";
import { GOING_ON, afterwards, disconnects, underWay } from "./subtitles.js";
import { copyText, download } from "./tools.js";
import { beginSession, emptyTranscript, endSession, reduce } from "./transcript.js";
import { TranscriptView, clearNotices, el, flash, notice, showTools } from "./view.js";

const QUIET_PEAK = 0.004; // about -48 dB of full scale
const QUIET_MS = 5000;
const BEHIND_MS = 2000;
const BACK_MS = 5000; // how long good news stays
const STATUS = { degraded: "Slow", failing_over: "Switching", throttled: "Waiting", draining: "Restarting" };

const view = new TranscriptView();
const meter = new Meter(el("meter"), el("wave"));
let transcript = emptyTranscript();
let mode = "idle";
let engine = ""; // the server's engine, once it has told
let active = null; // what `newActive` makes: the session that runs, and what belongs to it

function setMode(next) {
  mode = next;
  document.body.dataset.mode = next;
  const stoppable = next === "starting" || next === "live";
  el("talk-text").textContent = stoppable ? "Stop" : "Start";
  el("talk").disabled = next === "finishing" || next === "file";
  el("choose").hidden = next === "file";
  el("choose").disabled = next !== "idle";
  el("cancel").hidden = next !== "file";
  el("job").hidden = next !== "file";
  el("signal").hidden = next === "file";
  if (active) tell(active);
  else say(GOING_ON[next]);
}

// A figure beside the text changes in silence: a screen reader would read every second of it.
function say(text, figure = "") {
  const line = el("state-text");
  if (line.textContent !== text) line.textContent = text;
  if (el("state-figure").textContent !== figure) el("state-figure").textContent = figure;
}

// The line under the page's name while a session runs.
function tell(mine) {
  if (active !== mine) return;
  const { session, link, status, quietMs } = mine;
  const waiting = session.state === "open" && !link ? session.waitingMs : 0;
  const behindMs = waiting > BEHIND_MS ? waiting : 0;
  const facts = { mode, link, status, behindMs, quiet: quietMs > QUIET_MS, keptMs: session.keptMs, keptMaxMs: KEPT_MS.live };
  say(...underWay(facts));
}

function connection(state, text) {
  el("connection").dataset.state = state;
  el("connection-text").textContent = text;
}

function show(next) {
  transcript = next;
  view.show(transcript);
  showTools(transcript);
}

function report(problem, again) {
  if (problem.code === "unauthorized") {
    askForKey(again);
    return;
  }
  const action = again && { label: "Start again", run: again };
  notice({ tone: "problem", kind: problem.kind, title: problem.title, advice: problem.advice, action });
}

// Nothing is broken, but it should be known.
function mention({ kind, title, advice }) {
  notice({ tone: "warning", kind, title, advice });
}

// Live speech

async function start() {
  if (mode !== "idle") return;
  clearNotices();
  setMode("starting");
  meter.reset();
  el("elapsed").textContent = "0:00";
  el("elapsed").hidden = false;
  const mine = newActive("live", start);
  mine.microphone = new Microphone({
    chunk: (chunk) => heard(mine, chunk),
    lost: (problem) => {
      report(problem);
      stop();
    },
  });
  try {
    await mine.microphone.open();
  } catch (error) {
    if (active === mine) quit(error, mine.again);
    return;
  }
  if (active !== mine) {
    mine.microphone.close(); // stopped while the browser was asking
    return;
  }
  connect(mine);
  setMode("live");
  connection("busy", "Connecting");
  stayAwake(mine);
}

// A phone would dim, lock and take the microphone away.
async function stayAwake(mine) {
  try {
    mine.wakeLock = await navigator.wakeLock?.request("screen");
  } catch {
    return; // not allowed now (battery saver, page in the background): the person keeps it awake
  }
  if (active !== mine) mine.wakeLock?.release();
}

async function stop() {
  if (mode === "starting") {
    quit(null);
  } else if (mode === "live") {
    setMode("finishing");
    const { microphone, session } = active;
    await microphone.finish();
    session.stop();
  }
}

function heard(mine, { pcm, peak, rms }) {
  if (active !== mine) return;
  const ms = pcm.byteLength / BYTES_PER_MS;
  mine.session.send(pcm);
  mine.clock.captured(mine.session.sentMs, performance.now());
  meter.add(rms);
  el("elapsed").textContent = clock(mine.session.sentMs);
  mine.quietMs = peak < QUIET_PEAK ? mine.quietMs + ms : 0;
  if (mode === "live") tell(mine);
}

// Files

async function transcribe(files) {
  if (mode !== "idle" || files.length === 0) return;
  clearNotices();
  if (files.length > 1) {
    report(new Problem("file-many"));
    return;
  }
  const [file] = files;
  setMode("file");
  el("cancel").focus();
  el("job-name").textContent = file.name;
  el("job-time").textContent = "decoding";
  el("progress").removeAttribute("value");
  el("elapsed").hidden = true; // it counts what the microphone heard
  const mine = newActive("file", () => transcribe(files));
  mine.file = file.name;
  try {
    const recording = await decodeFile(file);
    if (active !== mine) return; // cancelled while it was decoded
    mine.totalMs = recording.totalMs;
    connect(mine);
    connection("busy", "Connecting");
    showProgress(mine);
    await streamFile(recording, mine.session);
  } catch (error) {
    if (active === mine) quit(error);
  }
}

function cancel() {
  if (mode !== "file") return;
  active.cancelled = true;
  if (transcript.running) active.session.cancel();
  else quit(null);
}

function showProgress({ session, totalMs }) {
  if (!totalMs) return;
  const done = Math.min(session.processedMs, totalMs);
  el("progress").value = done / totalMs;
  el("job-time").textContent = `${clock(done)} of ${clock(totalMs)}`;
}

// Sessions

function newActive(pace, again) {
  const mine = { clock: new CaptureClock(), partials: [], finals: [], quietMs: 0, waitedMs: 0, link: null, status: null, again };
  Object.assign(mine, { spoken: false, draining: false, cancelled: false });
  const message = (content) => received(mine, content);
  mine.session = new Session({ message, link: (link) => linked(mine, link), end: (problem) => ended(mine, problem) }, { pace });
  active = mine;
  return mine;
}

function connect({ session }) {
  showLatency(active);
  show(beginSession(transcript));
  session.open();
}

function received(mine, message) {
  const now = performance.now();
  const warned = transcript.warnings.length;
  show(reduce(transcript, message));
  for (const text of transcript.warnings.slice(warned)) {
    notice({ tone: "warning", kind: "warning", title: "A note from the server", advice: text });
  }
  if (message.type === "ready") {
    mine.status = null;
    mine.link = null;
    atWork(mine);
    showFacts();
  } else if (message.type === "partial" || message.type === "final") {
    // What waited for a connection tells nothing of the recognizer.
    const latency = message.end_ms > mine.waitedMs ? mine.clock.since(message.end_ms, now) : null;
    if (latency !== null && message.text) mine[`${message.type}s`].push(latency);
    showLatency(mine);
    if (message.type === "final" && message.text) mine.spoken = true;
    if (mine.status && mine.status !== "draining") changed(mine, null); // words come again
  } else if (message.type === "error" && !message.fatal) {
    notice({ tone: "warning", kind: "server", title: "The server reported a problem", advice: message.message });
  } else if (message.type === "status" && message.state === "draining" && !mine.session.lasting) {
    drained(mine);
  } else if (message.type === "status") {
    changed(mine, message.state);
  }
  if (mode === "file") showProgress(mine);
}

// What the server says of itself, or null when it has nothing to tell.
function changed(mine, status) {
  mine.status = status;
  atWork(mine);
}

// The connection went, waits or came back. The microphone goes on all the while.
function linked(mine, link) {
  mine.link = link;
  if (link.state === "back") {
    mine.status = null;
    mine.waitedMs = mine.session.sentMs;
    setTimeout(() => {
      if (mine.link !== link) return;
      mine.link = null;
      tell(mine);
    }, BACK_MS);
  }
  atWork(mine);
}

// The connection's own words, beside the line that tells more.
function atWork(mine) {
  const { link, status } = mine;
  if (link?.state === "away") connection("away", "Reconnecting");
  else if (link?.state === "waiting") connection("away", "Waiting");
  else if (STATUS[status]) connection("away", STATUS[status]);
  else connection(mode === "file" ? "busy" : "live", mode === "file" ? "Sending" : "Live");
  tell(mine);
}

// The server goes down: the microphone is let go, and the last words are waited for.
function drained(mine) {
  mine.draining = true;
  mine.microphone?.close();
  mention(new Problem("draining", { file: mine.file }));
  connection("busy", "Going down");
  if (mode === "live") setMode("finishing");
}

function ended(mine, problem) {
  if (active !== mine) return;
  show(endSession(transcript, { broken: problem !== null }));
  quit(problem, mine.again);
  if (!problem && !mine.spoken && !mine.draining && !mine.cancelled) {
    mention(new Problem("no-speech", { name: mine.file ?? "the recording" }));
  }
}

// Back to idle, from wherever we are; with a problem it is told, and `again` is offered.
function quit(error, again) {
  const focused = document.activeElement === el("cancel");
  const { microphone, wakeLock, session, file, draining, cancelled, spoken } = active ?? {};
  microphone?.close();
  wakeLock?.release();
  active = null;
  setMode("idle");
  if (focused) el("choose").focus();
  meter.reset();
  const problem = error && asProblem(error);
  const doneMs = transcript.sessions.at(-1)?.audio_ms ?? 0;
  say(afterwards({ problem, draining, cancelled, spoken, file, doneMs }));
  if (disconnects(problem)) connection("lost", "Disconnected");
  else if (draining) connection("idle", "Offline");
  else if (problem && session?.state === "ended") connection("idle", "Stopped");
  else connection("ready", "Ready");
  if (problem) report(problem, again);
}

function showFacts() {
  const { model, language } = transcript.sessions.at(-1) ?? {};
  el("fact-model").textContent = [model, engine && `${engine} engine`].filter(Boolean).join(", ") || "–";
  el("fact-language").textContent = language || "–";
}

// What the server says of itself before the first session.
async function greet() {
  let state;
  try {
    state = await (await fetch("readyz", { headers: headers(), signal: AbortSignal.timeout(10000) })).json();
  } catch {
    return; // the session will tell what is wrong
  }
  if (mode === "idle" && state.ready) connection("ready", "Ready");
  if (typeof state.engine === "string") engine = state.engine;
  showFacts();
  if (state.ready === false) {
    mention(new Problem("not-ready", { detail: state.detail }));
  }
}

function showLatency({ partials, finals }) {
  el("fact-partial").textContent = milliseconds(median(partials));
  el("fact-final").textContent = milliseconds(median(finals));
}

function milliseconds(value) {
  if (value === null) return "–";
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

async function copy() {
  try {
    await copyText(transcript);
    flash(el("copy"), "Copied");
  } catch {
    report(new Problem("clipboard"));
  }
}

function clear() {
  if (transcript.running) return;
  clearNotices();
  show(emptyTranscript());
  say(GOING_ON.idle);
  el("page").focus();
}

// Buttons, keys, drops

el("talk").addEventListener("click", () => (mode === "idle" ? start() : stop()));
el("choose").addEventListener("click", () => el("file").click());
el("cancel").addEventListener("click", cancel);
el("copy").addEventListener("click", copy);
el("clear").addEventListener("click", clear);
el("times").addEventListener("click", ({ currentTarget }) => {
  const timed = currentTarget.getAttribute("aria-pressed") !== "true";
  currentTarget.setAttribute("aria-pressed", String(timed));
  view.setTimed(timed);
});
for (const button of document.querySelectorAll("[data-download]")) {
  button.addEventListener("click", () => download(transcript, button.dataset.download));
}
el("file").addEventListener("change", ({ currentTarget }) => {
  const files = [...currentTarget.files];
  currentTarget.value = ""; // the same file may be chosen again
  transcribe(files);
});

document.addEventListener("keydown", (event) => {
  const free = event.target === document.body && !event.repeat && !event.ctrlKey && !event.metaKey && !event.altKey;
  if (!free || (event.key !== " " && event.key !== "Enter")) return;
  event.preventDefault();
  el("talk").click();
});

const carriesFiles = (event) => event.dataTransfer?.types.includes("Files");
document.addEventListener("dragover", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  el("drop").hidden = mode !== "idle";
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) el("drop").hidden = true;
});
document.addEventListener("drop", (event) => {
  if (!carriesFiles(event)) return;
  event.preventDefault();
  el("drop").hidden = true;
  transcribe([...event.dataTransfer.files]);
});

window.addEventListener("online", () => active?.session.hurry());
document.addEventListener("visibilitychange", () => document.hidden || active?.session.hurry());
window.addEventListener("pagehide", () => active?.session.abandon());
window.addEventListener("error", ({ error }) => error && report(asProblem(error)));
window.addEventListener("unhandledrejection", ({ reason }) => report(asProblem(reason)));

show(transcript);
setMode("idle");
greet();
try {
  checkMicrophoneSupport();
} catch (problem) {
  report(problem);
  say(afterwards({ problem }));
}
