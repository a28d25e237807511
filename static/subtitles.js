// The line under the page's name: what goes on now, or how the last session ended. Pure: no DOM.

export const GOING_ON = {
  idle: "Press Start and speak. Your words appear as you say them.",
  starting: "Waiting for the microphone. The browser may ask you to allow it.",
  live: "Listening. Press Stop when you are done.",
  finishing: "Finishing the last words.",
  file: "Transcribing the file.",
};

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
  if (disconnects(problem)) return `Disconnected. ${file ? "Choose the file again" : "Press Start"} to try again.`;
  if (kind === "insecure" || kind === "unsupported") return "Choose an audio file to transcribe it.";
  if (kind.startsWith("file-")) return "Choose another file, or press Start and speak.";
  if (problem && file) return `${file} was not transcribed to its end.`;
  if (problem) return kind.startsWith("microphone") ? "The microphone is off. Press Start to try again." : "Stopped early. Press Start to try again.";
  if (draining) return file ? `The server went down: the first ${length(doneMs)} of ${file} are transcribed.` : "The server went down. Press Start in a moment.";
  if (cancelled) return file ? `${file}: cancelled.` : GOING_ON.idle;
  return file ? `${file}: ${length(doneMs)} ${spoken ? "transcribed" : "heard, no words"}` : "Stopped. Press Start to go on.";
}

// 23 s, 2 min 5 s
function length(ms) {
  const seconds = Math.max(1, Math.round(ms / 1000));
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}
