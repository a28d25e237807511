// What the page shows, computed from the server's messages. Pure: every function returns a new
// transcript and leaves the old one as it was.
//
// A transcript outlives sessions: each session's audio clock is moved behind the sessions before it,
// so that times never go back over the whole page.

const MAX_WARNINGS = 20;

/**
 * @typedef {object} Line an utterance that is over, or audio that was never heard
 * @property {"speech" | "gap"} kind
 * @property {string} key unique on the page
 * @property {number} session 0, 1 …
 * @property {string} text
 * @property {{w: string, start_ms: number, end_ms: number, confidence: number | null}[]} words
 * @property {number} start_ms on the page's clock
 * @property {number} end_ms
 * @property {boolean} unfinished the session broke before the server had confirmed it
 */

export function emptyTranscript() {
  return { sessions: [], lines: [], partials: [], closed: new Set(), warnings: [], running: false };
}

/** A session begins: `ready` fills in what it is. */
export function beginSession(transcript) {
  const session = { base_ms: lengthMs(transcript), audio_ms: 0, id: null, server: null, model: null, language: null, summary: null };
  return { ...transcript, sessions: [...transcript.sessions, session], partials: [], closed: new Set(), warnings: [], running: true };
}

/** A session is over. If it broke, a partial that never became final is kept, marked as unfinished. */
export function endSession(transcript, { broken }) {
  const { partials } = transcript;
  const left = broken ? partials.filter((partial) => partial.text.trim()).map((partial) => lineOf(transcript, partial, true)) : [];
  const audioMs = Math.max(current(transcript).audio_ms, ...partials.map((partial) => partial.end_ms));
  const ended = changeSession({ ...transcript, partials: [], running: false }, { audio_ms: audioMs });
  return left.length ? { ...ended, lines: [...ended.lines, ...left] } : ended;
}

/** The transcript after one message of the server. Unknown types change nothing. */
export function reduce(transcript, message) {
  switch (message.type) {
    case "ready":
      return withWarnings(
        changeSession(transcript, {
          id: message.session_id ?? null,
          server: message.server ?? null,
          model: message.model ?? null,
          language: message.language ?? null,
        }),
        message.warnings ?? [],
      );
    case "partial":
      return reducePartial(transcript, message);
    case "final":
      return reduceFinal(transcript, message);
    case "correction":
      return reduceCorrection(transcript, message);
    case "gap":
      return reduceGap(transcript, message);
    case "restarted":
      return reduceRestarted(transcript, message);
    case "warning":
      return withWarnings(transcript, [message]);
    case "ack":
      return changeSession(transcript, { audio_ms: Math.max(current(transcript).audio_ms, message.received_ms ?? 0) });
    case "summary":
      return changeSession(transcript, { summary: message, audio_ms: Math.max(current(transcript).audio_ms, message.audio_ms ?? 0) });
    default:
      return transcript;
  }
}

/** A partial's text as [what successive partials agree on, what may still change]. */
export function splitPartial({ text, stable_chars: stable = 0 }) {
  const characters = Array.from(text); // the wire counts characters, not UTF-16 units
  return [characters.slice(0, stable).join(""), characters.slice(stable).join("")];
}

/** A line's text in pieces, those that are words with their times: [{text, word | null}]. */
export function pieces({ text, words }) {
  const found = [];
  let cursor = 0;
  for (const word of words) {
    const at = text.indexOf(word.w, cursor);
    if (at < 0 || !word.w) continue;
    if (at > cursor) found.push({ text: text.slice(cursor, at), word: null });
    found.push({ text: word.w, word });
    cursor = at + word.w.length;
  }
  if (cursor < text.length) found.push({ text: text.slice(cursor), word: null });
  return found;
}

/** Where the next session's clock begins. */
export function lengthMs(transcript) {
  const session = current(transcript);
  const last = transcript.lines.at(-1);
  return Math.max(session ? session.base_ms + session.audio_ms : 0, last ? last.end_ms : 0);
}

export function hasText(transcript) {
  return transcript.lines.some((line) => line.kind === "speech");
}

function reducePartial(transcript, message) {
  const known = transcript.partials.find((partial) => partial.utterance_id === message.utterance_id);
  if (transcript.closed.has(message.utterance_id) || (known && known.revision > message.revision)) return transcript;
  const others = transcript.partials.filter((partial) => partial !== known && !partial.again);
  return { ...transcript, partials: [...others, message] };
}

