/**
 * The state of the connection, in words.
 *
 * Owns what is said of it, and to whom: a change is announced, the countdown is not. Owns also what
 * is said when something that was asked for failed.
 *
 * @module
 */

import { byId, setAttribute, setText, show } from "/status/static/dom.js";

/** @typedef {import("./connection.js").State} State */

export class LinkPanel {
  /** @type {State} */
  #state = { name: "connecting" };
  #since = 0;
  /** @type {Date | null} */
  #lastSeen = null;
  /** @type {import("./shapes.js").Engine | null} */
  #engine = null;

  /**
   * @param {State} state
   * @param {number} at
   * @param {string | null} key
   */
  changed(state, at, key) {
    if (this.#state.name === "live" && state.name !== "live") this.#lastSeen = new Date();
    this.#state = state;
    this.#since = at;
    const asks = state.name === "key" || state.name === "admin";
    show(byId("link-retry"), state.name === "waiting");
    show(byId("key-enter"), asks);
    show(byId("key-forget"), key !== null);
    this.#say(key !== null);
    this.tick(at);
  }

  /**
   * @param {import("./shapes.js").Engine} engine
   */
  report(engine) {
    this.#engine = engine;
    this.#say(true);
  }

  /** @param {number} at */
  tick(at) {
    const { retryInMs } = this.#state;
    const left =
      retryInMs === undefined ? 0 : Math.max(0, Math.ceil((retryInMs - (at - this.#since)) / 1000));
    setText(byId("link-countdown"), retryInMs === undefined ? "" : `Trying again in ${left} s`);
  }

  /** @param {string | null} message What failed; null: nothing any more. */
  fail(message) {
    setText(byId("failure"), message ?? "");
    show(byId("failure"), message !== null);
  }

  /** @param {boolean} hasKey */
  #say(hasKey) {
    const { text, tone } = describe(this.#state, hasKey, this.#engine);
    setText(byId("link-state"), text);
    setAttribute(byId("link"), "data-tone", tone);
    const stale = this.#state.name !== "live" && this.#lastSeen !== null;
    show(byId("stale"), stale);
    if (stale)
      setText(
        byId("stale"),
        `What is below is as it was at ${this.#lastSeen?.toLocaleTimeString("en-GB")}.`,
      );
  }
}

/**
 * @param {State} state
 * @param {boolean} hasKey
 * @param {import("./shapes.js").Engine | null} engine
 * @returns {{ text: string, tone: import("./format.js").Tone }}
 */
function describe({ name, message, status }, hasKey, engine) {
  if (name === "connecting") return { text: "Connecting", tone: "wait" };
  if (name === "live") return describeLive(engine);
  if (name === "admin") return { text: "Needs an admin key", tone: "bad" };
  if (name === "key") return { text: hasKey ? "Key refused" : "Key needed", tone: "bad" };
  if (status === 503 && /load/i.test(message ?? ""))
    return { text: "Loading the model.", tone: "wait" };
  return { text: message ?? "Server is gone.", tone: "bad" };
}

/**
 * @param {import("./shapes.js").Engine | null} engine
 * @returns {{ text: string, tone: import("./format.js").Tone }}
 */
function describeLive(engine) {
  if (engine?.state === "starting") return { text: "Live, loading the model", tone: "wait" };
  if (engine === null || engine.state === "ready") return { text: "Live", tone: "good" };
  return {
    text: `Live, llama-server is ${engine.state}`,
    tone: engine.state === "stopping" ? "wait" : "bad",
  };
}
