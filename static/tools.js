// The transcript on its way out of the page: to the clipboard, or as a file.

import { FORMATS, toText } from "./captions.js";

const RELEASE_MS = 10000;

/** Copies the transcript's text. Throws where the browser refuses. */
export async function copyText(transcript) {
  const text = toText(transcript);
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  // Plain http on another host than localhost has no clipboard interface.
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  if (!done) throw new Error("refused");
}

/** Hands the transcript to the browser as a file; `format` is a key of FORMATS. */
export function download(transcript, format) {
  const { type, make } = FORMATS[format];
  const url = URL.createObjectURL(new Blob([make(transcript)], { type: `${type};charset=utf-8` }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `transcript.${format}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), RELEASE_MS);
}
