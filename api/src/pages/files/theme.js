// Light, dark, or as the system has it.
import { byId, icon, set } from "./dom.js";

const KEY = "swarm-node.theme";
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const WORDS = { auto: "as the system has them", light: "light", dark: "dark" };
const ICON = { auto: "auto", light: "sun", dark: "moon" };

export function startTheme() {
  const button = byId("theme");
  const show = (theme) => {
    if (theme === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    set(button, { "aria-label": `Colours: ${WORDS[theme]}`, data: { tip: `Colours: ${WORDS[theme]}` } });
    button.replaceChildren(icon(ICON[theme]));
  };
  const kept = localStorage.getItem(KEY);
  let theme = kept in NEXT ? kept : "auto";
  show(theme);
  button.addEventListener("click", () => {
    theme = NEXT[theme];
    localStorage.setItem(KEY, theme);
    show(theme);
  });
}
