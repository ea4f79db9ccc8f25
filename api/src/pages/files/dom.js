// Making elements. What models and servers say only ever becomes text.

/** An element with properties and children; strings become text. `class`, `data`, `aria-*` and `on…` are understood. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  set(node, props);
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export function set(node, props) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) {
      if (name.startsWith("aria-") || name === "hidden") node.removeAttribute(name);
    } else if (name === "class") node.className = value;
    else if (name === "data") for (const [key, part] of Object.entries(value)) node.dataset[key] = part;
    else if (name === "vars") for (const [key, part] of Object.entries(value)) node.style.setProperty(`--${key}`, part);
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("aria-") || ["role", "for", "scope", "colspan", "datetime", "tabindex"].includes(name)) node.setAttribute(name, value);
    else node[name] = value;
  }
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets a text only if it differs, so that selections and screen readers are left alone. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Keeps one child of `parent` for each item, in their order: focus and scrolling stay where they are. */
export function reconcile(parent, items, key, create, update) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let at = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let child = old.get(name);
    if (child) old.delete(name);
    else {
      child = create(item);
      child.dataset.key = name;
    }
    update(child, item);
    if (child === at) at = at.nextElementSibling;
    else parent.insertBefore(child, at);
  }
  for (const child of old.values()) child.remove();
}

const NS = "http://www.w3.org/2000/svg";

/** A drawing of paths on a square of 16; paths that begin with `+` are filled. */
export function drawing(paths, name = "sign") {
  const svg = document.createElementNS(NS, "svg");
  svg.setAttribute("viewBox", "0 0 16 16");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", name);
  for (const path of paths) {
    const shape = document.createElementNS(NS, "path");
    shape.setAttribute("d", path.replace(/^\+/, ""));
    if (path.startsWith("+")) shape.setAttribute("class", "fill");
    svg.append(shape);
  }
  return svg;
}

const CIRCLE = "M8 2.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11z";
const SIGNS = {
  serving: [`+${CIRCLE}`],
  announced: [CIRCLE],
  joining: [CIRCLE, "+M8 2.5a5.5 5.5 0 0 1 0 11z"],
  leaving: ["M2.5 4h11L8 13z"],
  silent: ["M3 3l10 10M13 3 3 13"],
  plus: ["M8 2.5v11M2.5 8h11"],
  minus: ["M2.5 8h11"],
  arrow: ["M2 8h11M9 4l4 4-4 4"],
};

/** The sign of a state or an event: a shape, so that colour is not all. */
export function sign(name, state = name) {
  const svg = drawing(SIGNS[name] ?? SIGNS.announced);
  if (state) svg.dataset.state = state;
  return svg;
}

const ICONS = {
  send: ["M8 13.5v-11M3.5 7 8 2.5 12.5 7"],
  stop: ["+M4 4h8v8H4z"],
  close: ["M3.5 3.5l9 9M12.5 3.5l-9 9"],
  sun: ["M8 5a3 3 0 1 0 0 6 3 3 0 0 0 0-6z", "M8 1v1M8 14v1M1 8h1M14 8h1M3 3l.7.7M12.3 12.3l.7.7M13 3l-.7.7M3.7 12.3 3 13"],
  moon: ["M13.5 9.6A6 6 0 0 1 6.4 2.5a6 6 0 1 0 7.1 7.1z"],
  auto: ["M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2z", "+M8 2a6 6 0 0 1 0 12z"],
};

export function icon(name) {
  const svg = drawing(ICONS[name], "");
  svg.setAttribute("fill", "none");
  svg.setAttribute("stroke", "currentColor");
  svg.setAttribute("stroke-width", "1.7");
  svg.setAttribute("stroke-linecap", "round");
  svg.setAttribute("stroke-linejoin", "round");
  for (const shape of svg.querySelectorAll(".fill")) shape.setAttribute("fill", "currentColor");
  return svg;
}
