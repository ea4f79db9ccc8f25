// What models write, as elements: paragraphs, headings, lists, quotes, code, emphasis, links. Text stays text: nothing of it is
// ever parsed as HTML.
import { el } from "./dom.js";

const FENCE = /^\s{0,3}(```|~~~)\s*([\w+#.-]*)/;
const HEADING = /^(#{1,6})\s+(.*)$/;
const BULLET = /^\s{0,3}[-*+]\s+(.*)$/;
const NUMBERED = /^\s{0,3}(\d{1,4})[.)]\s+(.*)$/;
const QUOTE = /^\s{0,3}>\s?(.*)$/;
const RULE = /^\s{0,3}(?:(?:-\s*){3,}|(?:\*\s*){3,})$/;

// Code first: nothing in it means anything.
const INLINE = /(`+)(.+?)\1|\*\*(.+?)\*\*|__(.+?)__|\*([^*\s](?:[^*]*[^*\s])?)\*|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)/g;

/** Elements for `text`. */
export function render(text) {
  const parts = document.createDocumentFragment();
  const lines = text.split("\n");
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    let match;
    if (!line.trim()) at += 1;
    else if ((match = line.match(FENCE))) at = fenced(parts, lines, at, match);
    else if ((match = line.match(HEADING))) {
      // The page's own headings are above these.
      parts.append(el(`h${Math.min(match[1].length + 2, 5)}`, {}, ...inline(match[2])));
      at += 1;
    } else if (RULE.test(line)) {
      parts.append(el("hr"));
      at += 1;
    } else if (BULLET.test(line)) at = list(parts, lines, at, "ul", BULLET);
    else if (NUMBERED.test(line)) at = list(parts, lines, at, "ol", NUMBERED);
    else if (QUOTE.test(line)) at = quote(parts, lines, at);
    else at = paragraph(parts, lines, at);
  }
  return parts;
}

const begins = (line) => !line.trim() || [FENCE, HEADING, RULE, BULLET, NUMBERED, QUOTE].some((form) => form.test(line));

function fenced(parts, lines, at, [, fence, language]) {
  const end = lines.findIndex((line, number) => number > at && line.trim() === fence);
  const code = lines.slice(at + 1, end < 0 ? lines.length : end).join("\n");
  const copy = el("button", { type: "button", class: "button quiet", onclick: (event) => copyText(event.currentTarget, code) }, "Copy");
  parts.append(el("div", { class: "code" }, el("div", { class: "code-head" }, el("span", {}, language || "code"), copy), el("pre", { tabindex: "0" }, el("code", {}, code))));
  return end < 0 ? lines.length : end + 1;
}

function list(parts, lines, at, tag, form) {
  const items = [];
  const first = lines[at].match(form);
  while (at < lines.length) {
    const match = lines[at].match(form);
    if (match) items.push([match.at(-1)]);
    else if (items.length && lines[at].trim() && /^\s{2,}/.test(lines[at])) items.at(-1).push(lines[at].trim());
    else break;
    at += 1;
  }
  const node = el(tag, {}, ...items.map((item) => el("li", {}, ...inline(item.join(" ")))));
  if (tag === "ol") node.start = Number(first[1]);
  parts.append(node);
  return at;
}

function quote(parts, lines, at) {
  const quoted = [];
  for (let match; at < lines.length && (match = lines[at].match(QUOTE)); at += 1) quoted.push(match[1]);
  parts.append(el("blockquote", {}, ...broken(quoted)));
  return at;
}

function paragraph(parts, lines, at) {
  const said = [lines[at++]];
  while (at < lines.length && !begins(lines[at])) said.push(lines[at++]);
  parts.append(el("p", {}, ...broken(said)));
  return at;
}

/** Lines with breaks between them: models break lines where they mean it. */
const broken = (lines) => lines.flatMap((line, number) => (number ? [el("br"), ...inline(line)] : inline(line)));

function inline(text) {
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > from) parts.push(text.slice(from, match.index));
    const [whole, , code, strong, strong2, em, name, address] = match;
    if (code !== undefined) parts.push(el("code", {}, code));
    else if (strong ?? strong2) parts.push(el("strong", {}, ...inline(strong ?? strong2)));
    else if (em) parts.push(el("em", {}, ...inline(em)));
    else parts.push(el("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank" }, name));
    from = match.index + whole.length;
  }
  if (from < text.length) parts.push(text.slice(from));
  return parts;
}

/** Copies, and says so on the button. */
export async function copyText(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Not allowed here";
  }
  setTimeout(() => (button.textContent = before), 1500);
}
