// Everything that can go wrong on this page, said to the person in front of it: what happened, and
// what to do. Pure: no DOM.

const WORDS = {
  insecure: () => [
    "The browser gives no microphone on this address",
    "Microphones work only on https:// addresses and on localhost. Open this page that way. Audio files can be transcribed here all the same.",
  ],
  unsupported: () => [
    "This browser is too old for live speech",
    "The page needs AudioWorklet and WebSocket: Chrome 66, Edge 79, Firefox 76, Safari 14.1 or anything newer has them.",
  ],
  "microphone-refused": () => [
    "The microphone was refused",
    "Allow it in the address bar (the lock or microphone symbol), check that the system lets the browser use it, and press Start again.",
  ],
  "microphone-missing": () => ["No microphone found", "Plug one in, or choose one in the system's sound settings, and press Start again."],
  "microphone-busy": () => [
    "The microphone is in use",
    "Another program holds it, or the system could not start it. Close that program and press Start again.",
  ],
  "microphone-failed": ({ detail }) => ["The microphone could not be started", `The browser said: ${detail}. Reload the page and try again.`],
  "microphone-lost": () => [
    "The microphone went away",
    "It was unplugged or taken back. What was heard until then is below. Plug it in and press Start again.",
  ],
  unreachable: ({ host }) => [
    "The server cannot be reached",
    `Nothing answers at ${host}. Check that riva-gateway is running and that the network is up, then start again.`,
  ],
  lost: ({ seconds }) => [
    "The connection to the server was lost",
    `${seconds ? `It did not come back within ${seconds} seconds. ` : ""}Your text is still here. Words spoken since the last line may be missing. Start again to go on.`,
  ],
  taken: () => ["This session goes on in another window", "This one has stopped; the text so far stays here. Close it, or start again for a session of its own."],
  ended: () => ["The server ended the session", "It is probably being restarted. Everything said until then is below. Start again in a moment."],
  draining: ({ file }) => [
    "The server is going down; your words are kept",
    file ? `“${file}” is not sent on. Choose it again in a moment.` : "It hears nothing more. Press Start again in a moment.",
  ],
  "no-speech": ({ name }) => [
    `No speech was recognized in ${name}.`,
    "If somebody speaks there, check that it is loud enough and in the recognizer's language.",
  ],
  silent: ({ seconds }) => [
    "The server has stopped answering",
    `It said nothing for ${seconds} seconds. Your text is still here. Check the connection, then start again.`,
  ],
  slow: ({ seconds }) => [
    "The connection is too slow",
    `${seconds} seconds of speech were waiting to be sent. Your text is still here. Try a better connection, then start again.`,
  ],
  unflushed: ({ seconds }) => [
    "The last words may be missing",
    `The server did not finish within ${seconds} seconds after Stop. Your text is still here.`,
  ],
  "not-ready": ({ detail }) => ["The recognizer is not ready", detail || "Wait a moment, then press Start; the server can tell more at /readyz."],
  protocol: ({ detail }) => [
    "The server sent something this page does not understand",
    `${detail} Reload the page: it may be older than the server.`,
  ],
  "file-empty": ({ name }) => ["The file is empty", `“${name}” holds no audio. Choose another file.`],
  "file-large": ({ name, mb, limit }) => [
    "The file is too large for the browser",
    `“${name}” has ${mb} MB; this page decodes up to ${limit} MB in memory. Use “riva-gateway transcribe” for longer recordings.`,
  ],
  "file-undecodable": ({ name }) => [
    "The file could not be read as audio",
    `The browser cannot decode “${name}”: it is not audio, is damaged, or has a format that this browser lacks. WAV, MP3, M4A, Ogg, WebM and FLAC work in most browsers.`,
  ],
  "file-many": () => ["One file at a time", "Drop a single audio file."],
  clipboard: () => ["The text could not be copied", "The browser refused the clipboard. Select the text and copy it by hand, or download it."],
  unexpected: ({ detail }) => ["Something went wrong on this page", `${detail}. Your text is still here; reload the page if it happens again.`],
};

const ADVICE = {
  resume: "Start again to go on.",
  restart: "Start again to go on.",
  fix_request: "",
  reauthenticate: "Sign in again, then start anew.",
  none: "",
};

const AGAIN = "Try again in";
const VAGUELY_LATER = /\s*Try again (?:shortly|in a moment)\.\s*$/;

/** A failure in words for people. `kind` is a key of the table above. */
export class Problem extends Error {
  constructor(kind, facts = {}) {
    const [title, advice] = WORDS[kind](facts);
    super(title);
    this.kind = kind;
    this.title = title;
    this.advice = advice;
  }
}

/** The server's own `error` message: its words, and what they ask of the person. */
export class ServerProblem extends Error {
  constructor(message) {
    super(message.message);
    this.kind = "server";
    this.code = message.code;
    this.retryAfterMs = message.retry_after_ms ?? null;
    this.title = message.fatal ? "The server ended the session" : "The server reported a problem";
    const advice = serverAdvice(message);
    // When to come back is said once: by the figure where there is one.
    const words = advice.startsWith(AGAIN) ? message.message.replace(VAGUELY_LATER, "") : message.message;
    this.advice = [words, advice].filter(Boolean).join(" ");
  }
}

function serverAdvice({ action, retry_after_ms: wait }) {
  if (action === "wait" || wait) {
    return `${AGAIN} ${wait ? `${Math.max(1, Math.round(wait / 1000))} s` : "a moment"}.`;
  }
  return ADVICE[action] ?? "";
}

/** Any thrown thing as something that has `kind`, `title` and `advice`. */
export function asProblem(error) {
  return error?.title && error?.advice !== undefined ? error : new Problem("unexpected", { detail: error?.message ?? String(error) });
}
