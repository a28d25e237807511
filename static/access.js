// Asks for a key, where the gateway wants one or another one.

import { keepKey, key } from "./key.js";
import { el, make } from "./view.js";

const KEPT = "It stays in this tab, and is forgotten when you close it.";

/** Shows the form; `again` runs when there is a key. */
export function askForKey(again) {
  el("access")?.remove();
  const title = make("strong");
  const advice = make("span");
  const tell = (what, todo) => {
    title.textContent = what;
    advice.textContent = todo;
  };
  if (key()) tell("The key was not accepted", `It is wrong, or has expired. Paste another one. ${KEPT}`);
  else tell("This gateway asks for a key", `Paste an API key or a token. ${KEPT}`);
  const words = make("label", "notice-words");
  const field = make("input");
  const button = make("button", "act", "Use this key");
  const form = make("form", "notice access");
  form.id = "access";
  form.dataset.kind = "access";
  Object.assign(field, { type: "password", id: "access-key", autocomplete: "off", spellcheck: false, required: true });
  words.htmlFor = field.id;
  words.append(title, advice);
  form.append(words, field, button);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!keepKey(field.value.trim())) {
      tell("This is not a key", "A key or token has letters, digits, dots, dashes and underscores only. Copy it again, whole.");
      return;
    }
    form.remove();
    again?.();
  });
  el("notices").append(form);
  field.focus();
}
