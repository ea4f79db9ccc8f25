// What a person does with the page, in a real browser: `node check.mjs URL FOLDER`, with URL of a `swarm-node api` over a swarm of
// three servers. Prints one JSON object a line: steps as they are done, `kill` when one server is to be killed, `done` at the end.
// Exit codes: 0 done, 1 something is wrong, 3 there is no browser.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { Browser, findBrowser } from "./chrome.mjs";
import { largeSwarm } from "./large.mjs";

const [url, folder] = process.argv.slice(2);
const say = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));

const path = findBrowser();
if (!path) {
  say("skipped", { reason: "no Chromium is installed (apt-get install chromium, or set SWARM_TEST_BROWSER)" });
  process.exit(3);
}
mkdirSync(folder, { recursive: true });
const shot = (page, name, options) => page.screenshot(join(folder, `${name}.png`), options);

const STREAMING = "document.querySelector('#send').getAttribute('aria-label') === 'Stop'";
const ANSWER = "[...document.querySelectorAll('.message.assistant')].at(-1)";
const DONE = `!(${STREAMING}) && ${ANSWER}?.querySelector('.meta') !== null`;
const PHONE = { width: 390, height: 844, phone: true };

/** Bytes a second, some fifteen tokens with all that is said around each: what is to be seen while the model writes can be seen, however quick the swarm is. */
const SLOWLY = 4_000;

const browser = await Browser.start(path, (reason) => say("step", { step: reason })).catch((error) => {
  say("failed", { reason: error.message });
  process.exit(1);
});
say("step", { step: "the browser has started" });
try {
  await chat();
  await map();
  await others();
  say("done");
} catch (error) {
  say("failed", { reason: [error.stack, browser.complaints].filter(Boolean).join("\n") });
  process.exitCode = 1;
} finally {
  await browser.close();
}

/** Asks, and waits for the place of the answer: what is looked at next must not be the one before. */
async function ask(page, text, thumb = false) {
  await page.value(`${ANSWER}?.setAttribute('data-before', '')`);
  await page.click("#prompt");
  await page.type(text);
  await page.key("Enter");
  // Where one types with a thumb, Enter breaks the line.
  if (thumb) await page.click("#send");
  await page.until("an answer begins", `${ANSWER} !== undefined && !${ANSWER}.hasAttribute('data-before')`);
}

async function chat() {
  const page = await browser.page(`${url}/`);
  await page.until("the models are listed", "document.querySelector('#model').options.length > 0");
  await shot(page, "welcome-light");
  await named(page);

  await page.slow(SLOWLY);
  await ask(page, "Once upon a time, there was a brave fox named Luna.");
  await page.until("text comes while the model still writes", `${STREAMING} && ${ANSWER}?.querySelector('.text').textContent.length > 5`);
  await page.slow();
  say("step", { step: "text is streamed" });
  await page.until("the answer is whole", DONE);
  await page.until("its route is shown", `${ANSWER}.querySelectorAll('.hop').length >= 2`);
  assert.match(await page.value(`${ANSWER}.querySelector('.meta').textContent`), /tokens\/s/);
  await shot(page, "chat-light");
  say("step", { step: "route and speed are shown" });

  await page.slow(SLOWLY);
  await page.click(".message.assistant:last-child [data-action=again]");
  await page.until("it writes again", STREAMING);
  await page.slow();
  await page.until("the new answer is whole", DONE);
  assert.equal(await page.value("document.querySelectorAll('.message').length"), 2);
  say("step", { step: "regenerated" });

  await stop(page);
  const kept = await page.value("document.querySelectorAll('.message').length");
  await page.go("about:blank");
  await page.go(`${url}/`);
  await page.until("the conversation is kept in the tab", `document.querySelectorAll('.message').length === ${kept}`);

  // What is said is text, whatever it looks like.
  await page.click("#new-chat");
  await ask(page, "<img src=x onerror=document.title='owned'> **bold**");
  await page.until("it is shown as it was typed", "document.querySelector('.message.user .text')?.textContent.includes('<img')");
  assert.equal(await page.value("document.querySelectorAll('.message img, .message script').length"), 0);
  await page.until("an answer comes", DONE);
  assert.doesNotMatch(await page.value("document.title"), /owned/);
  say("step", { step: "markup is text" });
  await well(page);
  await page.close();
}

/** Stops an answer; a short one may be over before. */
async function stop(page) {
  await page.click("#open-settings");
  await page.value("(() => { const most = document.querySelector('#set-max'); most.value = 700; most.dispatchEvent(new Event('change')); })()");
  await page.click("#close-settings");
  await page.slow(SLOWLY);
  for (let attempt = 1; ; attempt += 1) {
    await ask(page, "Tell me a long story about a lighthouse.");
    await page.until("text comes", `${ANSWER}?.querySelector('.text').textContent.length > 5`);
    await page.value(`(${STREAMING}) && document.querySelector('#send').click()`);
    await page.until("it has ended", DONE);
    if (/stopped by you/.test(await page.value(`${ANSWER}.textContent`))) break;
    assert.ok(attempt < 5, "no answer was long enough to be stopped");
  }
  await page.slow();
  const length = `${ANSWER}.querySelector('.text').textContent.length`;
  assert.ok((await page.value(length)) > 0, "what was written stands");
  say("step", { step: "stopped" });
}

