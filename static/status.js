// The status page: asks /status.json every two seconds, and shows what it says. It keeps nothing but the key, in this tab.

const EVERY_MS = 2000;
const PATIENCE_MS = 8000;
const KEY = "riva-gateway status key";
const NAMES = { first_partial: "First partial", partial: "Partials", final: "Finals" };
const FACES = {
  native: "Native", end: "END dialect", realtime: "Realtime", "realtime nim": "Realtime (NIM)",
  "realtime openai": "Realtime (OpenAI)", "realtime openai-beta": "Realtime (OpenAI beta)", sagemaker: "SageMaker",
  riva_grpc: "Riva gRPC", openai: "OpenAI HTTP", rest: "Transcription REST", job: "Jobs",
};
const HEALTH = { up: ["up", "good"], down: ["down", "bad"], loading: ["loading", "warn"], unknown: ["not asked yet", ""] };
const BREAKER = { closed: ["closed", "good"], open: ["open", "bad"], half_open: ["half open", "warn"] };
const JOBS = {
  pending: "Waiting", processing: "Being recognized", completed: "Completed", failed: "Failed", cancelled: "Cancelled",
};

const at = (id) => document.getElementById(id);

let timer = 0;
let asking = false;
let heardAt = 0;

// Small pieces -------------------------------------------------------------------------------------

function put(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text; // what did not change is not read out again
}

function cell(content, kind = "td", name = "") {
  const element = document.createElement(kind);
  if (kind === "th") element.scope = "row";
  if (name) element.className = name;
  element.append(content);
  return element;
}

function tag([words, tone]) {
  const element = document.createElement("span");
  element.className = "tag";
  element.dataset.tone = tone;
  element.textContent = words;
  return element;
}

function row(...cells) {
  const element = document.createElement("tr");
  element.append(...cells);
  return element;
}

function pair(name, value) {
  const element = document.createElement("div");
  element.append(cell(name, "dt"), cell(value, "dd"));
  return element;
}

const whole = (number) => number.toLocaleString("en");
const inMs = (ms) => (ms === null ? "–" : `${whole(ms)} ms`);
const percent = (share) => `${(Math.floor(share * 1000) / 10).toLocaleString("en")} %`;
const plain = (name) => name.replaceAll("_", " ");
const faceName = (face) => FACES[face] ?? plain(face);

function duration(seconds) {
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = parts.findIndex(([size]) => seconds >= size);
  if (first < 0) return "0 s";
  let left = seconds;
  return parts
    .slice(first, first + 2)
    .map(([size, unit]) => {
      const number = Math.floor(left / size);
      left -= number * size;
      return number ? `${number} ${unit}` : "";
    })
    .filter(Boolean)
    .join(" ");
}

// What is shown ------------------------------------------------------------------------------------

function showState({ level, words }) {
  at("state-card").dataset.level = level;
  at("state-card").hidden = false;
  put("words", words);
  document.title = `${words.split(":")[0]} – riva-gateway`;
}

function showStreams({ in_use: inUse, limit, by_face: byFace }) {
  put("in-use", whole(inUse));
  put("limit", `of ${whole(limit)} in use`);
  const places = at("places");
  places.max = limit;
  places.value = inUse;
  places.toggleAttribute("data-full", inUse > limit * 0.8);
  const faces = Object.entries(byFace);
  at("faces").replaceChildren(
    ...(faces.length ? faces.map(([face, count]) => pair(faceName(face), whole(count))) : [pair("Nobody speaks now", "")]),
  );
}

function inTime({ in_time: share, objective_ms: objective }) {
  if (objective === null || share === null) return "–";
  return tag([percent(share), share >= 0.95 ? "good" : "bad"]);
}

function showLatencies(latencies) {
  at("latencies").replaceChildren(
    ...Object.entries(latencies).map(([name, told]) =>
      row(
        cell(NAMES[name] ?? plain(name), "th"),
        cell(inMs(told.p50_ms), "td", "number"),
        cell(inMs(told.p95_ms), "td", "number"),
        cell(told.objective_ms === null ? "–" : `95 % within ${whole(told.objective_ms)} ms`),
        cell(inTime(told), "td", "number"),
        cell(whole(told.count), "td", "number"),
      ),
    ),
  );
}

