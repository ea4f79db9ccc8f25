// Chromium without a window, driven over its DevTools protocol on a pipe: no packages, no ports.
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

/** How long anything may take, in milliseconds: an overloaded machine is no failure, a hang is one. Less than the test waits for a line, so that what hangs is named. */
const DEADLINE = 45_000;

/** The pause between two looks at a condition. */
const PAUSE = 50;

/** So often it is started, if it does not answer. */
const STARTS = 3;

/** So much of what the browser complains about is kept, in characters. */
const COMPLAINTS = 4_000;

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"];

/** The browser's path: `SWARM_TEST_BROWSER`, or the first that is installed; none if there is none. */
export function findBrowser() {
  if (process.env.SWARM_TEST_BROWSER) return process.env.SWARM_TEST_BROWSER;
  const folders = (process.env.PATH ?? "").split(delimiter);
  for (const name of NAMES) for (const folder of folders) if (existsSync(join(folder, name))) return join(folder, name);
  return null;
}

export class Browser {
  #process;
  #profile;
  #next = 1;
  #waiting = new Map();
  #listeners = [];
  #rest = Buffer.alloc(0);
  /** The end of what it complained about on its stderr. */
  complaints = "";

  /** Some of its starts hang; `again` is told of each that did before the next one. */
  static async start(path, again) {
    for (let attempt = 1; ; attempt += 1) {
      const browser = Browser.#spawn(path);
      try {
        await browser.send("Browser.getVersion");
        return browser;
      } catch (error) {
        browser.#drop();
        const reason = `${path} does not start: ${error.message}\n${browser.complaints}`;
        if (attempt === STARTS) throw new Error(reason);
        again(reason);
      }
    }
  }

