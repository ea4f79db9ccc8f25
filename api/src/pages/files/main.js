// The page: which view is shown, and the sign at the top.
import { byId, say, set } from "./dom.js";
import { plural } from "./format.js";
import { Live } from "./live.js";
import { startChat } from "./chat.js";
import { startMap } from "./map.js";
import { startTheme } from "./theme.js";
import { startTips } from "./tips.js";

const views = document.documentElement.dataset.views.split(" ");
const live = new Live();

startTheme();
startTips();
startMap(live);
if (views.includes("chat")) startChat(live);
byId("views").hidden = views.length < 2;

function route() {
  const wanted = location.hash === "#swarm" ? "map" : location.hash === "#chat" ? "chat" : views[0];
  const view = views.includes(wanted) ? wanted : views[0];
  for (const name of ["chat", "map"]) {
    byId(`view-${name}`).hidden = name !== view;
    set(byId(`tab-${name}`), { "aria-current": name === view ? "page" : null });
  }
  document.title = view === "map" ? "The swarm – swarm-node" : "Chat – swarm-node";
}
addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  byId("content").focus();
});
route();

live.addEventListener("change", () => {
  const { overview, connected, problem } = live;
  say(byId("swarm-name"), overview ? overview.swarm : "");
  if (!connected) {
    pill(problem ? "bad" : "wait", problem ? "not connected" : "connecting …", problem ?? "");
    return;
  }
  const servers = overview.models.flatMap((model) => model.servers);
  const serving = servers.filter((server) => ["serving", "announced"].includes(server.state)).length;
  const worst = overview.alarms[0];
  const words = plural(serving, "server");
  if (!overview.models.length) pill("warn", "no model yet", "nobody serves a model in this swarm");
  else if (worst?.severity === "critical") pill("bad", "blocks missing", worst.message);
  else if (worst?.severity === "warning") pill("warn", words, worst.message);
  else pill("good", words, "every block has two servers or more");
});
live.start();

function pill(state, text, tip) {
  const node = byId("pill");
  node.dataset.state = state;
  node.dataset.tip = tip;
  set(node, { "aria-label": `${text}${tip ? `: ${tip}` : ""}` });
  say(byId("pill-text"), text);
}
