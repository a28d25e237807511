// The page's elements: shows a transcript, notices and facts. Decides nothing.

import { clock } from "./captions.js";
import { hasText, pieces, splitPartial } from "./transcript.js";

const MAX_NOTICES = 4;
const NEAR_END_PX = 80;
const FLASH_MS = 1500;
const GAPS = {
  buffer_overrun: "They could not be kept until there was a connection.",
  upstream_lost: "No recognizer could be reached.",
  decode_error: "They could not be read.",
};

export const el = (id) => document.getElementById(id);

/** Shows the finals (only what is new is touched, so that screen readers hear each once) and partials. */
export class TranscriptView {
  constructor() {
    this.page = el("page");
    this.finals = el("finals");
    this.partials = el("partials");
    this.shown = new Map(); // key -> [line, element]
    this.timed = false;
    this.page.addEventListener("keydown", (event) => this.#arrow(event));
    for (const kind of ["pointerover", "focusin"]) this.page.addEventListener(kind, (event) => this.#tip(event.target));
    for (const kind of ["pointerleave", "focusout", "scroll"]) this.page.addEventListener(kind, () => this.#tip(null));
  }

  show(transcript) {
    const follow = this.page.scrollHeight - this.page.scrollTop - this.page.clientHeight < NEAR_END_PX;
    const keys = new Set(transcript.lines.map((line) => line.key));
    for (const [key, [, element]] of this.shown) {
      if (!keys.has(key)) {
        element.remove();
        this.shown.delete(key);
      }
    }
    transcript.lines.forEach((line, i) => {
      const [known, element] = this.shown.get(line.key) ?? [];
      if (known === line) return;
      const fresh = line.kind === "gap" ? gapElement(line) : this.#lineElement(line);
      if (element) element.replaceWith(fresh);
      else this.finals.insertBefore(fresh, this.finals.children[i] ?? null);
      this.shown.set(line.key, [line, fresh]);
    });
    this.partials.replaceChildren(...transcript.partials.filter((partial) => partial.text).map(partialElement));
    el("empty").hidden = transcript.running || transcript.lines.length > 0;
    this.#rove();
    if (follow) this.page.scrollTop = this.page.scrollHeight;
  }

  /** Word times on or off: words become reachable one by one and tell when they were said. */
  setTimed(timed) {
    this.timed = timed;
    this.page.classList.toggle("timed", timed);
    this.#rove();
    if (!timed) this.#tip(null);
  }

  #lineElement(line) {
    const words = pieces(line).map((piece) => {
      if (!piece.word) return document.createTextNode(piece.text);
      const span = make("span", "word", piece.text);
      span.dataset.start = piece.word.start_ms;
      span.dataset.end = piece.word.end_ms;
      if (piece.word.confidence !== null && piece.word.confidence !== undefined) span.dataset.confidence = piece.word.confidence;
      return span;
    });
    const text = make("span", "words");
    text.append(...words);
    if (line.unfinished) text.append(make("span", "note", " (not confirmed)"));
    const row = utterance(line.start_ms, text);
    row.classList.toggle("unfinished", line.unfinished);
    return row;
  }

  // One word at a time is in the tab order; the arrow keys move from there.
  #rove() {
    const words = [...this.finals.getElementsByClassName("word")];
    const active = words.find((word) => word.tabIndex === 0 && word.hasAttribute("tabindex")) ?? words[0];
    for (const word of words) {
      if (!this.timed) word.removeAttribute("tabindex");
      else if ((word === active ? "0" : "-1") !== word.getAttribute("tabindex")) word.tabIndex = word === active ? 0 : -1;
    }
  }

  #arrow(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!this.timed || !step || !event.target.classList.contains("word")) return;
    const words = [...this.finals.getElementsByClassName("word")];
    const next = words[words.indexOf(event.target) + step];
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  }

  #tip(target) {
    const tip = el("tip");
    const word = this.timed && target?.classList?.contains("word") ? target : null;
    document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
    tip.hidden = !word;
    if (!word) return;
    const { start, end, confidence } = word.dataset;
    const sure = confidence === undefined ? "" : `, ${Math.round(confidence * 100)} % sure`;
    tip.textContent = `${seconds(start)} – ${seconds(end)} s${sure}`;
    word.setAttribute("aria-describedby", "tip");
    const box = word.getBoundingClientRect();
    const left = Math.max(8, Math.min(window.innerWidth - tip.offsetWidth - 8, box.left + box.width / 2 - tip.offsetWidth / 2));
    const top = box.top - tip.offsetHeight - 6;
    tip.style.transform = `translate(${Math.round(left)}px, ${Math.round(top < 8 ? box.bottom + 6 : top)}px)`;
  }
}

/** Which of the transcript's tools can be used. */
export function showTools(transcript) {
  const some = hasText(transcript);
  for (const button of document.querySelectorAll("#times, #copy, [data-download]")) button.disabled = !some;
  el("clear").disabled = transcript.running || transcript.lines.length === 0;
}

/** A message above the transcript. `action` is {label, run}; the same title is shown once. */
export function notice({ tone, kind, title, advice, action }) {
  const box = el("notices");
  for (const shown of [...box.children]) if (shown.dataset.title === title) shown.remove();
  while (box.children.length >= MAX_NOTICES) box.firstChild.remove();
  const note = make("div", "notice");
  note.dataset.tone = tone;
  note.dataset.kind = kind;
  note.dataset.title = title;
  note.setAttribute("role", tone === "problem" ? "alert" : "status");
  const words = make("div", "notice-words");
  words.append(make("strong", "", title), make("span", "", advice));
  note.append(words);
  if (action) {
    const button = make("button", "act", action.label);
    button.type = "button";
    button.addEventListener("click", action.run);
    note.append(button);
  }
  const dismiss = make("button", "dismiss", "×");
  dismiss.type = "button";
  dismiss.setAttribute("aria-label", `Dismiss: ${title}`);
  dismiss.addEventListener("click", () => note.remove());
  note.append(dismiss);
  box.append(note);
  if (tone === "problem") note.scrollIntoView({ block: "nearest" });
}

export function clearNotices() {
  el("notices").replaceChildren();
}

/** Says something on a button for a moment. */
export function flash(button, text) {
  button.dataset.text ??= button.textContent;
  button.textContent = text;
  setTimeout(() => {
    button.textContent = button.dataset.text;
  }, FLASH_MS);
}

function partialElement(partial) {
  const [stable, rest] = splitPartial(partial);
  const text = make("span", "words");
  text.append(make("span", "stable", stable), make("span", "rest", rest));
  const row = utterance(null, text);
  row.classList.add("partial");
  return row;
}

function gapElement(line) {
  const length = ((line.end_ms - line.start_ms) / 1000).toFixed(1);
  const times = `${clock(line.start_ms)} – ${clock(line.end_ms)}`;
  const row = utterance(line.start_ms, make("span", "hole", `${times}: ${length} s of sound are missing. ${GAPS[line.cause] ?? ""}`.trim()));
  row.classList.add("gap");
  return row;
}

function utterance(startMs, text) {
  const row = make("p", "utterance");
  row.append(make("span", "at", startMs === null ? "" : clock(startMs)), text);
  return row;
}

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

function seconds(ms) {
  return (ms / 1000).toFixed(2);
}
