/**
 * The status page: wires the connection to the model, and the model to the panels.
 *
 * Owns when what is drawn: a report is drawn with the next frame, tokens at most once a frame, and
 * clocks four times a second while somebody looks.
 *
 * @module
 */

import { CapacityPanels } from "/status/static/capacity.js";
import { Cards } from "/status/static/cards.js";
import { EndedCharts } from "/status/static/charts.js";
import { command, Connection, Refused } from "/status/static/connection.js";
import { byId, setText } from "/status/static/dom.js";
import { EnginePanel } from "/status/static/engine.js";
import { words } from "/status/static/format.js";
import { History } from "/status/static/history.js";
import { Key } from "/status/static/key.js";
import { LinkPanel } from "/status/static/link.js";
import { Model } from "/status/static/model.js";
import { TaskTree } from "/status/static/tasks.js";

const TICK_MS = 250;

/** More ends than these at once are counted instead of named. */
const MOST_NAMED = 2;

const model = new Model();
const key = new Key(() => connection.open());
const link = new LinkPanel();
const cards = new Cards(model, (id) =>
  order("DELETE", `/proxy/exchanges/${encodeURIComponent(id)}`),
);
const engine = new EnginePanel(() => order("POST", "/proxy/restart"));
const capacity = new CapacityPanels();
const charts = new EndedCharts(byId("charts"));
const history = new History(byId("history"));
const tasks = new TaskTree(byId("tasks"));

let isLive = false;
let frame = 0;
let hasReport = false;

const connection = new Connection({
  key: () => key.value,
  onState: (state) => {
    isLive = state.name === "live";
    link.changed(state, performance.now(), key.value);
    if (state.name === "key")
      key.ask(key.value === null ? "This server asks for a key." : "The server refused this key.");
    if (state.name === "admin") key.ask("The server shows its status to an admin key only.");
  },
  onEvent: (name, data) => {
    if (name === "status") announce(model.report(data, performance.now()));
    if (name === "status") hasReport = true;
    if (name === "status" || (name === "token" && model.token(data))) draw();
  },
});

function draw() {
  frame ||= requestAnimationFrame(() => {
    frame = 0;
    const at = performance.now();
    if (hasReport) report(at);
    cards.render(at);
  });
}

/** @param {number} at */
function report(at) {
  hasReport = false;
  const { snapshot } = model;
  if (snapshot === null) return;
  setText(byId("bar-model"), snapshot.engine.model ?? "");
  link.report(snapshot.engine);
  engine.report(snapshot.engine);
  capacity.report(snapshot);
  charts.render(snapshot.perf_history);
  history.render(snapshot.perf_history);
  tasks.render(snapshot.tasks);
  cards.report();
  tick(at);
}

/** @param {number} at */
function tick(at) {
  // Clocks stand still when nobody knows how things are.
  const now = isLive ? at : model.reportedAt;
  const passedS = Math.max(0, now - model.reportedAt) / 1000;
  engine.tick(passedS);
  capacity.tick(passedS);
  cards.tick(now);
  link.tick(at);
}

/** @param {import("./model.js").Card[]} ended */
function announce(ended) {
  if (ended.length === 0) return;
  const each = ended.map(
    ({ exchange, cause }) => `${exchange.route} ended: ${words(cause ?? "cause unknown")}.`,
  );
  setText(
    byId("ends"),
    ended.length > MOST_NAMED ? `${ended.length} exchanges ended.` : each.join(" "),
  );
}

/**
 * Asks the server for something, and says so if it does not do it.
 *
 * @param {"DELETE" | "POST"} method
 * @param {string} path
 */
async function order(method, path) {
  link.fail(null);
  try {
    await command(method, path, key.value);
  } catch (error) {
    // 404: it had ended by itself, while somebody thought about it.
    if (error instanceof Refused && error.status === 404) return;
    link.fail(/** @type {Error} */ (error).message);
  }
}

setInterval(() => {
  tick(performance.now());
  draw();
}, TICK_MS);
byId("link-retry").addEventListener("click", () => connection.hurry());
byId("key-enter").addEventListener("click", () => key.ask("Another key may do."));
addEventListener("online", () => connection.hurry());
connection.open();
