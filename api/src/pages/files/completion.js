// OpenAI's protocol, as far as a chat needs it: the models, and one answer as a stream.
import { ask, messages as events } from "./http.js";

/** A request that failed: what is wrong, and what to do. */
export class Problem extends Error {
  constructor(title, advice, { settings = false } = {}) {
    super(title);
    this.title = title;
    this.advice = advice;
    this.settings = settings;
  }
}

/** Models that only continue a text, as far as was found out. */
const plain = new Set();

export const continuesOnly = (model) => plain.has(model);

/** The models: `{id, context}`. */
export async function models() {
  const response = await reach("/v1/models");
  const { data } = await response.json();
  for (const model of data) if (model.chat === false || model.chat_template === false) plain.add(model.id);
  return data.map((model) => ({ id: model.id, context: model.context_length ?? null }));
}

/**
 * One answer to `history` (`{role, text}`): calls `onText` with each piece; gives `{finish, swarm}`.
 * Models without a chat template are given the whole text to continue.
 */
export async function answer({ model, history, settings, signal, onText, onPlain }) {
  if (!plain.has(model)) {
    try {
      return await stream("/v1/chat/completions", { ...options(model, settings), messages: chat(history, settings) }, signal, onText);
    } catch (error) {
      if (!(error instanceof NoTemplate)) throw error;
      plain.add(model);
      onPlain();
    }
  }
  const prompt = [settings.system, ...history.map(({ text }) => text)].filter(Boolean).join("\n");
  return stream("/v1/completions", { ...options(model, settings), prompt }, signal, onText);
}

class NoTemplate extends Error {}

function chat(history, settings) {
  const said = history.map(({ role, text }) => ({ role, content: text }));
  return settings.system ? [{ role: "system", content: settings.system }, ...said] : said;
}

function options(model, { temperature, max, seed }) {
  const seeded = seed === null ? {} : { seed };
  return { model, temperature, max_tokens: max, stream: true, stream_options: { include_usage: true }, ...seeded };
}

async function stream(path, body, signal, onText) {
  const response = await reach(path, {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "text/event-stream" },
    body: JSON.stringify(body),
    signal,
  });
  const end = { finish: null, swarm: null, usage: null };
  let complete = false;
  for await (const { data } of events(response)) {
    if (data === "[DONE]") {
      complete = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw told(response.status, chunk.error, response.headers);
    if (chunk.swarm) end.swarm = chunk.swarm;
    if (chunk.usage) end.usage = chunk.usage;
    const choice = chunk.choices?.[0];
    const text = choice?.delta?.content ?? choice?.text;
    if (text) onText(text);
    if (choice?.finish_reason) end.finish = choice.finish_reason;
  }
  if (!complete && !end.finish) {
    throw new Problem("The answer broke off.", "The connection to swarm-node ended. What was written stands; try again to get a whole answer.");
  }
  return end;
}

async function reach(path, options) {
  let response;
  try {
    response = await ask(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("swarm-node does not answer.", "Is `swarm-node api` still running, and is this device online? Then try again.");
  }
  if (response.ok) return response;
  const error = await response.json().then(({ error }) => error, () => null);
  throw told(response.status, error ?? {}, response.headers);
}

/** The error of an answer, with what to do about it. */
function told(status, error, headers) {
  const message = typeof error === "string" ? error : (error.message ?? `the server answers ${status}`);
  if (status === 400 && /template/i.test(message) && /has none/i.test(message)) return new NoTemplate(message);
  const wait = headers?.get("retry-after");
  const again = wait ? `Try again in ${wait} s.` : "Try again in a moment.";
  switch (status) {
    case 401:
    case 403:
      return new Problem("This server wants an API key.", `${message} Enter it in the settings.`, { settings: true });
    case 404:
      return new Problem("There is no such model here.", `${message} Choose another one above.`);
    case 400:
    case 413:
    case 422:
      return new Problem("The request was not understood.", `${message} Look at the settings: fewer tokens or a shorter prompt may help.`, { settings: true });
    case 429:
      return new Problem("Too many ask at once.", `${message} ${again}`);
    case 503:
      return new Problem("The swarm cannot answer now.", `${message} The map shows which blocks are missing. ${again}`);
    case 504:
      return new Problem("It took too long.", `${message} Ask for fewer tokens, or try again.`, { settings: true });
    default:
      return new Problem("Something went wrong.", `${message} Try again; if it stays, look at the log of swarm-node.`);
  }
}
