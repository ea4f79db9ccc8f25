// The map of the swarm: figures, alarms, and the parts below them, drawn anew with each look.
import { byId, el, reconcile, say, set, sign } from "./dom.js";
import { ago, bytes, plural, range, rate, short } from "./format.js";
import { drawBlocks } from "./map_blocks.js";
import { drawRoundTrips, drawTimeline } from "./map_side.js";
import { drawTable } from "./map_table.js";

const STATES = [
  ["serving", "serving"],
  ["joining", "joining"],
  ["leaving", "leaving"],
  ["silent", "no answer"],
  ["announced", "not asked"],
];
const ALARM_WORDS = { critical: "Alarm", warning: "Warning", info: "Note" };

let chosen = null;

export function startMap(live) {
  byId("legend").replaceChildren(...STATES.map(([state, word]) => el("li", {}, sign(state), word)));
  byId("map-model").addEventListener("change", (event) => {
    chosen = event.target.value;
    draw(live);
  });
  live.addEventListener("change", () => draw(live));
  live.addEventListener("happened", ({ detail }) => {
    drawTimeline(live);
    say(byId("live-event"), detail.message);
  });
  addEventListener("hashchange", () => draw(live));
  setInterval(() => !document.hidden && !byId("view-map").hidden && drawTimeline(live), 5000);
}

function draw(live) {
  const { overview } = live;
  if (!overview || byId("view-map").hidden) return;
  pickModel(overview);
  const model = overview.models.find((model) => model.model_id === chosen) ?? overview.models[0];
  byId("view-map").classList.toggle("stale", !live.connected);
  const from = `seen from ${overview.seen_by.peer_id.slice(-8)}`;
  const when = live.connected ? "live" : `not connected (${live.problem}); as it was ${ago(overview.at_unix_ms)}`;
  say(byId("map-sub"), `${overview.swarm} · ${from} · ${when}`);
  say(byId("map-title"), model ? model.name : "The swarm");
  drawAlarms(overview, model);
  drawTimeline(live);
  drawStats(model);
  drawBlocks(byId("blocks"), model);
  drawTable(model);
  drawRoundTrips(overview, model);
}

function pickModel(overview) {
  const select = byId("map-model");
  byId("map-picker").hidden = overview.models.length < 2;
  reconcile(select, overview.models, (model) => model.model_id, (model) => el("option", { value: model.model_id }), (option, model) => {
    say(option, model.name);
  });
  if (!overview.models.some((model) => model.model_id === chosen)) chosen = overview.models[0]?.model_id ?? null;
  if (chosen && select.value !== chosen) select.value = chosen;
}

function drawAlarms(overview, model) {
  const alarms = overview.alarms.filter((alarm) => !model || alarm.model_id === model.model_id);
  const key = (alarm) => `${alarm.kind} ${alarm.severity}`;
  reconcile(byId("alarms"), alarms, key, () => el("div", { class: "alarm" }, el("b"), el("span")), (node, alarm) => {
    node.dataset.severity = alarm.severity;
    node.dataset.kind = alarm.kind;
    say(node.children[0], ALARM_WORDS[alarm.severity]);
    say(node.children[1], alarm.message);
  });
}

function drawStats(model) {
  const stats = model ? figures(model) : [];
  byId("stats").hidden = !stats.length;
  const create = () => el("div", { class: "stat" }, el("div", { class: "what" }), el("div", { class: "figure" }, el("span"), el("small")), el("div", { class: "more" }));
  reconcile(byId("stats"), stats, (stat) => stat.what, create, (node, { what, figure, unit, more, state }) => {
    set(node, { data: { state: state ?? "" } });
    say(node.querySelector(".what"), what);
    say(node.querySelector(".figure span"), figure);
    say(node.querySelector(".figure small"), unit ?? "");
    say(node.querySelector(".more"), more ?? "");
    node.title = more ?? "";
  });
}

function figures(model) {
  const serving = model.servers.filter((server) => ["serving", "announced"].includes(server.state));
  const missing = model.missing.reduce((sum, [start, end]) => sum + end - start, 0);
  const free = serving.reduce((sum, server) => sum + server.free_tokens, 0);
  const total = serving.reduce((sum, server) => sum + server.total_tokens, 0);
  const sessions = serving.reduce((sum, server) => sum + server.sessions, 0);
  const neck = model.bottleneck;
  const formats = [...new Set(model.servers.map((server) => server.weight_format))];
  const others = model.servers.length - serving.length;
  return [
    { what: "Servers", figure: short(serving.length), unit: "serving", more: others ? `${plural(others, "other")} listed` : formats.join(", ") },
    {
      what: "Blocks served",
      figure: `${model.blocks - missing}/${model.blocks}`,
      more: missing ? `missing: ${model.missing.map(range).join(", ")}` : coverageWords(model),
      state: missing ? "bad" : "",
    },
    neck && {
      what: "Bottleneck",
      figure: rate(neck.tokens_per_second),
      unit: "steps/s",
      more: `blocks ${range(neck.blocks)}, ${plural(neck.replicas, "server")}`,
      state: neck.replicas ? "" : "bad",
    },
    { what: "KV room free", figure: short(free), unit: "tokens", more: `of ${short(total)} on all servers` },
    { what: "Sessions", figure: short(sessions), more: sessions ? "open on all servers" : "nobody is here now" },
    model.wire && {
      what: "A token on a link",
      figure: bytes(model.wire.exact_bytes),
      unit: model.wire.element,
      more: `int8: ${bytes(model.wire.int8_bytes)}`,
    },
  ].filter(Boolean);
}

function coverageWords(model) {
  const fewest = Math.min(...model.replicas);
  return fewest > 1 ? `each at least ${fewest} times` : `${plural(model.replicas.filter((count) => count === 1).length, "block")} once only`;
}

