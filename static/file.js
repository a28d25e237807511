// An audio file, decoded by the browser and sent to the recognizer as fast as that can take it.
//
// The browser decodes at the file's own rate and our filter converts it: browsers' own converters let
// through a good part of what lies above 8 kHz, where it turns into noise.

import { Problem } from "./problems.js";
import { Resampler, mixDown, toPcm16 } from "./resample.js";
import { BYTES_PER_MS } from "./session.js";

const OUTPUT_HZ = 16000;
const USUAL_HZ = 48000;
const MAX_FILE_MB = 300;
const BLOCK_S = 0.5;
const MAX_AHEAD_MS = 10000; // sent and not yet read by the server
const MAX_WAITING_MS = 8000; // given to the session and not yet on its way
const POLL_MS = 100; // how long a connection needs has no event

/** Decodes a file. Throws a `Problem`. */
export async function decodeFile(file) {
  const { name } = file;
  if (file.size === 0) throw new Problem("file-empty", { name });
  if (file.size > MAX_FILE_MB * 1e6) {
    throw new Problem("file-large", { name, mb: Math.round(file.size / 1e6), limit: MAX_FILE_MB });
  }
  let audio;
  try {
    const bytes = await file.arrayBuffer();
    audio = await contextAt(statedRate(bytes)).decodeAudioData(bytes);
  } catch {
    throw new Problem("file-undecodable", { name });
  }
  if (audio.length === 0) throw new Problem("file-empty", { name });
  return new Recording(audio);
}

/** Decoded audio; `blocks` are its parts as 16 kHz mono PCM16, converted when they are asked for. */
export class Recording {
  constructor(audio) {
    this.audio = audio;
    this.totalMs = Math.ceil(audio.duration * 1000);
  }

  *blocks() {
    const { audio } = this;
    const rate = Math.round(audio.sampleRate);
    const channels = Array.from({ length: audio.numberOfChannels }, (_, i) => audio.getChannelData(i));
    const resampler = new Resampler(rate, OUTPUT_HZ);
    const step = Math.ceil(rate * BLOCK_S);
    for (let at = 0; at < audio.length; at += step) {
      yield toPcm16(resampler.push(mixDown(channels.map((channel) => channel.subarray(at, at + step)))));
    }
    yield toPcm16(resampler.flush());
  }
}

/**
 * Streams a recording through a session and then stops it. Never runs far ahead of the server, and
 * returns when everything is sent or the session is over.
 */
export async function streamFile(recording, session) {
  for (const block of recording.blocks()) {
    if (!(await mayGoOn(session))) return;
    session.send(block);
  }
  session.stop();
}

// Waits until the session takes more audio; false when it never will.
async function mayGoOn(session) {
  while (session.state !== "open" || session.sentMs - session.receivedMs > MAX_AHEAD_MS || session.waitingMs > MAX_WAITING_MS) {
    if (session.state === "stopping" || session.state === "ended") return false;
    await session.nextNews(POLL_MS);
  }
  return true;
}

function contextAt(rate) {
  try {
    return new OfflineAudioContext(1, 1, rate);
  } catch {
    return new OfflineAudioContext(1, 1, USUAL_HZ); // a rate that this browser does not work at
  }
}

/** The sample rate in a WAV or FLAC header; 48 kHz, which most others have, where it is not told. */
export function statedRate(bytes) {
  const view = new DataView(bytes, 0, Math.min(bytes.byteLength, 4096));
  const tag = (at) => (at + 4 <= view.byteLength ? view.getUint32(at) : 0);
  if (tag(0) === 0x66_4c_61_43 && view.byteLength >= 22) return view.getUint32(18) >>> 12; // fLaC
  if (tag(0) !== 0x52_49_46_46 || tag(8) !== 0x57_41_56_45) return USUAL_HZ; // RIFF, WAVE
  for (let at = 12; at + 16 <= view.byteLength; ) {
    if (tag(at) === 0x66_6d_74_20) return view.getUint32(at + 12, true); // fmt
    const size = view.getUint32(at + 4, true);
    at += 8 + size + (size % 2);
  }
  return USUAL_HZ;
}
