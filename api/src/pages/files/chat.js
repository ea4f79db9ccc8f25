// The chat: what is typed goes out, what comes back is shown as it comes.
import { Problem, answer, continuesOnly, models } from "./completion.js";
import { Conversation } from "./conversation.js";
import { byId, el, icon, reconcile, say, set } from "./dom.js";
import { plural } from "./format.js";
import { create, update } from "./message.js";
import { current, startSettings } from "./settings.js";

/** Beginnings to try. */
const STARTERS = ["Once upon a time, there was a brave fox named Luna.", "Tell me a story about a lighthouse.", "What can you do?"];

/** So near to its end the conversation follows what is written, in pixels. */
const NEAR = 80;

const MODEL = "swarm-node.model";

export function startChat(live) {
  const conversation = new Conversation();
  const body = byId("chat-body");
  const prompt = byId("prompt");
  const picker = byId("model");
  let known = [];
  let running = null;
  let frame = null;

  const panel = startSettings(() => {
    loadModels();
    live.again();
  });
  byId("starters").replaceChildren(...STARTERS.map((text) => el("button", { type: "button", onclick: () => send(text) }, text)));

  const on = { again: () => again(), settings: () => panel.open(true) };

  function draw() {
    frame = null;
    const follow = body.scrollHeight - body.scrollTop - body.clientHeight < NEAR;
    byId("welcome").hidden = conversation.messages.length > 0;
    const last = conversation.messages.at(-1);
    reconcile(byId("messages"), conversation.messages, (message) => message.id, (message) => create(message, on), (node, message) => {
      update(node, message, message !== last ? "" : running ? "streaming" : "last");
    });
    byId("new-chat").disabled = !conversation.messages.length;
    const stops = Boolean(running);
    const send = byId("send");
    if (send.dataset.does !== String(stops)) {
      send.dataset.does = String(stops);
      send.replaceChildren(icon(stops ? "stop" : "send"));
      set(send, { "aria-label": stops ? "Stop" : "Send" });
    }
    send.disabled = !stops && !prompt.value.trim();
    if (follow) body.scrollTop = body.scrollHeight;
  }

  const drawSoon = () => {
    frame ??= requestAnimationFrame(draw);
  };

  async function loadModels() {
    try {
      known = await models();
    } catch (error) {
      say(byId("model-note"), error instanceof Problem ? `${error.title} ${error.advice}` : error.message);
      return;
    }
    reconcile(picker, known, (model) => model.id, (model) => el("option", { value: model.id }), (option, model) => say(option, model.id));
    const kept = sessionStorage.getItem(MODEL);
    if (known.some((model) => model.id === kept)) picker.value = kept;
    note();
  }

  function note() {
    const model = known.find((model) => model.id === picker.value);
    const context = model?.context ? `${plural(model.context, "token")} of context` : "";
    say(byId("model-note"), continuesOnly(picker.value) ? "This model has no chat template: it goes on with your text." : context);
  }

  function send(text) {
    if (running || !text.trim()) return;
    conversation.add("user", text.trim());
    prompt.value = "";
    grow();
    generate();
  }

  function again() {
    if (!running && conversation.dropAnswer()) generate();
  }

  async function generate() {
    const history = conversation.messages.filter((message) => message.text).map(({ role, text }) => ({ role, text }));
    const message = conversation.add("assistant", "");
    const stop = new AbortController();
    running = stop;
    say(byId("chat-status"), "The model writes.");
    body.scrollTop = body.scrollHeight;
    drawSoon();
    try {
      message.meta = await answer({
        model: picker.value,
        history,
        settings: current(),
        signal: stop.signal,
        onText: (text) => {
          message.text += text;
          drawSoon();
        },
        onPlain: note,
      });
    } catch (error) {
      if (stop.signal.aborted) message.meta = { finish: "stopped" };
      else message.problem = shown(error);
    }
    running = null;
    if (frame) cancelAnimationFrame(frame);
    conversation.keep();
    say(byId("chat-status"), message.problem ? message.problem.title : `The model wrote: ${message.text}`);
    note();
    draw();
  }

  function grow() {
    // Browsers without `field-sizing` are told the height.
    if (CSS.supports("field-sizing", "content")) return;
    prompt.style.height = "auto";
    prompt.style.height = `${prompt.scrollHeight}px`;
  }

  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.abort();
    else send(prompt.value);
  });
  prompt.addEventListener("input", () => {
    grow();
    drawSoon();
  });
  prompt.addEventListener("keydown", (event) => {
    const coarse = matchMedia("(pointer: coarse)").matches;
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || coarse) return;
    event.preventDefault();
    if (!running) send(prompt.value);
  });
  byId("view-chat").addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
  byId("new-chat").addEventListener("click", () => {
    running?.abort();
    conversation.clear();
    draw();
    prompt.focus();
  });
  picker.addEventListener("change", () => {
    sessionStorage.setItem(MODEL, picker.value);
    note();
  });
  // Models that were not there yet, or a server that was not.
  live.addEventListener("change", () => live.connected && !known.length && loadModels());
  loadModels();
  draw();
}

function shown(error) {
  if (error instanceof Problem) return { title: error.title, advice: error.advice, settings: error.settings };
  return { title: "Something went wrong.", advice: `${error.message} Try again.`, settings: false };
}
