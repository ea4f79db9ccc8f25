// Numbers, times and names for people.

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => number.format(value);
export const short = (value) => (value < 10000 ? number.format(value) : compact.format(value));
export const millis = (value) => (value === null || value === undefined ? "–" : value < 1 ? value.toFixed(2) : value < 10 ? value.toFixed(1) : String(Math.round(value)));
export const rate = (value) => (value < 100 ? value.toFixed(1) : short(Math.round(value)));
export const range = ([start, end]) => `${start}..${end}`;
export const ranges = (list) => list.map(range).join(", ");

export function bytes(value) {
  return value < 1024 ? `${value} B` : `${number.format(value / 1024)} KiB`;
}

export function span(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} d`;
}

export const ago = (then, now = Date.now()) => `${span(Math.max(0, (now - then) / 1000))} ago`;
export const clock = (unixMs) => new Date(unixMs).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", second: "2-digit" });

/** What people call a server: its name, or the end of its id (the beginning is the same for all). */
export const label = (server) => (server.name && server.name.trim() ? server.name : server.peer_id.slice(-8));

/** A list as it is spoken. */
export function listed(words, most = 4) {
  const shown = words.slice(0, most);
  if (words.length > most) shown.push(`${words.length - most} more`);
  return shown.length < 2 ? shown.join("") : `${shown.slice(0, -1).join(", ")} and ${shown.at(-1)}`;
}

export const plural = (value, one, many = `${one}s`) => `${count(value)} ${value === 1 ? one : many}`;
