// How long words take from the microphone to the page. Pure: the time is an argument.

const KEPT = 3000; // chunks; five minutes of 100 ms

/** Remembers when which part of the audio was captured. */
export class CaptureClock {
  constructor() {
    this.ends = []; // [end of a chunk on the audio clock, moment it was complete], both in ms
  }

  /** A chunk that ends at `endMs` of the audio was complete at `nowMs`. */
  captured(endMs, nowMs) {
    this.ends.push([endMs, nowMs]);
    if (this.ends.length > KEPT) this.ends.shift();
  }

  /** Milliseconds since the chunk that holds `audioMs` was complete, or null where not known. */
  since(audioMs, nowMs) {
    const { ends } = this;
    if (ends.length === 0 || audioMs > ends.at(-1)[0]) return null;
    let low = 0;
    let high = ends.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ends[middle][0] >= audioMs) high = middle;
      else low = middle + 1;
    }
    return Math.max(0, nowMs - ends[low][1]);
  }
}

/** The middle value of some numbers, or null of none. */
export function median(values) {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
