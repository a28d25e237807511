// How texts are joined: with a blank, or with none in scripts that are written without. Pure; the same
// rules as the library's `asr.transcript`.

const UNSPACED_LANGUAGES = new Set(["zh", "cmn", "yue", "wuu", "ja", "th", "lo", "km", "my"]);
const UNSPACED =
  /[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3000-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff01-\uff0f\uff1a-\uff20\u{20000}-\u{3ffff}]/u;

/** Whether a character belongs to a script that is written without blanks between words. */
export function isUnspaced(character) {
  return UNSPACED.test(character);
}

/** What stands between two texts: a blank or nothing. */
export function seam(left, right, language = "") {
  if (!left || !right) return "";
  const unspaced = Number(isUnspaced(Array.from(left).at(-1))) + Number(isUnspaced(Array.from(right)[0]));
  const mostly = UNSPACED_LANGUAGES.has(language.split("-")[0].toLowerCase());
  return unspaced === 2 || (unspaced === 1 && mostly) ? "" : " ";
}

/** Texts as one. */
export function join(texts, language = "") {
  return texts
    .map((text) => text.trim())
    .filter(Boolean)
    .reduce((left, right) => left + seam(left, right, language) + right, "");
}

/** A text in one line, with single blanks. */
export function flat(text) {
  return text.split(/\s+/).filter(Boolean).join(" ");
}
