// How texts are generated, and the key: kept in this tab.
import { byId, icon, say, set } from "./dom.js";
import { apiKey, setApiKey } from "./http.js";

const KEY = "swarm-node.settings";
const DEFAULTS = { system: "", temperature: 0.7, max: 512, seed: null };

let settings = { ...DEFAULTS, ...read() };

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  } catch {
    return {};
  }
}

/** The settings as they are now. */
export const current = () => ({ ...settings });

/** Fills the form and listens to it; `keyChanged` is called when there is another key. */
export function startSettings(keyChanged) {
  const panel = byId("settings");
  const button = byId("open-settings");
  const open = (shown) => {
    panel.hidden = !shown;
    set(button, { "aria-expanded": String(shown) });
    if (shown) byId("set-system").focus();
    else button.focus();
  };
  byId("close-settings").append(icon("close"));
  byId("close-settings").addEventListener("click", () => open(false));
  button.addEventListener("click", () => open(panel.hidden));
  panel.addEventListener("keydown", (event) => event.key === "Escape" && open(false));
  const keep = (part) => {
    settings = { ...settings, ...part };
    sessionStorage.setItem(KEY, JSON.stringify(settings));
    show();
  };
  byId("set-system").addEventListener("input", (event) => keep({ system: event.target.value }));
  byId("set-temperature").addEventListener("input", (event) => keep({ temperature: Number(event.target.value) }));
  byId("set-max").addEventListener("change", (event) => keep({ max: whole(event.target.value, 1) ?? DEFAULTS.max }));
  byId("set-seed").addEventListener("change", (event) => keep({ seed: whole(event.target.value, 0) }));
  byId("set-key").value = apiKey();
  byId("set-key").addEventListener("change", (event) => {
    setApiKey(event.target.value.trim());
    keyChanged();
  });
  byId("reset-settings").addEventListener("click", () => keep({ ...DEFAULTS }));
  show();
  return { open };
}

function whole(text, least) {
  const value = Number.parseInt(text, 10);
  return Number.isSafeInteger(value) && value >= least ? value : null;
}

function show() {
  const fields = { "set-system": settings.system, "set-temperature": settings.temperature, "set-max": settings.max, "set-seed": settings.seed ?? "" };
  for (const [id, value] of Object.entries(fields)) {
    const field = byId(id);
    if (field.value !== String(value)) field.value = value;
  }
  say(byId("out-temperature"), settings.temperature === 0 ? "0 (likeliest)" : settings.temperature.toFixed(2));
}
