// Blocks across, servers down: who holds what, and how well each block is served.
import { el, reconcile, say, set, sign } from "./dom.js";
import { count, label, millis, plural, range, rate, short, span } from "./format.js";

/** From so many servers on rows are lower. */
const DENSE = 24;

/** Ticks of the axis, at most. */
const TICKS = 8;

const STATE_WORDS = { serving: "serving", announced: "announced, not asked", joining: "joining", leaving: "leaving", silent: "does not answer" };

/** A bar narrower than this part of the width has no words in it, in percent. */
const WORDS_FROM = 12;

/** From so much on its state is named, too. */
const STATE_FROM = 26;

export function drawBlocks(parent, model) {
  if (!model) {
    parent.replaceChildren(
      el("div", { class: "empty" }, "No model lives in this swarm yet.", el("br"), el("code", {}, "swarm-node serve --model MODEL --bootstrap …")),
    );
    return;
  }
  let lanes = parent.querySelector(".lanes");
  if (!lanes) {
    lanes = el("div", { class: "lanes" }, head(), el("div", { class: "lane-list", role: "list", "aria-label": "Servers and the blocks they host" }));
    lanes.addEventListener("keydown", walk);
    parent.replaceChildren(lanes);
  }
  set(lanes, { vars: { steps: model.blocks } });
  lanes.classList.toggle("dense", model.servers.length > DENSE);
  drawCoverage(lanes, model);
  const servers = [...model.servers].sort((a, b) => a.blocks[0] - b.blocks[0] || a.blocks[1] - b.blocks[1] || label(a).localeCompare(label(b)));
  const list = lanes.querySelector(".lane-list");
  reconcile(list, servers, (server) => server.peer_id, lane, (node, server) => updateLane(node, server, model));
  // One of them is reached by Tab, the others by arrows.
  const bars = [...list.querySelectorAll(".bar")];
  if (bars.length && !bars.some((bar) => bar.tabIndex === 0)) bars[0].tabIndex = 0;
}

function head() {
  return el(
    "div",
    { class: "lane head" },
    el("span", { class: "lane-name" }, "Coverage"),
    el("div", { class: "coverage-cell" }, el("div", { class: "coverage", role: "img" }), el("div", { class: "axis", "aria-hidden": "true" }), el("div", { class: "neck", "aria-hidden": "true" })),
    el("span", { class: "lane-numbers" }, el("b", {}, "steps/s"), "KV room free"),
  );
}

function drawCoverage(lanes, model) {
  const coverage = lanes.querySelector(".coverage");
  const most = Math.max(...model.tokens_per_second, 1e-9);
  const cells = model.replicas.map((replicas, block) => ({ block, replicas, speed: model.tokens_per_second[block] }));
  coverage.classList.toggle("roomy", coverage.clientWidth / model.blocks >= 16);
  set(coverage, { "aria-label": coverageWords(model) });
  reconcile(coverage, cells, (cell) => cell.block, () => el("div", {}, el("span")), (node, { block, replicas, speed }) => {
    set(node, { data: { replicas: Math.min(replicas, 2), tip: `Block ${block}\n${plural(replicas, "server")}, ${rate(speed)} steps/s` }, vars: { part: (100 * speed) / most } });
    say(node.firstChild, String(replicas));
  });
  drawAxis(lanes.querySelector(".axis"), model.blocks);
  drawNeck(lanes.querySelector(".neck"), model);
}

function coverageWords(model) {
  const neck = model.bottleneck;
  const missing = model.missing.length ? `Nobody serves blocks ${model.missing.map(range).join(", ")}.` : "Every block is served.";
  return `${missing}${neck ? ` The bottleneck is blocks ${range(neck.blocks)}: ${plural(neck.replicas, "server")}, ${rate(neck.tokens_per_second)} steps a second.` : ""}`;
}

