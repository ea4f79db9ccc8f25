// What was said, kept in this tab.

const KEY = "swarm-node.conversation";

/** Characters that are kept over a reload; browsers give a tab some five million. */
const MOST_CHARS = 2_000_000;

/** A conversation: messages `{id, role, text, meta, problem}`. */
export class Conversation {
  messages = [];
  #next = 1;

  constructor() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY)) ?? [];
      for (const message of kept) this.add(message.role, message.text, message);
    } catch {
      // What another release has kept is not worth an error.
    }
  }

  add(role, text, { meta = null, problem = null } = {}) {
    const message = { id: this.#next++, role, text, meta, problem };
    this.messages.push(message);
    return message;
  }

  /** Takes the last answer away; gives whether there is a question left to be answered. */
  dropAnswer() {
    if (this.messages.at(-1)?.role === "assistant") this.messages.pop();
    return this.messages.at(-1)?.role === "user";
  }

  clear() {
    this.messages = [];
    this.keep();
  }

  keep() {
    const text = JSON.stringify(this.messages.map(({ role, text, meta, problem }) => ({ role, text, meta, problem })));
    try {
      if (text.length <= MOST_CHARS) sessionStorage.setItem(KEY, text);
    } catch {
      // A tab without room forgets at its next reload.
    }
  }
}
