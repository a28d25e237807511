// Runs on the audio thread: mixes the microphone to mono, converts it to 16 kHz and hands out PCM16
// in chunks of 100 ms, with the level of each. Ends when told to, after the last sample.
/* global registerProcessor, sampleRate */

import { Resampler, mixDown, toPcm16 } from "./resample.js";

const OUTPUT_HZ = 16000;
const CHUNK_SAMPLES = OUTPUT_HZ / 10;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.resampler = new Resampler(Math.round(sampleRate), OUTPUT_HZ);
    this.chunk = new Float32Array(CHUNK_SAMPLES);
    this.filled = 0;
    this.ended = false;
    this.port.onmessage = ({ data }) => {
      if (data === "end") this.end();
    };
  }

  process([input]) {
    if (this.ended) return false;
    if (input.length > 0) this.take(this.resampler.push(mixDown(input)));
    return true;
  }

  take(samples) {
    let taken = 0;
    while (taken < samples.length) {
      const part = samples.subarray(taken, taken + CHUNK_SAMPLES - this.filled);
      this.chunk.set(part, this.filled);
      this.filled += part.length;
      taken += part.length;
      if (this.filled === CHUNK_SAMPLES) this.send();
    }
  }

  send() {
    const samples = this.chunk.subarray(0, this.filled);
    let peak = 0;
    let square = 0;
    for (const sample of samples) {
      peak = Math.max(peak, Math.abs(sample));
      square += sample * sample;
    }
    const pcm = toPcm16(samples);
    this.port.postMessage({ pcm, peak, rms: Math.sqrt(square / samples.length) }, [pcm]);
    this.filled = 0;
  }

  end() {
    if (this.ended) return;
    this.ended = true;
    this.take(this.resampler.flush());
    if (this.filled > 0) this.send();
    this.port.postMessage({ ended: true });
  }
}

registerProcessor("capture", Capture);
