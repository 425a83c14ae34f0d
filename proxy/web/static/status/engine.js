/**
 * The panel of llama-server.
 *
 * Owns how its state, its last end and its log are shown, and that a restart asks first.
 *
 * @module
 */

import { ask } from "/status/static/ask.js";
import { byId, Facts, Follower, setAttribute, setText, show } from "/status/static/dom.js";
import { count, engineTone, longDuration, NONE } from "/status/static/format.js";

export class EnginePanel {
  #facts = new Facts(byId("engine-facts"));
  #log = new Follower(byId("engine-log"));
  /** @type {import("./shapes.js").Engine | null} */
  #engine = null;

  /** @param {() => void} onRestart Called once somebody has said yes. */
  constructor(onRestart) {
    this.onRestart = onRestart;
    byId("engine-restart").addEventListener("click", () => this.#restart());
  }

  /** @param {import("./shapes.js").Engine} engine */
  report(engine) {
    this.#engine = engine;
    setText(byId("engine-state"), engine.state);
    setAttribute(byId("engine-state"), "data-tone", engineTone(engine.state));
    this.#load(engine);
    const failure = engine.failure ?? "";
    setText(byId("engine-failure"), failure);
    show(byId("engine-failure"), failure !== "");
    setText(this.#log.element, engine.log.length > 0 ? engine.log.join("\n") : "Nothing yet.");
    this.#log.follow();
    show(byId("engine-restart"), engine.managed);
    show(byId("engine-unmanaged"), !engine.managed);
  }

  /** @param {number} passedS How long ago the last report was, in seconds. */
  tick(passedS) {
    const engine = this.#engine;
    if (engine === null) return;
    const uptime = engine.uptime_s === null ? null : engine.uptime_s + passedS;
    this.#facts.render({
      Model: engine.model ?? NONE,
      Slots: count(engine.slots),
      Up: longDuration(uptime),
      Restarts: count(engine.restarts),
      Start: `no. ${count(engine.generation)}`,
      Process: engine.pid === null ? NONE : String(engine.pid),
      "Last end": engine.last_exit ?? "none",
    });
  }

  /** @param {import("./shapes.js").Engine} engine */
  #load({ state, progress }) {
    const bar = byId("engine-progress");
    show(bar, state === "starting");
    setAttribute(bar, "data-unknown", progress === null ? "" : null);
    setAttribute(
      bar,
      "aria-valuenow",
      progress === null ? null : String(Math.round(progress * 100)),
    );
    /** @type {HTMLElement} */ (bar.firstElementChild).style.setProperty(
      "--part",
      String(progress ?? 1),
    );
  }

  async #restart() {
    const running = this.#engine?.state === "ready";
    const sure = await ask({
      title: "Restart llama-server?",
      text: running
        ? "What is running may finish within the drain time, and ends with an error after it."
        : "It is started anew.",
      yes: "Restart",
    });
    if (sure) this.onRestart();
  }
}
