/**
 * The panels of numbers: what fits in, what waits, and what the proxy itself takes; the strip of
 * the most important of them.
 *
 * @module
 */

import { arrange, byId, Facts, make, setAttribute, setText } from "/status/static/dom.js";
import { bytes, count, longDuration, rate, words } from "/status/static/format.js";

export class CapacityPanels {
  #figures = new Facts(byId("figures"));
  #tokens = new Facts(byId("stream-tokens"));
  #predictions = new Facts(byId("predictions"));
  #proxy = new Facts(byId("proxy-facts"));
  /** @type {GateView[]} */
  #gates = [];
  /** @type {import("./shapes.js").Snapshot | null} */
  #snapshot = null;

  /** @param {import("./shapes.js").Snapshot} snapshot */
  report(snapshot) {
    this.#snapshot = snapshot;
    this.#summarize(snapshot);
    while (this.#gates.length < snapshot.gates.length) this.#gates.push(new GateView());
    this.#gates.length = snapshot.gates.length;
    snapshot.gates.forEach((gate, index) => this.#gates[index].report(gate));
    arrange(
      byId("gates"),
      this.#gates.map((view) => view.element),
    );
    const { waiting, running } = snapshot.stream_tokens;
    this.#tokens.render({ Waiting: count(waiting), Running: count(running) });
    const predictions = Object.entries(snapshot.predictions);
    this.#predictions.render(
      Object.fromEntries(predictions.map(([name, number]) => [words(name), count(number)])),
    );
  }

  /** @param {number} passedS How long ago the last report was, in seconds. */
  tick(passedS) {
    if (this.#snapshot === null) return;
    const { proxy } = this.#snapshot;
    this.#proxy.render({
      Version: proxy.version,
      Up: longDuration(proxy.uptime_s + passedS),
      Memory: bytes(proxy.rss_bytes),
      Tasks: count(proxy.tasks),
      Connections: count(proxy.connections),
      Viewers: count(proxy.viewers),
    });
  }

  /** @param {import("./shapes.js").Snapshot} snapshot */
  #summarize({ phase: now, exchanges, gates, total_requests: total }) {
    const going = exchanges.filter(({ phase, cause }) => phase !== "ended" && cause === null);
    const speed = going.reduce((sum, exchange) => sum + (exchange.tokens_per_second ?? 0), 0);
    this.#figures.render({
      Phase: words(now),
      Running: count(going.filter((exchange) => exchange.phase !== "queued").length),
      Queued: count(gates.reduce((sum, gate) => sum + gate.queued, 0)),
      "Tokens per second": rate(speed),
      "Requests so far": count(total),
    });
  }
}

class GateView {
  #name = make("span");
  #text = make("span", "number");
  #fill = make("span", "fill");
  #bar = make("div", { class: "meter", role: "meter", "aria-valuemin": "0" }, this.#fill);
  element = make("div", "gate", make("div", "gate-head", this.#name, this.#text), this.#bar);

  /** @param {import("./shapes.js").Gate} gate */
  report({ model, permits, admitted, queued }) {
    const name = model === "" ? "Permits" : model;
    const most = permits ?? Math.max(1, admitted);
    const bound = permits === null ? "any number" : count(permits);
    const text = `${count(admitted)} of ${bound} taken, ${count(queued)} queued`;
    setText(this.#name, name);
    setText(this.#text, text);
    setAttribute(this.#bar, "aria-label", name);
    setAttribute(this.#bar, "aria-valuemax", String(most));
    setAttribute(this.#bar, "aria-valuenow", String(Math.min(admitted, most)));
    setAttribute(this.#bar, "aria-valuetext", text);
    this.#fill.style.setProperty("--part", String(most > 0 ? Math.min(1, admitted / most) : 0));
  }
}
