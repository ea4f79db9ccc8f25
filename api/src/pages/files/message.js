// One message: its text, where it came from, what can be done with it.
import { el, say } from "./dom.js";
import { count, millis, plural, rate } from "./format.js";
import { copyText, render } from "./markdown.js";

const FINISHES = { length: "stopped at the most tokens", stopped: "stopped by you", content_filter: "filtered" };

/** An element for `message`; `on` has what its buttons do. */
export function create(message, on) {
  const speaker = el("span", { class: "sr" }, message.role === "user" ? "You" : "The model");
  const node = el("li", { class: `message ${message.role}` }, speaker, el("div", { class: "text" }));
  if (message.role === "assistant") node.append(el("div", { class: "after" }));
  node.on = on;
  return node;
}

/** Shows what has become of it: `state` is `streaming`, `last` or nothing. */
export function update(node, message, state) {
  const text = node.querySelector(".text");
  if (message.role === "user") {
    say(text, message.text);
    return;
  }
  const drawn = `${state}|${message.text.length}|${Boolean(message.meta)}|${message.problem?.title ?? ""}`;
  if (node.drawn === drawn) return;
  node.drawn = drawn;
  if (state === "streaming" && !message.text) {
    text.replaceChildren(el("span", { class: "waiting", role: "img", "aria-label": "waiting for the first word" }, el("i"), el("i"), el("i")));
  } else {
    text.replaceChildren(render(message.text));
    if (state === "streaming") (innermost(text) ?? text).append(el("span", { class: "caret", "aria-hidden": "true" }));
  }
  node.lastChild.replaceChildren(...after(node, message, state).filter(Boolean));
}

/** Where the next word will stand. */
function innermost(text) {
  const last = text.lastElementChild;
  return last?.matches(".code") ? last.querySelector("code") : last?.matches("ul, ol") ? last.lastElementChild : last;
}

function after(node, message, state) {
  if (state === "streaming") return [];
  const { meta, problem } = message;
  return [problem && trouble(node, problem), meta && numbers(meta), actions(node, message, state)];
}

function trouble(node, problem) {
  const buttons = [el("button", { type: "button", class: "button", onclick: () => node.on.again() }, "Try again")];
  if (problem.settings) buttons.push(el("button", { type: "button", class: "button", onclick: () => node.on.settings() }, "Settings"));
  return el("div", { class: "problem", role: "alert" }, el("b", {}, problem.title), el("span", {}, problem.advice), el("span", {}, ...buttons.flatMap((button) => [button, " "])));
}

function numbers({ finish, swarm, usage }) {
  const parts = [];
  if (swarm?.route?.length) {
    const hop = ({ peer, name, blocks }) => el("li", {}, el("span", { class: "hop", data: { tip: `blocks ${blocks}\non ${peer}` } }, el("b", {}, name || String(peer).slice(-8)), ` ${blocks}`));
    parts.push(el("ol", { class: "route", "aria-label": "Route" }, ...swarm.route.map(hop)));
  }
  if (swarm?.tokens_per_second) parts.push(el("span", {}, `${rate(swarm.tokens_per_second)} tokens/s`));
  if (swarm?.time_to_first_token_ms) parts.push(el("span", {}, `first after ${millis(swarm.time_to_first_token_ms)} ms`));
  if (usage?.completion_tokens) parts.push(el("span", {}, plural(usage.completion_tokens, "token")));
  if (swarm?.reused_tokens) parts.push(el("span", { data: { tip: "Servers had kept them from before." } }, `${count(swarm.reused_tokens)} reused`));
  if (swarm?.reroutes) parts.push(el("span", { class: "rerouted", data: { tip: "A server was lost while it wrote; another one went on." } }, `re-routed ${plural(swarm.reroutes, "time")}`));
  if (FINISHES[finish]) parts.push(el("span", {}, FINISHES[finish]));
  return el("div", { class: "meta" }, ...parts);
}

function actions(node, message, state) {
  const buttons = [];
  if (message.text) buttons.push(el("button", { type: "button", class: "button quiet", onclick: (event) => copyText(event.currentTarget, message.text) }, "Copy"));
  if (state === "last" && !message.problem) buttons.push(el("button", { type: "button", class: "button quiet", data: { action: "again" }, onclick: () => node.on.again() }, "Regenerate"));
  return buttons.length ? el("div", { class: "actions" }, ...buttons) : null;
}
