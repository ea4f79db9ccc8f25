// All servers with all their numbers; the same for those who do not see the map.
import { byId, el, reconcile, say, set, sign } from "./dom.js";
import { label, millis, range, rate, span } from "./format.js";
import { meter, updateMeter } from "./map_blocks.js";

const COLUMNS = [
  { name: "Server", by: label },
  { name: "State", by: (server) => server.state },
  { name: "Blocks", by: (server) => server.blocks[0] * 1000 + server.blocks[1], num: true },
  { name: "Steps/s", by: (server) => server.tokens_per_second, num: true },
  { name: "RTT ms", by: (server) => server.rtt_ms ?? Infinity, num: true },
  { name: "KV room free", by: (server) => server.free_tokens },
  { name: "Sessions", by: (server) => server.sessions, num: true },
  { name: "Queue ms", by: (server) => server.queue_us, num: true },
  { name: "Edges", by: (server) => server.edges?.cost_ms ?? Infinity, num: true },
  { name: "Format", by: (server) => server.numeric_class },
  { name: "Up", by: (server) => server.uptime_seconds ?? -1, num: true },
  { name: "Release", by: (server) => server.version },
];

const sorting = { column: 2, down: false };
let shown = null;

export function drawTable(model) {
  shown = model;
  const table = byId("servers");
  if (!table.tHead) table.append(header(), el("tbody"));
  [...table.tHead.rows[0].cells].forEach((cell, column) => {
    set(cell, { "aria-sort": column === sorting.column ? (sorting.down ? "descending" : "ascending") : null });
  });
  reconcile(table.tBodies[0], sorted(model?.servers ?? []), (server) => server.peer_id, row, update);
  const versions = new Map();
  for (const { version } of model?.servers ?? []) versions.set(version, (versions.get(version) ?? 0) + 1);
  say(byId("versions"), [...versions].map(([version, servers]) => `${version} × ${servers}`).join(" · "));
}

function header() {
  const cell = ({ name, num }, column) =>
    el("th", { scope: "col", class: num ? "num" : "" }, el("button", { type: "button", onclick: () => sort(column) }, name));
  return el("thead", {}, el("tr", {}, ...COLUMNS.map(cell)));
}

function sort(column) {
  sorting.down = sorting.column === column && !sorting.down;
  sorting.column = column;
  drawTable(shown);
}

function sorted(servers) {
  const { by } = COLUMNS[sorting.column];
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return [...servers].sort((a, b) => (sorting.down ? -1 : 1) * compare(by(a), by(b)) || label(a).localeCompare(label(b)));
}

function row() {
  const cell = ({ num }) => el("td", { class: num ? "num" : "" });
  const row = el("tr", {}, el("th", { scope: "row" }), ...COLUMNS.slice(1).map(cell));
  row.cells[1].append(el("span", { class: "state" }, sign("serving"), el("span")));
  row.cells[5].append(meter());
  return row;
}

function update(row, server) {
  const texts = {
    0: label(server),
    2: range(server.blocks),
    3: rate(server.tokens_per_second),
    4: millis(server.rtt_ms),
    6: String(server.sessions),
    7: (server.queue_us / 1000).toFixed(1),
    8: server.edges ? (server.edges.cost_ms === null ? "offered" : `${millis(server.edges.cost_ms)} ms`) : "–",
    9: `${server.weight_format}${server.kv_bits ? `, KV ${server.kv_bits} bit` : ""}`,
    10: span(server.uptime_seconds),
    11: server.version,
  };
  for (const [column, text] of Object.entries(texts)) say(row.cells[column], text);
  row.cells[0].title = server.peer_id;
  row.cells[9].title = server.numeric_class;
  const state = row.cells[1].firstElementChild;
  if (state.dataset.state !== server.state) {
    state.dataset.state = server.state;
    state.replaceChild(sign(server.state), state.firstChild);
  }
  say(state.lastChild, server.state);
  state.title = server.silence ?? "";
  updateMeter(row.cells[5].firstElementChild, server);
}
