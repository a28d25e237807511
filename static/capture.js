// The microphone, as chunks of 16 kHz mono PCM16.
//
// Echo cancellation, noise suppression and automatic gain are switched off: they are made for the
// ears of a person on a call, gate the beginnings of words and change with the browser, while a
// recognizer is trained on plain sound. What the device hears is what is sent.

import { Problem } from "./problems.js";

const END_TIMEOUT_MS = 2000;

/** Throws a `Problem` when this browser or this address can never give us a microphone. */
export function checkMicrophoneSupport() {
  if (!window.isSecureContext) throw new Problem("insecure");
  if (!navigator.mediaDevices?.getUserMedia || !window.AudioWorkletNode) throw new Problem("unsupported");
}

export class Microphone {
  /**
   * @param {object} on
   * @param {(chunk: {pcm: ArrayBuffer, peak: number, rms: number}) => void} on.chunk every 100 ms
   * @param {(problem: Problem) => void} on.lost the device went away
   */
  constructor(on) {
    this.on = on;
    this.name = "";
  }

  /** Asks for the microphone and starts it. Throws a `Problem` where that fails. */
  async open() {
    checkMicrophoneSupport();
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({
        audio: { channelCount: { ideal: 1 }, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
      });
    } catch (error) {
      throw microphoneProblem(error);
    }
    try {
      const [track] = this.stream.getAudioTracks();
      this.name = track.label;
      track.addEventListener("ended", () => this.on.lost(new Problem("microphone-lost")));
      // At the device's own rate: the worklet's filter is known, a browser's own is not.
      this.context = new AudioContext({ latencyHint: "interactive" });
      await addWorklet(this.context);
      this.node = new AudioWorkletNode(this.context, "capture", { numberOfInputs: 1, numberOfOutputs: 1 });
      this.node.port.onmessage = ({ data }) => this.#receive(data);
      this.context.createMediaStreamSource(this.stream).connect(this.node);
      // Some browsers run a node only when it leads to the speakers; its output is silence.
      this.node.connect(this.context.destination);
      await this.context.resume();
    } catch (error) {
      this.close();
      throw error instanceof Problem ? error : new Problem("microphone-failed", { detail: error.message });
    }
  }

  /** Ends the recording; resolves when its last chunk has been handed out. */
  async finish() {
    if (!this.node) return;
    await new Promise((resolve) => {
      this.ended = resolve;
      setTimeout(resolve, END_TIMEOUT_MS);
      this.node.port.postMessage("end");
    });
    this.close();
  }

  /** Lets go of the microphone at once. */
  close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.node?.disconnect();
    if (this.context && this.context.state !== "closed") this.context.close();
    this.node = null;
  }

  #receive(data) {
    if (data.ended) this.ended?.();
    else if (this.node) this.on.chunk(data);
  }
}

async function addWorklet(context) {
  try {
    await context.audioWorklet.addModule(new URL("./capture-worklet.js", import.meta.url).href);
  } catch {
    // It comes from the server, like the page itself.
    throw new Problem("unreachable", { host: window.location.host });
  }
}

function microphoneProblem(error) {
  switch (error.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new Problem("microphone-refused");
    case "NotFoundError":
    case "OverconstrainedError":
      return new Problem("microphone-missing");
    case "NotReadableError":
    case "AbortError":
      return new Problem("microphone-busy");
    default:
      return new Problem("microphone-failed", { detail: error.message });
  }
}
