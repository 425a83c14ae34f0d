/**
 * What the page shows: the last snapshot, and a card for each exchange, which outlives its
 * exchange by ten seconds.
 *
 * Owns how `status` and `token` events become that. Pure: knows no element, no clock and no
 * connection; times are handed in, in milliseconds of any clock that does not jump.
 *
 * @module
 */

import { Tail } from "/status/static/tail.js";

/** How long a card stays after its exchange ended: long enough to read why. */
export const ENDED_CARD_MS = 10_000;

/** Thirty seconds at four reports a second. */
const MOST_RATES = 120;

/**
 * @typedef {import("./shapes.js").Exchange} Exchange
 * @typedef {import("./shapes.js").Ended} Ended
 * @typedef {import("./shapes.js").Snapshot} Snapshot
 */

/** One exchange, as the page knows it. */
export class Card {
  text = new Tail();
  thought = new Tail();
  /** @type {string | null} */
  prompt = null;
  /** The last live rates, oldest first. @type {number[]} */
  rates = [];
  /** When it was seen to have ended. @type {number | null} */
  endedAt = null;
  /** Why it ended; null as long as it goes on, and when nobody saw it. @type {string | null} */
  cause = null;
  /** What the history has of it. @type {Ended | null} */
  ended = null;
  /** When `exchange` was reported. */
  reportedAt = 0;

  /** @param {Exchange} exchange */
  constructor(exchange) {
    this.exchange = exchange;
  }

  /**
   * @param {Exchange} exchange
   * @param {number} at
   */
  report(exchange, at) {
    this.exchange = exchange;
    this.reportedAt = at;
    // Only the first report of a connection has them; afterwards tokens go on.
    if (exchange.text !== null) this.text.replace(exchange.text, exchange.text_cut);
    if (exchange.thought !== null) this.thought.replace(exchange.thought, exchange.text_cut);
    if (exchange.prompt !== null) this.prompt = exchange.prompt;
    if (exchange.tokens_per_second !== null) {
      this.rates.push(exchange.tokens_per_second);
      if (this.rates.length > MOST_RATES) this.rates.shift();
    }
    if (hasEnded(exchange)) this.end(exchange.cause, null, at);
  }

  /**
   * @param {string | null} cause
   * @param {Ended | null} ended
   * @param {number} at
   */
  end(cause, ended, at) {
    this.endedAt ??= at;
    this.cause = cause ?? this.cause;
    this.ended = ended;
  }

  /** @param {number} at */
  elapsed(at) {
    if (this.ended !== null) return this.ended.total_s;
    const until = this.endedAt ?? at;
    return this.exchange.elapsed_s + Math.max(0, until - this.reportedAt) / 1000;
  }
}

export class Model {
  /** @type {Snapshot | null} */
  snapshot = null;
  /** When it came. */
  reportedAt = 0;
  /**
   * In order of arrival, by a name that is unique even where clients reuse ids.
   *
   * @type {Map<string, Card>}
   */
  cards = new Map();
  /** Those of the last snapshot. @type {Set<string>} */
  #present = new Set();

  /**
   * Takes a `status` event.
   *
   * @param {Snapshot} snapshot
   * @param {number} at
   * @returns {Card[]} The cards of what has ended since the last one.
   */
  report(snapshot, at) {
    const going = [...this.cards.values()].filter((card) => card.endedAt === null);
    this.snapshot = snapshot;
    this.reportedAt = at;
    this.#present = new Set();
    for (const exchange of snapshot.exchanges) this.#reportOne(exchange, at);
    for (const [name, card] of this.cards) {
      if (!this.#present.has(name) && card.ended === null) this.#close(card, snapshot, at);
    }
    return going.filter((card) => card.endedAt !== null);
  }

  /**
   * Takes a `token` event.
   *
   * @param {{ request_id: string, text: string, kind: "text" | "thought" }} token
   * @returns {boolean} Whether a card is another now.
   */
  token({ request_id: id, text, kind }) {
    const card = this.cards.get(id);
    if (card === undefined) return false;
    (kind === "thought" ? card.thought : card.text).append(text);
    return true;
  }

  /**
   * Drops cards whose time is over.
   *
   * @param {number} at
   * @param {(name: string) => boolean} isHeld Whether somebody is at a card: then it stays.
   */
  expire(at, isHeld) {
    for (const [name, card] of this.cards) {
      const over = card.endedAt !== null && at - card.endedAt >= ENDED_CARD_MS;
      if (over && !this.#present.has(name) && !isHeld(name)) this.cards.delete(name);
    }
  }

  /**
   * @param {Exchange} exchange
   * @param {number} at
   */
  #reportOne(exchange, at) {
    let name = exchange.request_id;
    for (let number = 2; this.#present.has(name); number += 1) {
      name = `${exchange.request_id} (${number})`;
    }
    this.#present.add(name);
    const known = this.cards.get(name);
    const isNew = known === undefined || (known.endedAt !== null && !hasEnded(exchange));
    const card = isNew ? new Card(exchange) : known;
    if (isNew) {
      this.cards.delete(name);
      this.cards.set(name, card);
    }
    card.report(exchange, at);
  }

  /**
   * @param {Card} card
   * @param {Snapshot} snapshot
   * @param {number} at
   */
  #close(card, snapshot, at) {
    const { request_id: id, started_at: start } = card.exchange;
    // The server's two clocks may be a little apart.
    const ended = snapshot.perf_history.findLast(
      (found) => found.request_id === id && found.ended_at > start - 1,
    );
    card.end(ended?.cause ?? null, ended ?? null, at);
  }
}

/**
 * Tells whether an exchange has ended. A cause comes before the phase where a client takes its time
 * to be told.
 *
 * @param {Exchange} exchange
 */
function hasEnded({ phase, cause }) {
  return phase === "ended" || cause !== null;
}