  static #spawn(path) {
    const browser = new Browser();
    browser.#profile = mkdtempSync(join(tmpdir(), "browser-check-"));
    const flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-first-run", "--mute-audio", "--disable-background-networking", "--disable-component-update", "--force-color-profile=srgb", "--remote-debugging-pipe", `--user-data-dir=${browser.#profile}`, "about:blank"];
    browser.#process = spawn(path, flags, { stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"] });
    browser.#process.stderr.on("data", (data) => (browser.complaints = (browser.complaints + data).slice(-COMPLAINTS)));
    browser.#process.stdio[4].on("data", (data) => browser.#take(data));
    browser.#process.on("exit", () => browser.#fail("the browser has ended"));
    for (const one of [browser.#process, ...browser.#process.stdio.slice(3)]) one.on("error", (error) => browser.#fail(error.message));
    return browser;
  }

  #take(data) {
    this.#rest = Buffer.concat([this.#rest, data]);
    let end;
    while ((end = this.#rest.indexOf(0)) >= 0) {
      const message = JSON.parse(this.#rest.subarray(0, end).toString("utf8"));
      this.#rest = this.#rest.subarray(end + 1);
      const waiting = this.#waiting.get(message.id);
      if (waiting) {
        this.#waiting.delete(message.id);
        if (message.error) waiting.reject(new Error(`${waiting.method}: ${message.error.message}`));
        else waiting.resolve(message.result);
      } else for (const listener of this.#listeners) listener(message);
    }
  }

  #fail(why) {
    for (const { reject } of this.#waiting.values()) reject(new Error(why));
    this.#waiting.clear();
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    const answered = new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${method}: no answer`)), DEADLINE);
      const done = (settle) => (value) => {
        clearTimeout(timer);
        settle(value);
      };
      this.#waiting.set(id, { method, resolve: done(resolve), reject: done(reject) });
    });
    this.#process.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return answered;
  }

  onEvent(listener) {
    this.#listeners.push(listener);
  }

  /** A new page of that size; `dark` and `phone` are what its media queries say. */
  async page(url, { width = 1280, height = 860, dark = false, phone = false } = {}) {
    const { targetId } = await this.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await this.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(this, sessionId, targetId);
    await page.start({ width, height, dark, phone });
    await page.go(url);
    return page;
  }

  /** Ends one that has not come to life. */
  #drop() {
    this.#process.removeAllListeners("exit");
    this.#process.kill("SIGKILL");
    for (const pipe of this.#process.stdio) pipe?.destroy();
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }

  async close() {
    this.#process.removeAllListeners("exit");
    const ended = new Promise((resolve) => this.#process.once("exit", resolve));
    // Its children end with it, and no longer write.
    await this.send("Browser.close").catch(() => this.#process.kill("SIGKILL"));
    await ended;
    rmSync(this.#profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

export class Page {
  /** What the page has complained about. */
  complaints = [];
  /** Every address that was asked for. */
  requests = [];

  constructor(browser, session, target) {
    this.browser = browser;
    this.session = session;
    this.target = target;
    browser.onEvent(({ method, params, sessionId }) => {
      if (sessionId !== session) return;
      if (method === "Runtime.exceptionThrown") this.complaints.push(params.exceptionDetails.exception?.description ?? params.exceptionDetails.text);
      if (method === "Log.entryAdded" && params.entry.level === "error") this.complaints.push(`${params.entry.text} ${params.entry.url ?? ""}`);
      if (method === "Network.requestWillBeSent") this.requests.push(params.request.url);
    });
  }

  send(method, params = {}) {
    return this.browser.send(method, params, this.session);
  }

  async start({ width, height, dark, phone }) {
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await this.send(`${domain}.enable`);
    await this.send("Emulation.setDeviceMetricsOverride", { width, height, deviceScaleFactor: 1, mobile: phone });
    if (phone) await this.send("Emulation.setTouchEmulationEnabled", { enabled: true });
    await this.send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }, { name: "prefers-reduced-motion", value: "reduce" }] });
  }

  async go(url) {
    await this.send("Page.navigate", { url });
    await this.until("the page is loaded", "document.readyState === 'complete'");
  }

  /** The value of an expression in the page; promises are waited for. */
  async value(expression) {
    const { result, exceptionDetails } = await this.send("Runtime.evaluate", { expression, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(`${expression}: ${exceptionDetails.exception?.description ?? exceptionDetails.text}`);
    return result.value;
  }

  /** Looks until the expression holds. */
  async until(what, expression) {
    const end = Date.now() + DEADLINE;
    for (;;) {
      const value = await this.value(expression).catch((error) => (/context|navigat/i.test(error.message) ? null : Promise.reject(error)));
      if (value) return value;
      if (Date.now() > end) throw new Error(`waited ${DEADLINE / 1000} s in vain: ${what}\n${await this.value("document.body.innerText")}\n${this.complaints.join("\n")}`);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }

  /** Lets it receive so many bytes a second at most; without a number, as many as come. */
  slow(bytes = -1) {
    return this.send("Network.emulateNetworkConditions", { offline: false, latency: 0, downloadThroughput: bytes, uploadThroughput: -1 });
  }

  /** Clicks in the middle of the element, as a person does. */
  async click(selector) {
    const at = await this.until(`${selector} is there`, `(() => { const node = document.querySelector(${JSON.stringify(selector)}); if (!node || node.disabled) return null; node.scrollIntoView({ block: "nearest" }); const { x, y, width, height } = node.getBoundingClientRect(); return width ? { x: x + width / 2, y: y + height / 2 } : null; })()`);
    for (const type of ["mousePressed", "mouseReleased"]) await this.send("Input.dispatchMouseEvent", { type, ...at, button: "left", clickCount: 1 });
  }

  /** Types into whatever has the focus. */
  type(text) {
    return this.send("Input.insertText", { text });
  }

  async key(key, code = key) {
    const text = key === "Enter" ? "\r" : undefined;
    const windowsVirtualKeyCode = { Enter: 13, Escape: 27, Tab: 9, ArrowDown: 40, ArrowUp: 38 }[key];
    await this.send("Input.dispatchKeyEvent", { type: "keyDown", key, code, text, windowsVirtualKeyCode });
    await this.send("Input.dispatchKeyEvent", { type: "keyUp", key, code, windowsVirtualKeyCode });
  }

  /** Answers requests for addresses like `pattern` in the server's place. */
  async answer(pattern, kind, text) {
    await this.send("Fetch.enable", { patterns: [{ urlPattern: pattern }] });
    this.browser.onEvent(({ method, params, sessionId }) => {
      if (sessionId !== this.session || method !== "Fetch.requestPaused") return;
      const responseHeaders = [{ name: "Content-Type", value: kind }];
      const body = Buffer.from(text).toString("base64");
      // The page may be closed already.
      this.send("Fetch.fulfillRequest", { requestId: params.requestId, responseCode: 200, responseHeaders, body }).catch(() => {});
    });
  }

  async screenshot(file, { whole = false } = {}) {
    const { data } = await this.send("Page.captureScreenshot", { format: "png", captureBeyondViewport: whole });
    writeFileSync(file, Buffer.from(data, "base64"));
  }

  close() {
    return this.browser.send("Target.closeTarget", { targetId: this.target });
  }
}