function drawAxis(axis, blocks) {
  const step = [1, 2, 4, 5, 6, 8, 10, 16, 20, 32, 40, 50, 64, 100].find((step) => blocks / step <= TICKS) ?? 128;
  const ticks = [];
  for (let block = 0; block < blocks; block += step) if (blocks - block >= step * 0.6) ticks.push(block);
  ticks.push(blocks);
  reconcile(axis, ticks, (tick) => tick, (tick) => el("span", {}, String(tick)), (node, tick) => {
    node.style.left = `${(100 * tick) / blocks}%`;
  });
}

function drawNeck(neck, model) {
  const found = model.bottleneck;
  const [start, end] = found?.blocks ?? [0, 0];
  // Everything is as good as everything else.
  if (!found || end - start === model.blocks) {
    neck.replaceChildren();
    return;
  }
  const node = neck.firstElementChild ?? neck.appendChild(el("div", {}, el("span")));
  node.style.left = `${(100 * start) / model.blocks}%`;
  node.style.width = `${(100 * (end - start)) / model.blocks}%`;
  const middle = (start + end) / 2 / model.blocks;
  node.dataset.end = middle < 0.25 ? "left" : middle > 0.75 ? "right" : "";
  say(node.firstElementChild, found.replicas ? `bottleneck ${range(found.blocks)}` : `missing ${range(found.blocks)}`);
}

function lane() {
  return el(
    "div",
    { class: "lane", role: "listitem" },
    el("span", { class: "lane-name" }, sign("serving"), el("span")),
    el("div", { class: "track" }, el("button", { type: "button", class: "bar", tabindex: "-1" }, el("span"))),
    el("span", { class: "lane-numbers" }, el("b"), meter()),
  );
}

export function meter() {
  return el("span", { class: "meter" }, el("i"), el("span"));
}

export function updateMeter(node, server) {
  const part = server.total_tokens ? (100 * server.free_tokens) / server.total_tokens : 0;
  set(node, { vars: { part: part.toFixed(1) } });
  node.toggleAttribute("data-full", part < 10);
  say(node.lastChild, `${short(server.free_tokens)} / ${short(server.total_tokens)}`);
}

function updateLane(node, server, model) {
  const [name, track, numbers] = node.children;
  if (node.dataset.state !== server.state) {
    node.dataset.state = server.state;
    name.replaceChild(sign(server.state), name.firstChild);
  }
  say(name.lastChild, label(server));
  const bar = track.firstElementChild;
  const [start, end] = server.blocks;
  const width = (100 * (Math.min(end, model.blocks) - start)) / model.blocks;
  bar.dataset.state = server.state;
  bar.style.left = `${(100 * start) / model.blocks}%`;
  bar.style.width = `${width}%`;
  bar.dataset.tip = words(server).join("\n");
  set(bar, { "aria-label": `${label(server)}: ${words(server).join(", ")}` });
  const state = server.state === "serving" || width < STATE_FROM ? "" : ` · ${server.state === "silent" ? "no answer" : server.state}`;
  say(bar.firstChild, width < WORDS_FROM ? "" : `${range(server.blocks)}${state}`);
  say(numbers.firstChild, ["serving", "announced"].includes(server.state) ? rate(server.tokens_per_second) : "–");
  updateMeter(numbers.lastChild, server);
}

function words(server) {
  return [
    `${STATE_WORDS[server.state]}, blocks ${range(server.blocks)}`,
    server.silence,
    `${rate(server.tokens_per_second)} steps/s through its blocks`,
    server.rtt_ms !== null && `round trip ${millis(server.rtt_ms)} ms from here`,
    `KV room ${count(server.free_tokens)} of ${plural(server.total_tokens, "token")} free`,
    plural(server.sessions, "session"),
    `${server.numeric_class}${server.edges ? ", offers embedding and head" : ""}`,
    server.uptime_seconds !== null && `up for ${span(server.uptime_seconds)}`,
    `release ${server.version}`,
  ].filter(Boolean);
}

function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step || !event.target.matches(".bar")) return;
  const bars = [...event.currentTarget.querySelectorAll(".bar")];
  const next = bars[bars.indexOf(event.target) + step];
  if (!next) return;
  event.preventDefault();
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}