async function map() {
  const page = await browser.page(`${url}/#swarm`);
  await page.until("three servers are shown", "document.querySelectorAll('.lane-list .lane[data-state=serving]').length === 3");
  assert.equal(await page.value("document.querySelectorAll('#servers tbody tr').length"), 3);
  assert.equal(await page.value("document.querySelectorAll('.coverage div').length"), 12);
  await named(page);
  await page.value("document.querySelector('.bar').focus()");
  await page.key("ArrowDown");
  assert.equal(await page.value("[...document.querySelectorAll('.bar')].indexOf(document.activeElement)"), 1);
  await page.until("the focus shows what there is to say", "!document.querySelector('#tip').hidden");
  await page.key("Escape");
  await page.value("document.activeElement.blur()");
  await shot(page, "map-light", { whole: true });
  say("step", { step: "the map shows three servers" });

  say("kill");
  await page.until("the killed server does not answer", "document.querySelectorAll('.lane-list .lane[data-state=silent]').length === 1");
  await page.until("its loss is on the time-line", "document.querySelector('#timeline li[data-kind=lost]')");
  await page.until("there is an alarm", "document.querySelector('.alarm[data-kind=silent_servers]')");
  await shot(page, "map-after-a-loss-light", { whole: true });
  say("step", { step: "the map shows the loss" });
  await well(page);
  await page.close();
}

async function others() {
  for (const [name, options] of [["dark", { dark: true }], ["phone", PHONE], ["phone-dark", { ...PHONE, dark: true }]]) {
    const page = await browser.page(`${url}/#swarm`, options);
    await page.until("servers are shown", "document.querySelectorAll('.lane-list .lane').length === 3");
    const [red, green, blue] = (await page.value("getComputedStyle(document.body).backgroundColor")).match(/\d+/g).map(Number);
    assert.equal(red + green + blue < 200, Boolean(options.dark), `${name}: the background is ${red} ${green} ${blue}`);
    await shot(page, `map-${name}`, { whole: true });
    await fits(page, name);
    await page.value("location.hash = '#chat'");
    await ask(page, "A story about the sea.", options.phone);
    await page.until("an answer comes", `document.querySelector('.message.assistant .meta')`);
    await shot(page, `chat-${name}`);
    await fits(page, name);
    // The switch beats the system.
    await page.click("#theme");
    await page.click("#theme");
    assert.equal(await page.value("document.documentElement.dataset.theme"), "dark");
    await page.value("localStorage.clear()");
    await well(page);
    await page.close();
  }
  for (const [name, options] of [["large", {}], ["large-phone", PHONE]]) {
    const page = await browser.page("about:blank", options);
    await page.answer("*/api/v1/events", "text/event-stream", `event: overview\ndata: ${JSON.stringify(largeSwarm())}\n\n`);
    await page.go(`${url}/#swarm`);
    await page.until("200 servers are shown", "document.querySelectorAll('.lane-list .lane').length === 200");
    assert.equal(await page.value("document.querySelectorAll('.coverage div').length"), 126);
    await shot(page, `map-${name}`, { whole: true });
    await fits(page, name);
    await page.close();
  }
  say("step", { step: "dark, narrow and large ones are well" });
}

/** Nothing of the page is beside the screen. */
async function fits(page, name) {
  const [page_width, screen] = await page.value("[document.documentElement.scrollWidth, innerWidth]");
  assert.ok(page_width <= screen, `${name}: the page is ${page_width} wide on a screen of ${screen}`);
}

/** Nothing was complained about, and nothing came from elsewhere. */
async function well(page) {
  assert.deepEqual(page.complaints, []);
  const elsewhere = page.requests.filter((address) => !address.startsWith(`${url}/`) && !/^(data|about):/.test(address));
  assert.deepEqual(elsewhere, []);
}

/** Everything that can be used has a name for those who do not see it. */
async function named(page) {
  await page.send("Accessibility.enable");
  const { nodes } = await page.send("Accessibility.getFullAXTree");
  const roles = new Set(["button", "link", "textbox", "combobox", "slider", "spinbutton", "table", "list"]);
  const nameless = nodes.filter(({ ignored, role, name }) => !ignored && roles.has(role?.value) && role.value !== "list" && !name?.value);
  assert.deepEqual(nameless.map(({ role, properties }) => [role.value, properties]), []);
  await page.send("Accessibility.disable");
}
