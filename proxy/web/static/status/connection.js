/**
 * The stream of reports: opened with the key in a header, read, and opened again when it ends.
 *
 * Owns the connection's states and the pauses between attempts; knows nothing of what the events
 * mean. A connection that is silent for longer than two heartbeats is taken for dead. There is
 * nothing to resume: each connection begins with the whole state.
 *
 * @module
 */

import { EventParser } from "/fastpath.js";

const EVENTS_URL = "/status/events";

/** The server says something every 15 seconds; one heartbeat may be lost on the way. */
const SILENCE_MS = 40_000;

/** A restart takes a second or two; after a minute without an answer nobody is in a hurry. */
const PAUSES_MS = [1000, 2000, 4000, 8000, 15_000];

/** Many viewers of one server shall not all come back in the same moment. */
const JITTER = 0.2;

/**
 * @typedef {object} State
 * @property {"connecting" | "live" | "waiting" | "key" | "admin"} name `waiting` is for the next
 *   attempt, `key` and `admin` for a key, or for another one.
 * @property {string} [message] Why, where the server said so.
 * @property {number | null} [status] What it answered; null: nothing.
 * @property {number} [retryInMs] How long until the next attempt.
 */

/** What was answered instead of what was asked for. */
export class Refused extends Error {
  /**
   * @param {number} status
   * @param {string} message
   */
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export class Connection {
  #attempts = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #scope = new AbortController();
  /** @type {State} */
  #state = { name: "connecting" };

  /**
   * @param {object} about
   * @param {() => string | null} about.key The key to send.
   * @param {(state: State) => void} about.onState
   * @param {(name: string, data: any) => void} about.onEvent
   */
  constructor({ key, onState, onEvent }) {
    this.key = key;
    this.onState = onState;
    this.onEvent = onEvent;
  }

  /** Connects now, whatever it is at. */
  open() {
    this.#scope.abort();
    clearTimeout(this.#timer);
    this.#scope = new AbortController();
    this.#tell({ name: "connecting" });
    this.#run(this.#scope);
  }

  /** Connects now, if it is waiting for the time to do so. */
  hurry() {
    if (this.#state.name === "waiting") this.open();
  }

  /** @param {AbortController} scope That of this attempt; another one may have taken its place. */
  async #run(scope) {
    try {
      await this.#follow(scope);
      throw new Error("The stream ended.");
    } catch (error) {
      if (scope === this.#scope) this.#give(error);
    } finally {
      scope.abort();
    }
  }

  /** @param {AbortController} scope */
  async #follow(scope) {
    this.#watch(scope);
    const response = await fetch(EVENTS_URL, {
      headers: credential(this.key()),
      cache: "no-store",
      signal: scope.signal,
    });
    if (!response.ok || response.body === null) throw await refusal(response);
    const parser = new EventParser();
    const reader = response.body.getReader();
    for (let read = await reader.read(); !read.done; read = await reader.read()) {
      if (scope !== this.#scope) return;
      this.#watch(scope);
      for (const { event, data } of parser.feed(read.value)) this.#deliver(event, data);
    }
  }

  /**
   * @param {string} event
   * @param {string} data
   */
  #deliver(event, data) {
    this.onEvent(event, JSON.parse(data));
    this.#attempts = 0;
    if (this.#state.name !== "live") this.#tell({ name: "live" });
  }

  /**
   * Gives the server time for its next word.
   *
   * @param {AbortController} scope
   */
  #watch(scope) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => scope.abort(), SILENCE_MS);
  }

  /** @param {unknown} error What ended an attempt. */
  #give(error) {
    clearTimeout(this.#timer);
    const status = error instanceof Refused ? error.status : null;
    const message = error instanceof Refused ? error.message : undefined;
    if (status === 401 || status === 403) {
      this.#tell({ name: status === 401 ? "key" : "admin", message, status });
      return;
    }
    const pause = PAUSES_MS[Math.min(this.#attempts, PAUSES_MS.length - 1)];
    const retryInMs = pause * (1 + JITTER * (2 * Math.random() - 1));
    this.#attempts += 1;
    this.#timer = setTimeout(() => this.open(), retryInMs);
    this.#tell({ name: "waiting", message, status, retryInMs });
  }

  /** @param {State} state */
  #tell(state) {
    this.#state = state;
    this.onState(state);
  }
}

/**
 * Asks the server to do something.
 *
 * @param {"DELETE" | "POST"} method
 * @param {string} path
 * @param {string | null} key
 * @throws {Error} It did not; the message says why.
 */
export async function command(method, path, key) {
  const init = { method, headers: credential(key), cache: /** @type {const} */ ("no-store") };
  const response = await fetch(path, init).catch(() => null);
  if (response === null) throw new Error("The server cannot be reached.");
  if (!response.ok) throw await refusal(response);
}

/**
 * @param {string | null} key
 * @returns {HeadersInit}
 */
function credential(key) {
  return key === null ? {} : { Authorization: `Bearer ${key}` };
}

/** @param {Response} response */
async function refusal(response) {
  const body = await response.json().catch(() => null);
  const message = body?.error?.message;
  const usual = `The server answered with status ${response.status}.`;
  return new Refused(response.status, typeof message === "string" ? message : usual);
}