function showEndpoints(endpoints) {
  at("endpoints-panel").hidden = endpoints.length === 0;
  at("endpoints").replaceChildren(
    ...endpoints.map((one) =>
      row(
        cell(one.name, "th"),
        cell(tag(HEALTH[one.state] ?? [plain(one.state), ""])),
        cell(tag(BREAKER[one.breaker] ?? [plain(one.breaker), ""])),
        cell(one.limit === null ? whole(one.streams) : `${whole(one.streams)} of ${whole(one.limit)}`, "td", "number"),
        cell(one.detail || "–", "td", "grow"),
      ),
    ),
  );
}

function showErrors(errors, now) {
  at("no-errors").hidden = errors.length > 0;
  at("errors-table").hidden = errors.length === 0;
  at("errors").replaceChildren(
    ...errors.map((one) => {
      const ago = Math.max(0, Math.round(now - one.last_s));
      const what = document.createElement("span");
      const code = document.createElement("code");
      code.textContent = one.code;
      what.append(one.refused ? "refused: " : "ended: ", code);
      const time = document.createElement("time");
      time.dateTime = new Date(one.last_s * 1000).toISOString();
      time.textContent = `${duration(ago)} ago`;
      return row(
        cell(time),
        cell(faceName(one.face)),
        cell(what),
        cell(tag(one.ours ? ["gateway or recognizer", "bad"] : ["client", ""]), "td", "grow"),
        cell(whole(one.count), "td", "number"),
      );
    }),
  );
}

function showJobs(jobs) {
  at("jobs-panel").hidden = !jobs;
  if (!jobs) return;
  at("jobs").replaceChildren(
    ...Object.entries(jobs).map(([state, count]) => pair(JOBS[state] ?? plain(state), whole(count))),
  );
}

function showRollout(rollout) {
  at("rollout-panel").hidden = !rollout;
  if (!rollout) return;
  const since = rollout.changed_at ? ` Since ${new Date(rollout.changed_at).toLocaleString()}.` : "";
  put("rollout-words", rollout.words + since);
  put("rollout-canary", rollout.canary);
}

function show(status) {
  heardAt = Date.now();
  at("key-form").hidden = true;
  at("board").hidden = false;
  at("board").removeAttribute("data-stale");
  showState(status.state);
  put("about", `Version ${status.version} · ${status.engine} · up for ${duration(status.uptime_s)}`);
  showStreams(status.streams);
  showLatencies(status.latencies);
  showEndpoints(status.endpoints);
  showErrors(status.errors, status.unix_s);
  showJobs(status.jobs);
  showRollout(status.rollout);
  connection("ready", "Live");
  put("as-of", `As of ${new Date(heardAt).toLocaleTimeString()}; this page asks every two seconds.`);
}

function connection(state, words) {
  at("connection").dataset.state = state;
  put("connection-text", words);
}

function showAway(words) {
  const since = heardAt ? ` for ${duration(Math.round((Date.now() - heardAt) / 1000))}` : "";
  showState({ level: "away", words: `${words}${since}` });
  at("board").toggleAttribute("data-stale", true);
  connection("lost", "No answer");
}

function askForKey(words) {
  at("board").hidden = true;
  at("state-card").hidden = true;
  if (at("key-form").hidden) {
    at("key-form").hidden = false;
    at("key").focus();
  }
  if (words) put("key-words", words);
  connection("idle", "Needs a key");
}

// Asking -------------------------------------------------------------------------------------------

function kept() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function keep(key) {
  try {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing: the key is asked for after each reload.
  }
  current = key;
}

let current = kept();

async function ask() {
  if (asking) return;
  asking = true;
  let again = true;
  try {
    const headers = current ? { Authorization: `Bearer ${current}` } : {};
    const response = await fetch("status.json", { headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) });
    if (response.status === 401 || response.status === 403) {
      again = false;
      const words =
        response.status === 403
          ? "This key does not have the scope metrics. Give one that has it."
          : current ? "This key is wrong or has expired. Give another one." : "";
      keep("");
      askForKey(words);
    } else if (response.ok) {
      show(await response.json());
    } else {
      showAway(`The gateway answers with an error (${response.status})`);
    }
  } catch {
    showAway("The gateway does not answer");
  } finally {
    asking = false;
    clearTimeout(timer);
    if (again) timer = setTimeout(() => document.hidden || ask(), EVERY_MS);
  }
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  keep(at("key").value.trim());
  at("key").value = "";
  ask();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && at("key-form").hidden) ask();
});

ask();
