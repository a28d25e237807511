// The line under the page's name: what goes on now, or how the last session ended. Pure: no DOM.

export const GOING_ON = {
  idle: "Press Start and speak. Your words appear as you say them.",
  starting: "Waiting for the microphone. The browser may ask you to allow it.",
  live: "Listening. Press Stop when you are done.",
  finishing: "Finishing the last words.",
  file: "Transcribing the file.",
};

const QUIET = "Hardly any sound arrives. Check that the right microphone is chosen and not muted.";
const STATUS = {
  degraded: "The recognizer is slow just now. Nothing is lost.",
  failing_over: "The recognizer was lost. Looking for another; your words are kept.",
  recovered: "A recognizer listens again, from where the last one stopped.",
  throttled: "The recognizer is full. Your words are kept until it has room.",
  draining: "The server is about to restart. Go on: your words are kept.",
};

/**
 * What to say while a session runs: [the text, a figure that grows and need not be read out].
 * @param {object} now
 * @param {"starting" | "live" | "finishing" | "file"} now.mode
 * @param {{state: string, retryMs?: number, lostMs?: number} | null} now.link news of the connection
 * @param {string | null} now.status the server's own
 * @param {number} now.keptMs speech that waits on this machine
 * @param {number} now.keptMaxMs the most that can be kept
 * @param {number} now.behindMs audio that waits at an open connection, where that is worth a word
 * @param {boolean} now.quiet hardly any sound arrives
 */
export function underWay({ mode, link, status, keptMs, keptMaxMs, behindMs, quiet }) {
  const figure = mode === "file" ? "" : ` (${Math.floor(keptMs / 1000)} s)`;
  if (link?.state === "away" && mode === "file") return ["Reconnecting… the file goes on by itself.", ""];
  if (link?.state === "away" && keptMs >= keptMaxMs) return [`Reconnecting… the last ${Math.round(keptMaxMs / 1000)} s of your words are kept`, ""];
  if (link?.state === "away") return ["Reconnecting… your words are kept", figure];
  if (link?.state === "waiting") {
    const text = `The server is full. Trying again in ${Math.max(1, Math.round(link.retryMs / 1000))} s`;
    return mode === "file" ? [`${text}.`, ""] : [`${text}; your words are kept`, figure];
  }
  if (link?.state === "back" && link.lostMs) return [`Back. ${seconds(link.lostMs)} could not be kept; the place is marked.`, ""];
  if (link?.state === "back") return ["Back: nothing was lost.", ""];
  if (status === "draining" && mode === "file") return ["The server is about to restart. The file goes on afterwards.", ""];
  if (STATUS[status]) return [STATUS[status], ""];
  if (mode === "live" && behindMs) return [`The connection is slow: ${Math.round(behindMs / 1000)} s of speech wait to be sent.`, ""];
  return [mode === "live" && quiet ? QUIET : GOING_ON[mode], ""];
}

const CONNECTION = new Set(["lost", "unreachable", "silent", "slow", "ended"]);

/** Whether a problem (or null) means that the server is out of reach. */
export const disconnects = (problem) => CONNECTION.has(problem?.kind);

/**
 * What to say when a session is over.
 * @param {object} end
 * @param {{kind: string} | null} end.problem what ended it, if anything did
 * @param {boolean} end.draining the server is going down
 * @param {boolean} end.cancelled the person broke it off
 * @param {boolean} end.spoken some words were recognized
 * @param {string} [end.file] the file's name; none: the microphone
 * @param {number} [end.doneMs] how much of the file was transcribed
 */
export function afterwards({ problem, draining, cancelled, spoken, file, doneMs = 0 }) {
  const kind = problem?.kind ?? "";
  if (kind === "taken") return "Stopped here. The session goes on in another window.";
  if (disconnects(problem)) return `Disconnected. ${file ? "Choose the file again" : "Press Start"} to try again.`;
  if (kind === "insecure" || kind === "unsupported") return "Choose an audio file to transcribe it.";
  if (kind.startsWith("file-")) return "Choose another file, or press Start and speak.";
  if (problem && file) return `${file} was not transcribed to its end.`;
  if (problem) return kind.startsWith("microphone") ? "The microphone is off. Press Start to try again." : "Stopped early. Press Start to try again.";
  if (draining) return file ? `The server went down: the first ${length(doneMs)} of ${file} are transcribed.` : "The server went down. Press Start in a moment.";
  if (cancelled) return file ? `${file}: cancelled.` : GOING_ON.idle;
  return file ? `${file}: ${length(doneMs)} ${spoken ? "transcribed" : "heard, no words"}` : "Stopped. Press Start to go on.";
}

function seconds(ms) {
  return ms < 950 ? `${(ms / 1000).toFixed(1)} s` : `${Math.round(ms / 1000)} s`;
}

// 23 s, 2 min 5 s
function length(ms) {
  const seconds = Math.max(1, Math.round(ms / 1000));
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