function reduceFinal(transcript, message) {
  if (transcript.closed.has(message.utterance_id)) return transcript;
  const next = {
    ...transcript,
    partials: transcript.partials.filter((partial) => partial.utterance_id !== message.utterance_id && !partial.again),
    closed: new Set(transcript.closed).add(message.utterance_id),
  };
  return message.text.trim() ? { ...next, lines: placed(next.lines, lineOf(transcript, message, false)) } : next;
}

function reduceCorrection(transcript, message) {
  const key = keyOf(transcript, message);
  const { base_ms: base } = current(transcript);
  const lines = transcript.lines.map((line) => {
    if (line.key !== key) return line;
    return { ...line, text: message.text ?? line.text, words: message.words ? moved(message.words, base) : line.words };
  });
  return { ...transcript, lines };
}

// Gaps that touch are one: what could not be sent may be told in parts.
function reduceGap(transcript, message) {
  const { base_ms: base } = current(transcript);
  const session = transcript.sessions.length - 1;
  const [start, end] = [message.start_ms + base, message.end_ms + base];
  const cause = message.cause ?? null;
  const touches = (line) =>
    line.kind === "gap" && line.session === session && line.cause === cause && line.start_ms <= end && line.end_ms >= start;
  const merged = transcript.lines.filter(touches);
  const startMs = Math.min(start, ...merged.map((line) => line.start_ms));
  const line = {
    kind: "gap",
    key: merged[0]?.key ?? `${session}/gap-${message.start_ms}`,
    session,
    text: "",
    words: [],
    start_ms: startMs,
    end_ms: Math.max(end, ...merged.map((line) => line.end_ms)),
    cause,
    channel: message.channel ?? 0,
    unfinished: false,
  };
  return { ...transcript, lines: placed(transcript.lines.filter((other) => !merged.includes(other)), line) };
}

// Another session of the server goes on from a point. It hears what was under way there once more, so that those
// words stay only until the first of its own come; what began before cannot be heard again and is kept as it is.
function reduceRestarted(transcript, { start_ms: from }) {
  const cut = transcript.partials.filter((partial) => partial.start_ms < from && partial.text.trim());
  const partials = transcript.partials.filter((partial) => !cut.includes(partial)).map((partial) => ({ ...partial, again: true }));
  const lines = cut.reduce((all, partial) => placed(all, lineOf(transcript, partial, true)), transcript.lines);
  return { ...transcript, lines, partials };
}

// A line where its time is among those of its session: text that was on its way comes after the gap behind it.
function placed(lines, line) {
  let at = lines.length;
  const behind = (other) => other.session === line.session && other.start_ms >= line.end_ms;
  while (at > 0 && (line.kind === "gap" || lines[at - 1].kind === "gap") && behind(lines[at - 1])) at -= 1;
  return [...lines.slice(0, at), line, ...lines.slice(at)];
}

function lineOf(transcript, message, unfinished) {
  const { base_ms: base } = current(transcript);
  return {
    kind: "speech",
    key: keyOf(transcript, message),
    session: transcript.sessions.length - 1,
    text: message.text.trim(),
    words: moved(message.words ?? [], base),
    start_ms: message.start_ms + base,
    end_ms: message.end_ms + base,
    revision: message.revision,
    channel: message.channel ?? 0,
    confidence: message.confidence ?? null,
    language: message.language ?? null,
    reason: message.reason ?? "stop",
    unfinished,
  };
}

function moved(words, base) {
  return words.map((word) => ({ ...word, start_ms: word.start_ms + base, end_ms: word.end_ms + base }));
}

function keyOf(transcript, message) {
  return `${transcript.sessions.length - 1}/${message.utterance_id}`;
}

function current(transcript) {
  return transcript.sessions.at(-1);
}

function changeSession(transcript, changes) {
  const sessions = [...transcript.sessions];
  sessions[sessions.length - 1] = { ...sessions.at(-1), ...changes };
  return { ...transcript, sessions };
}

function withWarnings(transcript, added) {
  const texts = added.map((warning) => (typeof warning === "string" ? warning : warning.message));
  const fresh = texts.filter((text) => text && !transcript.warnings.includes(text));
  return fresh.length ? { ...transcript, warnings: [...transcript.warnings, ...fresh].slice(-MAX_WARNINGS) } : transcript;
}
