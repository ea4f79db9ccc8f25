// What has happened, and how far servers are apart.
import { byId, el, reconcile, say, set, sign } from "./dom.js";
import { ago, clock, label, millis } from "./format.js";

/** Events that are shown. */
const MOST_EVENTS = 200;

/** Up to so many servers their round trips are a matrix; beyond, a list of the slowest. */
const MATRIX = 14;

/** Round trips in that list. */
const MOST_LINKS = 40;

const SIGNS = {
  joined: ["plus", "joining"],
  serving: ["serving", "serving"],
  returned: ["serving", "serving"],
  whole: ["serving", "serving"],
  model_appeared: ["plus", "joining"],
  moved: ["arrow", "joining"],
  leaving: ["leaving", "leaving"],
  left: ["minus", "leaving"],
  lost: ["silent", "silent"],
  broken: ["silent", "silent"],
  model_gone: ["silent", "silent"],
};

export function drawTimeline(live) {
  const now = Date.now();
  if (live.since) say(byId("since"), `since ${clock(live.since)}`);
  const list = byId("timeline");
  const events = live.events.slice(-MOST_EVENTS).reverse();
  if (!events.length) {
    if (!list.querySelector(".quiet")) list.replaceChildren(el("li", { class: "quiet" }, "Nothing has happened yet. Joins, losses and moves appear here."));
    return;
  }
  const create = (event) => {
    const [shape, state] = SIGNS[event.kind] ?? ["announced", ""];
    const item = el("li", { class: event.fresh ? "new" : "" }, sign(shape, state), el("div", {}, el("p", {}, event.message), el("time", { datetime: new Date(event.at_unix_ms).toISOString() })));
    item.dataset.kind = event.kind;
    return item;
  };
  reconcile(list, events, (event) => event.sequence, create, (item, event) => {
    say(item.querySelector("time"), `${clock(event.at_unix_ms)} · ${ago(event.at_unix_ms, now)}`);
  });
}

export function drawRoundTrips(overview, model) {
  const parent = byId("rtt");
  const servers = model?.servers ?? [];
  if (!servers.length) {
    parent.replaceChildren(el("p", { class: "rtt-note" }, "No servers."));
  } else if (servers.length <= MATRIX) matrix(parent, overview, model);
  else links(parent, model);
}

function matrix(parent, overview, model) {
  const known = new Map(model.round_trips.map((trip) => [`${trip.from} ${trip.to}`, trip.rtt_ms]));
  const here = overview.seen_by.peer_id;
  const others = model.servers.filter((server) => server.peer_id !== here);
  const rtt = (from, to) => (from === here ? to.rtt_ms : (known.get(`${from} ${to.peer_id}`) ?? null));
  const rows = [{ peer_id: here, name: "here", here: true }, ...others];
  const all = rows.flatMap((from) => others.map((to) => rtt(from.peer_id, to))).filter((value) => value !== null);
  const most = Math.max(...all, 1);
  const cell = (from, to) => {
    if (from.peer_id === to.peer_id) return el("td", { class: "self", "aria-label": "itself" }, "·");
    const value = rtt(from.peer_id, to);
    if (value === null) return el("td", { class: "none", "aria-label": "not measured" }, "–");
    const words = `${from.here ? "from here" : label(from)} to ${label(to)}: ${millis(value)} ms`;
    return el("td", { vars: { heat: Math.round(8 + (46 * value) / most) }, data: { tip: words } }, millis(value));
  };
  const table = el(
    "table",
    { class: "matrix", "aria-labelledby": "rtt-title" },
    el("thead", {}, el("tr", {}, el("td", { class: "self" }), ...others.map((to) => el("th", { scope: "col", title: label(to) }, label(to))))),
    el("tbody", {}, ...rows.map((from) => el("tr", { class: from.here ? "here" : "" }, el("th", { scope: "row", title: label(from) }, from.here ? "from here" : label(from)), ...others.map((to) => cell(from, to))))),
  );
  const text = table.textContent;
  if (parent.dataset.drawn === text) return;
  set(parent, { data: { drawn: text } });
  parent.replaceChildren(table, el("p", { class: "rtt-note" }, "A server measures the way to those that could follow it; others stay empty."));
}

function links(parent, model) {
  const names = new Map(model.servers.map((server) => [server.peer_id, label(server)]));
  const slowest = [...model.round_trips].sort((a, b) => b.rtt_ms - a.rtt_ms);
  const middle = slowest[Math.floor(slowest.length / 2)]?.rtt_ms;
  const row = ({ from, to, rtt_ms }) => el("li", {}, el("span", {}, `${names.get(from)} → ${names.get(to)}`), el("b", {}, millis(rtt_ms)));
  const note = slowest.length ? `${slowest.length} measured links, half of them below ${millis(middle)} ms; the slowest first.` : "No server has measured its way to another one yet.";
  delete parent.dataset.drawn;
  parent.replaceChildren(el("ol", { class: "links" }, ...slowest.slice(0, MOST_LINKS).map(row)), el("p", { class: "rtt-note" }, note));
}
