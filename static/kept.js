// The audio that may have to be sent again: a bounded memory with one address for each byte, counted
// from the first of the conversation. Pure.

export class KeptAudio {
  constructor() {
    this.chunks = []; // [address of the first byte, bytes], without holes
    this.endBytes = 0; // address after the newest byte
  }

  /** Address of the oldest byte that is still held; the end where nothing is. */
  get startBytes() {
    return this.chunks.length ? this.chunks[0][0] : this.endBytes;
  }

  /** Appends PCM: an ArrayBuffer or a view of bytes. */
  push(pcm) {
    const bytes = pcm instanceof Uint8Array ? pcm : new Uint8Array(pcm);
    if (bytes.byteLength === 0) return;
    this.chunks.push([this.endBytes, bytes]);
    this.endBytes += bytes.byteLength;
  }

  /** Lets go of chunks that lie below an address as a whole. */
  release(address) {
    const free = this.chunks.findIndex(([at, bytes]) => at + bytes.byteLength > address);
    this.chunks.splice(0, free < 0 ? this.chunks.length : free);
  }

  /** Lets go of the oldest chunks until at most `maxBytes` are left, but of nothing from `needed` on. */
  trim(maxBytes, needed = Infinity) {
    this.release(Math.min(this.endBytes - maxBytes, needed));
  }

  /** Up to `largest` bytes from an address on, out of one chunk; null where nothing is held. */
  slice(address, largest) {
    let low = 0;
    let high = this.chunks.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (this.chunks[middle][0] <= address) low = middle;
      else high = middle - 1;
    }
    const [at, bytes] = this.chunks[low] ?? [0, new Uint8Array()];
    if (address < at || address >= at + bytes.byteLength) return null;
    return bytes.subarray(address - at, Math.min(address - at + largest, bytes.byteLength));
  }
}
