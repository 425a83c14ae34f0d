/**
 * The table of the last exchanges, the latest first.
 *
 * Owns its rows; one is made when its exchange ends and never changed.
 *
 * @module
 */

import { arrange, make } from "/status/static/dom.js";
import { causeTone, clock, count, duration, percent, rate, words } from "/status/static/format.js";

export class History {
  /** @type {Map<string, HTMLTableRowElement>} */
  #rows = new Map();

  /** @param {HTMLElement} body A `<tbody>`. */
  constructor(body) {
    this.body = body;
  }

  /** @param {import("./model.js").Ended[]} ended Oldest first. */
  render(ended) {
    /** @type {Map<string, HTMLTableRowElement>} */
    const rows = new Map();
    for (const each of ended.toReversed()) {
      const name = `${each.request_id} ${each.ended_at}`;
      rows.set(name, this.#rows.get(name) ?? rowOf(each));
    }
    this.#rows = rows;
    arrange(this.body, [...rows.values()]);
  }
}

/** @param {import("./model.js").Ended} ended */
function rowOf(ended) {
  const cause = make(
    "span",
    { class: "cause", "data-tone": causeTone(ended.cause) },
    words(ended.cause),
  );
  const numbers = [
    rate(ended.prefill_tokens_per_second),
    rate(ended.decode_tokens_per_second),
    `${count(ended.prefill_tokens)} + ${count(ended.decode_tokens)}`,
    percent(ended.acceptance),
    duration(ended.first_token_s),
    duration(ended.total_s),
  ];
  return make(
    "tr",
    { title: `${ended.request_id}, ${ended.model ?? ""}, ${count(ended.cached_tokens)} cached` },
    make("td", {}, clock(ended.ended_at)),
    make("td", {}, ended.route),
    make("td", {}, cause),
    ...numbers.map((text) => make("td", "number", text)),
  );
}
