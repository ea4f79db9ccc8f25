// The swarm as it changes: one connection for the whole page, opened again when it breaks.
import { ask, messages } from "./http.js";

/** Pauses between attempts, in milliseconds. */
const PAUSES = [500, 1000, 2000, 5000];

/** Events that are kept; as many as the server keeps. */
const MOST_EVENTS = 512;

export class Live extends EventTarget {
  overview = null;
  events = [];
  since = null;
  connected = false;
  problem = null;
  #last = null;
  #attempt = 0;
  #retry = null;

  start() {
    this.#run();
    // Whoever comes back to the page wants to know at once.
    document.addEventListener("visibilitychange", () => !document.hidden && this.#retry?.());
    addEventListener("online", () => this.#retry?.());
  }

  /** Tries again at once, with another key for example. */
  again() {
    this.#retry?.();
  }

  async #run() {
    for (;;) {
      try {
        await this.#follow();
        this.problem = "the connection has ended";
      } catch (error) {
        this.problem = error.message;
      }
      this.connected = false;
      this.#tell("change");
      await new Promise((resolve) => {
        this.#retry = resolve;
        setTimeout(resolve, PAUSES[Math.min(this.#attempt++, PAUSES.length - 1)]);
      });
      this.#retry = null;
    }
  }

  async #follow() {
    const headers = this.#last === null ? {} : { "Last-Event-ID": String(this.#last) };
    const response = await ask("/api/v1/events", { headers: { Accept: "text/event-stream", ...headers } });
    if (response.status === 401 || response.status === 403) throw new Error("an API key is wanted");
    if (!response.ok) throw new Error(`the server answers ${response.status}`);
    await this.#catchUp();
    for await (const { event, data, id } of messages(response)) {
      this.connected = true;
      this.problem = null;
      this.#attempt = 0;
      if (event === "overview") {
        this.overview = JSON.parse(data);
        this.#tell("change");
      } else if (event === "event") {
        if (id !== null) this.#last = Number(id);
        this.#add(JSON.parse(data), true);
      }
    }
  }

  /** What happened before this page was there. */
  async #catchUp() {
    const response = await ask("/api/v1/timeline");
    if (!response.ok) return;
    const { since_unix_ms: since, events } = await response.json();
    // Another process watches from another moment on, and counts anew.
    if (since !== this.since) this.events = [];
    this.since = since;
    for (const event of events) this.#add(event, false);
    this.#last = Math.max(0, ...events.map((event) => event.sequence));
    this.#tell("change");
  }

  #add(event, fresh) {
    if (this.events.some((known) => known.sequence === event.sequence)) return;
    this.events.push({ ...event, fresh });
    if (this.events.length > MOST_EVENTS) this.events.shift();
    if (fresh) this.dispatchEvent(new CustomEvent("happened", { detail: event }));
  }

  #tell(what) {
    this.dispatchEvent(new Event(what));
  }
}
