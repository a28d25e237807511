// The key or token that this page shows, where the gateway asks for one. Kept in this tab alone, and gone with it.

const KEPT = "riva-gateway key";
const FITS = /^[\w.~+-]{1,8192}$/; // what a WebSocket's subprotocol can carry

let held = ""; // where the browser lets nothing be kept

/** The key, or "". */
export function key() {
  try {
    return sessionStorage.getItem(KEPT) ?? held;
  } catch {
    return held;
  }
}

/** Keeps a key. False for what cannot be one. */
export function keepKey(value) {
  if (!FITS.test(value)) return false;
  held = value;
  try {
    sessionStorage.setItem(KEPT, value);
  } catch {
    // held until the page is left
  }
  return true;
}

/** What a WebSocket offers beside its own protocol: a browser can set no headers there. */
export const offers = () => (key() ? [`token.${key()}`] : []);

/** Headers for a fetch. */
export const headers = () => (key() ? { Authorization: `Bearer ${key()}` } : {});
