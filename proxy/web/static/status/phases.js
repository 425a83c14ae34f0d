/**
 * The bar of an exchange's way: queue, prefill, decode.
 *
 * Owns how full each part is, and says the same in words, for it is one progress bar to who cannot
 * see it.
 *
 * @module
 */

import { make, setAttribute, setText } from "/status/static/dom.js";
import { duration, NONE, shortCount, words } from "/status/static/format.js";

const ORDER = ["queued", "connecting", "prefill", "decode", "ended"];

export class PhaseBar {
  #legs = { queue: new Leg("queue"), prefill: new Leg("prefill"), decode: new Leg("decode") };

  constructor() {
    const legs = Object.values(this.#legs).map((leg) => leg.track);
    const labels = Object.values(this.#legs).map((leg) => leg.label);
    this.bar = make(
      "div",
      {
        class: "legs",
        role: "progressbar",
        "aria-label": "Progress",
        "aria-valuemin": "0",
        "aria-valuemax": "100",
      },
      ...legs,
    );
    this.element = make(
      "div",
      "phases",
      this.bar,
      make("div", { class: "legs", "aria-hidden": "true" }, ...labels),
    );
  }

  /** @param {import("./model.js").Card} card */
  render(card) {
    const parts = { queue: queueOf(card), prefill: prefillOf(card), decode: decodeOf(card) };
    for (const [name, part] of Object.entries(parts)) {
      this.#legs[/** @type {keyof typeof parts} */ (name)].render(part);
    }
    const { phase } = card.exchange;
    const now =
      phase === "queued" || phase === "connecting"
        ? parts.queue
        : phase === "prefill"
          ? parts.prefill
          : parts.decode;
    const known = now.part !== null && card.endedAt === null;
    setAttribute(
      this.bar,
      "aria-valuenow",
      known ? String(Math.round(100 * (now.part ?? 0))) : null,
    );
    setAttribute(this.bar, "aria-valuetext", `${words(phase)}, ${now.text}`);
  }
}

/**
 * @typedef {object} Part
 * @property {number | null} part How full it is, up to 1; null: it goes on, nobody knows how far.
 * @property {number} [before] How full it was before it began.
 * @property {string} text How far it is, in words.
 * @property {boolean} active
 */

class Leg {
  #before = make("span", "fill before");
  #fill = make("span", "fill");
  #value = make("span", "leg-value");

  /** @param {string} name */
  constructor(name) {
    this.track = make("span", `leg ${name}`, this.#fill, this.#before);
    this.label = make("span", "leg-label", make("span", {}, words(name)), this.#value);
  }

  /** @param {Part} part */
  render({ part, before = 0, text, active }) {
    this.#fill.style.setProperty("--part", String(part ?? 1));
    this.#before.style.setProperty("--part", String(before));
    setAttribute(this.track, "data-active", active ? "" : null);
    setAttribute(this.track, "data-unknown", part === null ? "" : null);
    setText(this.#value, text);
  }
}

/**
 * @param {import("./model.js").Card} card
 * @param {string} phase
 */
function isAt(card, phase) {
  return card.endedAt === null && card.exchange.phase === phase;
}

/**
 * Tells whether an exchange got beyond a phase. Of one that has ended, what it left behind tells.
 *
 * @param {import("./model.js").Card} card
 * @param {string} phase
 */
function isPast({ exchange }, phase) {
  if (exchange.phase !== "ended") return ORDER.indexOf(exchange.phase) > ORDER.indexOf(phase);
  return phase === "queued" ? exchange.queued_s !== null : exchange.first_token_s !== null;
}

/**
 * @param {import("./model.js").Card} card
 * @returns {Part}
 */
function queueOf(card) {
  const { phase, position, queued_s: queued } = card.exchange;
  const active = card.endedAt === null && (phase === "queued" || phase === "connecting");
  if (phase === "queued")
    return { part: 0, text: position > 0 ? `place ${position}` : "waiting", active };
  if (phase === "connecting") return { part: 1, text: "connecting", active };
  return { part: isPast(card, "queued") ? 1 : 0, text: duration(queued), active };
}

/**
 * @param {import("./model.js").Card} card
 * @returns {Part}
 */
function prefillOf(card) {
  const { progress, prompt_tokens: prompt } = card.exchange;
  const past = isPast(card, "prefill");
  const active = isAt(card, "prefill");
  const total = prompt ?? progress?.total ?? null;
  const before = total ? Math.min(1, (cachedOf(card) ?? 0) / total) : 0;
  if (past) return { part: 1, before, text: shortCount(total), active };
  if (progress === null) return { part: active ? null : 0, text: shortCount(total), active };
  const part = Math.min(1, progress.processed / Math.max(1, progress.total));
  return {
    part,
    before,
    text: `${shortCount(progress.processed)} of ${shortCount(progress.total)}`,
    active,
  };
}

/**
 * @param {import("./model.js").Card} card
 * @returns {number | null} How many tokens of the prompt were there before.
 */
export function cachedOf({ exchange }) {
  return exchange.progress?.cached ?? exchange.cached_tokens;
}

/**
 * @param {import("./model.js").Card} card
 * @returns {Part}
 */
function decodeOf(card) {
  if (!isPast(card, "prefill")) return { part: 0, text: NONE, active: false };
  const tokens = card.ended?.decode_tokens ?? card.exchange.completion_tokens;
  const { max_tokens: most } = card.exchange.parameters;
  const active = card.endedAt === null;
  const isWhole = card.cause === "finished";
  if (isWhole || typeof most !== "number" || most <= 0) {
    return { part: active ? null : 1, text: shortCount(tokens), active };
  }
  return {
    part: Math.min(1, tokens / most),
    text: `${shortCount(tokens)} of ${shortCount(most)}`,
    active,
  };
}
