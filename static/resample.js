// A streaming sample rate converter: a polyphase windowed-sinc low-pass filter that keeps its state
// from block to block, so that cutting the input differently never changes the output.
//
// It is pure (no DOM, no audio graph) and runs in the audio worklet as well as on the page. Output
// sample k is the filtered input at position k * from / to, hence the result is in time with the
// source, and n input samples give ceil(n * to / from) output samples after `flush`.

const STOPBAND_DB = 80;
// The filter passes speech up to this share of the lower Nyquist frequency and is down by
// STOPBAND_DB at that frequency.
const PASSBAND = 0.9;

export class Resampler {
  /**
   * @param {number} fromHz rate of the input, a positive whole number
   * @param {number} toHz rate of the output, a positive whole number
   */
  constructor(fromHz, toHz) {
    for (const rate of [fromHz, toHz]) {
      if (!Number.isInteger(rate) || rate < 1) throw new RangeError(`A sample rate of ${rate} Hz cannot be converted.`);
    }
    const divisor = gcd(fromHz, toHz);
    this.up = toHz / divisor;
    this.down = fromHz / divisor;
    this.filter = this.up === this.down ? null : design(this.up, this.down);
    this.half = this.filter ? this.filter.half : 0;
    // `held` starts with the silence before the first sample that the filter looks back on;
    // `heldFrom` is the input index of held[0].
    this.held = new Float32Array(this.half);
    this.heldFrom = -this.half;
    this.produced = 0;
  }

  /** Takes mono samples; returns what can be said of the output so far (a Float32Array). */
  push(samples) {
    if (!this.filter) return Float32Array.from(samples);
    const joined = new Float32Array(this.held.length + samples.length);
    joined.set(this.held);
    joined.set(samples, this.held.length);
    this.held = joined;
    return this.#produce(this.heldFrom + joined.length - this.half);
  }

  /** The source has ended: returns the rest of the output. The converter is used up. */
  flush() {
    if (!this.filter) return new Float32Array(0);
    const end = this.heldFrom + this.held.length;
    const padded = new Float32Array(this.held.length + this.half);
    padded.set(this.held);
    this.held = padded;
    return this.#produce(end);
  }

  // Every output whose position lies before input index `limit`.
  #produce(limit) {
    const { up, down, half, held } = this;
    const { taps, width } = this.filter;
    const count = Math.max(0, Math.ceil((limit * up) / down) - this.produced);
    const output = new Float32Array(count);
    for (let i = 0; i < count; i += 1) {
      const position = (this.produced + i) * down;
      const centre = Math.floor(position / up);
      const row = (position - centre * up) * width;
      const first = centre - half + 1 - this.heldFrom;
      let sum = 0;
      for (let j = 0; j < width; j += 1) sum += taps[row + j] * held[first + j];
      output[i] = sum;
    }
    this.produced += count;
    const next = Math.floor((this.produced * down) / up) - half + 1;
    const spent = Math.min(held.length, Math.max(0, next - this.heldFrom));
    this.held = held.slice(spent);
    this.heldFrom += spent;
    return output;
  }
}

/** Floating point samples (-1..1) as 16-bit little-endian PCM; what is louder is clipped. */
export function toPcm16(samples) {
  const bytes = new DataView(new ArrayBuffer(samples.length * 2));
  for (let i = 0; i < samples.length; i += 1) {
    const value = Math.max(-32768, Math.min(32767, Math.round(samples[i] * 32768)));
    bytes.setInt16(i * 2, value, true);
  }
  return bytes.buffer;
}

/** The mean of several channels of equal length, as one. */
export function mixDown(channels) {
  if (channels.length === 1) return channels[0];
  const mono = new Float32Array(channels[0].length);
  for (const channel of channels) {
    for (let i = 0; i < mono.length; i += 1) mono[i] += channel[i] / channels.length;
  }
  return mono;
}

// One row of taps for each of the `up` places an output can have between two inputs.
function design(up, down) {
  const lower = Math.min(1, up / down); // the lower Nyquist frequency, in units of the input's
  const transition = (lower * (1 - PASSBAND)) / 2; // in cycles per input sample
  const half = Math.ceil((STOPBAND_DB - 7.95) / (14.36 * transition) / 2);
  const cutoff = lower * (1 + PASSBAND) * 0.5; // the middle of the transition band
  const beta = 0.1102 * (STOPBAND_DB - 8.7);
  const width = half * 2;
  const taps = new Float32Array(up * width);
  for (let phase = 0; phase < up; phase += 1) {
    let sum = 0;
    for (let j = 0; j < width; j += 1) {
      const distance = phase / up - (j - half + 1);
      const tap = sinc(cutoff * distance) * kaiser(distance / half, beta);
      taps[phase * width + j] = tap;
      sum += tap;
    }
    // Each row passes a constant unchanged, so the rows do not modulate the signal.
    for (let j = 0; j < width; j += 1) taps[phase * width + j] /= sum;
  }
  return { taps, width, half };
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(Math.PI * x) / (Math.PI * x);
}

function kaiser(x, beta) {
  return Math.abs(x) >= 1 ? 0 : bessel(beta * Math.sqrt(1 - x * x)) / bessel(beta);
}

// The modified Bessel function of order zero, by its power series.
function bessel(x) {
  let sum = 1;
  let term = 1;
  for (let k = 1; term > sum * 1e-12; k += 1) {
    term *= (x / (2 * k)) ** 2;
    sum += term;
  }
  return sum;
}

function gcd(a, b) {
  return b === 0 ? a : gcd(b, a % b);
}
