// The level meter: a strip of bars, the newest at the right, one per 100 ms of sound. Where the system
// asks for less motion it is a single bar that only changes its length.

const STEP_PX = 6;
const BAR_PX = 3;
const FLOOR_DB = -56; // a quiet room
const FULL_DB = -8; // shouting into the microphone

/** Loudness as 0..1 of what the meter shows, from a root mean square of -1..1 samples. */
export function loudness(rms) {
  const db = 20 * Math.log10(Math.max(rms, 1e-6));
  const share = Math.max(0, Math.min(1, (db - FLOOR_DB) / (FULL_DB - FLOOR_DB)));
  return share ** 1.7; // speech moves the bars, not their tips alone
}

export class Meter {
  constructor(element, canvas) {
    this.element = element;
    this.canvas = canvas;
    this.levels = [];
    this.still = window.matchMedia("(prefers-reduced-motion: reduce)");
    new ResizeObserver(() => this.#draw()).observe(element);
    window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.still.addEventListener("change", () => this.#draw());
  }

  add(rms) {
    const level = loudness(rms);
    this.levels.push(level);
    if (this.levels.length > 1000) this.levels.splice(0, 500);
    this.element.setAttribute("aria-valuenow", String(Math.round(level * 100)));
    this.#draw();
  }

  reset() {
    this.levels = [];
    this.element.setAttribute("aria-valuenow", "0");
    this.#draw();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.element;
    const scale = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    const style = getComputedStyle(this.element);
    const [active, quiet] = [style.color, style.getPropertyValue("--line")];
    if (this.still.matches) {
      const level = this.levels.at(-1) ?? 0;
      bar(pen, 0, height / 2 - 6, width, 12, quiet);
      if (level > 0) bar(pen, 0, height / 2 - 6, Math.max(12, width * level), 12, active);
      return;
    }
    const count = Math.floor(width / STEP_PX);
    for (let i = 0; i < count; i += 1) {
      const level = this.levels[this.levels.length - count + i];
      const tall = Math.max(BAR_PX, (level ?? 0) * height);
      bar(pen, i * STEP_PX + (width % STEP_PX), (height - tall) / 2, BAR_PX, tall, level === undefined ? quiet : active);
    }
  }
}

function bar(pen, x, y, width, height, colour) {
  pen.fillStyle = colour;
  pen.beginPath();
  pen.roundRect(x, y, width, height, Math.min(width, height) / 2);
  pen.fill();
}
