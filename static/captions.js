// The transcript as text, subtitles and JSON. Pure. The rules and the JSON are those of the library
// (`asr.captions`, transcript.v1), so that a download and the command give the same files.

import { flat, isUnspaced, join, seam } from "./seams.js";

const MAX_LINE_CHARS = 42;
const MAX_LINES = 2;
const MAX_CUE_MS = 7000;
const MIN_CUE_MS = 700;
const PAUSE_MS = 1500; // a silence as long as this begins a new cue

export const FORMATS = {
  txt: { type: "text/plain", make: toText },
  srt: { type: "application/x-subrip", make: toSrt },
  vtt: { type: "text/vtt", make: toVtt },
  json: { type: "application/json", make: toJson },
};

/** One utterance per line. */
export function toText(transcript) {
  return spoken(transcript).map((line) => `${flat(line.text)}\n`).join("");
}

export function toSrt(transcript) {
  const blocks = cues(transcript).map(({ start_ms, end_ms, rows }, i) => {
    // An arrow would read as a time line.
    const text = rows.map((row) => row.replace(/-{2,}>/g, "->")).join("\n");
    return `${i + 1}\n${time(start_ms, ",")} --> ${time(end_ms, ",")}\n${text}\n`;
  });
  return blocks.join("\n");
}

export function toVtt(transcript) {
  const blocks = cues(transcript).map(
    ({ start_ms, end_ms, rows }) => `${time(start_ms, ".")} --> ${time(end_ms, ".")}\n${rows.map(escape).join("\n")}\n`,
  );
  return ["WEBVTT\n", ...blocks].join("\n");
}

/** All there is, as riva-gateway.transcript/1; what was lost or not confirmed is among the warnings. */
export function toJson(transcript) {
  const lines = spoken(transcript);
  const session = transcript.sessions.at(-1);
  const last = transcript.lines.at(-1);
  const document = {
    schema: "riva-gateway.transcript/1",
    text: join(lines.map((line) => line.text), session?.language ?? ""),
    language: session?.language ?? "",
    model: session?.model ?? "",
    duration_ms: Math.max(session ? session.base_ms + session.audio_ms : 0, last ? last.end_ms : 0),
    warnings: transcript.lines.flatMap(caveat),
    finals: lines.map((line, i) => ({
      type: "final",
      utterance_id: `u${i}`, // each session counts from 0
      revision: line.revision,
      channel: line.channel,
      start_ms: line.start_ms,
      end_ms: line.end_ms,
      text: line.text,
      words: line.words,
      confidence: line.confidence,
      language: line.language,
      reason: line.reason,
    })),
    gaps: transcript.lines
      .filter((line) => line.kind === "gap")
      .map(({ start_ms, end_ms, cause, channel }) => ({ type: "gap", start_ms, end_ms, cause, channel })),
  };
  return `${JSON.stringify(document, null, 2)}\n`;
}

/** Subtitles {start_ms, end_ms, rows}: at most two rows and seven seconds, none across a pause, none overlapping. */
export function cues(transcript) {
  const language = transcript.sessions.at(-1)?.language ?? "";
  const made = spoken(transcript).flatMap((line) => cuesOf(line, line.language || language));
  made.sort((a, b) => a.start_ms - b.start_ms);
  made.forEach((cue, i) => {
    const next = made[i + 1];
    if (next && next.start_ms <= cue.start_ms) {
      next.start_ms = cue.start_ms + 1;
      next.end_ms = Math.max(next.end_ms, next.start_ms);
    }
    const wanted = Math.max(cue.end_ms - cue.start_ms, MIN_CUE_MS);
    cue.end_ms = cue.start_ms + (next ? Math.min(wanted, next.start_ms - cue.start_ms) : wanted);
  });
  return made;
}

/** `0:07` or `1:02:03`. */
export function clock(ms) {
  const seconds = Math.floor(ms / 1000);
  const [h, m, s] = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60];
  return h ? `${h}:${pad(m)}:${pad(s)}` : `${m}:${pad(s)}`;
}

function cuesOf(line, language) {
  const words = line.words.length ? timed(line.words) : sharedOut(line);
  const made = [];
  let cue = null;
  for (const word of words.flatMap(short)) {
    const rows = cue && goesWith(cue, word) ? lay(cue.rows, word.text, language) : null;
    if (rows) cue.rows = rows;
    else {
      cue = { start_ms: word.start_ms, end_ms: word.start_ms, rows: [word.text], speaker: null };
      made.push(cue);
    }
    cue.end_ms = Math.min(Math.max(cue.start_ms, word.end_ms), cue.start_ms + MAX_CUE_MS);
    cue.last_ms = word.end_ms;
    cue.speaker = word.speaker ?? null;
  }
  return made.map(({ start_ms, end_ms, rows }) => ({ start_ms, end_ms, rows }));
}

function goesWith(cue, word) {
  return (
    word.end_ms - cue.start_ms <= MAX_CUE_MS && word.start_ms - cue.last_ms < PAUSE_MS && (word.speaker ?? null) === cue.speaker
  );
}

// The rows with one more word, or null where it does not fit.
function lay(rows, text, language) {
  const last = rows.at(-1) + seam(rows.at(-1), text, language) + text;
  if (size(last) <= MAX_LINE_CHARS) return [...rows.slice(0, -1), last];
  return rows.length < MAX_LINES ? [...rows, text] : null;
}

function timed(words) {
  return words
    .map((word) => ({ ...word, text: flat(word.w), end_ms: Math.max(word.start_ms, word.end_ms) }))
    .filter((word) => word.text);
}

// Words with times guessed from their share of the text's length.
function sharedOut({ text, start_ms, end_ms }) {
  const words = flat(text).split(" ");
  const total = words.reduce((sum, word) => sum + size(word) + 1, 0);
  const at = (before) => start_ms + Math.floor(((end_ms - start_ms) * before) / total);
  let before = 0;
  return words.map((word) => {
    const from = before;
    before += size(word) + 1;
    return { text: word, start_ms: at(from), end_ms: at(before) };
  });
}

// A word in pieces that a row can hold, its time shared out. Text without blanks comes as one long
// "word"; it may break at every character.
function short(word) {
  const characters = Array.from(word.text);
  const time = (at) => word.start_ms + Math.floor(((word.end_ms - word.start_ms) * at) / characters.length);
  const made = [];
  let from = 0;
  characters.forEach((character, i) => {
    const next = characters[i + 1];
    const full = i + 1 - from === MAX_LINE_CHARS || isUnspaced(character);
    const over = next === undefined || next === " " || isUnspaced(next) !== isUnspaced(character);
    if (character === " ") from = i + 1;
    else if (full || over) {
      made.push({ ...word, text: characters.slice(from, i + 1).join(""), start_ms: time(from), end_ms: time(i + 1) });
      from = i + 1;
    }
  });
  return made;
}

function caveat(line) {
  if (line.kind === "gap") return [`${line.end_ms - line.start_ms} ms of audio from ${line.start_ms} ms on were lost.`];
  if (line.unfinished) return [`The connection broke: “${flat(line.text)}” was not confirmed.`];
  return [];
}

function spoken(transcript) {
  return transcript.lines.filter((line) => line.kind === "speech");
}

function size(text) {
  return Array.from(text).length;
}

function time(ms, point) {
  const rest = Math.floor(ms / 1000);
  return `${pad(Math.floor(rest / 3600))}:${pad(Math.floor(rest / 60) % 60)}:${pad(rest % 60)}${point}${pad(ms % 1000, 3)}`;
}

function pad(number, length = 2) {
  return String(number).padStart(length, "0");
}

function escape(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
