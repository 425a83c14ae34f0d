/**
 * The browser's side of the fast path: a chat completion streamed from the lean listener, and from
 * the main one where the lean one cannot be used.
 *
 *     import { streamChat } from "http://127.0.0.1:8080/fastpath.js";
 *     await streamChat({ messages }, { signal, onEvent: (event) => show(event) });
 *
 * Owns the order of things: ask where the fast path is, use it, fall back. Whatever fails before the
 * first byte of a 200 answer's body leads to the main listener, silently, once; what fails after it
 * is reported and never asked for again, for the model may have spoken already. Owns too when a
 * stream is whole: with its `[DONE]`, and never without. Knows nothing of what events mean.
 *
 * Nothing outlives a call: each request has a scope of its own, and what the scope holds is aborted
 * with it, however it is left. That is how the server learns that nobody listens any more.
 *
 * Needs no other file. Types: fastpath.d.ts.
 *
 * @module
 */

/**
 * How long the question where the fast path is may take, in milliseconds. It is answered from
 * memory, within a round trip; five seconds are those of a bad mobile connection. Past them the main
 * listener is asked, and the page has lost no more than these.
 */
export const NEGOTIATION_TIMEOUT_MS = 5000;

/**
 * How long the end of the body may take after `[DONE]`, in milliseconds. It comes with it or right
 * after it; when it is awaited, the connection can be used again, and the server knows that its
 * answer was taken whole. An answer is not worth less without.
 */
const LINGER_MS = 1000;

const NEGOTIATION_PATH = "/api/inference/stream-url";
const MAIN_PATH = "/v1/chat/completions";
const CREDENTIALS = ["authorization", "x-api-key"];
const DONE = "[DONE]";

/**
 * Why a stream did not end well.
 *
 * Its `type` is the server's, where the server said one, and otherwise one of `network_error` (no
 * connection, or it was lost), `incomplete_stream` (it ended without `[DONE]`), `invalid_response`
 * (what came is no event stream of JSON), `http_error` (a status without an error object) and
 * `server_error` (an error object without a type).
 */
export class StreamError extends Error {
  /**
   * @param {string} message For a person.
   * @param {object} about
   * @param {string} about.type What went wrong, for a program.
   * @param {"fast" | "main"} about.path Where.
   * @param {number | string | null} [about.code] The server's code: mostly an HTTP status.
   * @param {string | null} [about.requestId] What the server's log calls it.
   * @param {unknown} [about.cause] The error behind it.
   */
  constructor(message, { type, path, code = null, requestId = null, cause }) {
    super(message, { cause });
    this.name = "StreamError";
    this.type = type;
    this.code = code;
    this.requestId = requestId;
    this.path = path;
  }
}

/**
 * Turns the bytes of one event stream into events, however they are cut.
 *
 * What is unfinished when the stream ends is no event: whoever reads just stops feeding.
 *
 * Source: WHATWG HTML, section 9.2 "Server-sent events" ("interpreting an event stream").
 */
export class EventParser {
  // The decoder drops the byte order mark, and holds what was cut of a character.
  #decoder = new TextDecoder();
  #line = "";
  #afterCr = false;
  #type = "";
  /** @type {string[]} */
  #data = [];
  /** @type {string | null} */
  #lastId = null;

  /**
   * @param {Uint8Array} bytes The next ones.
   * @returns {{ event: string, data: string, id: string | null }[]} The events that they complete.
   */
  feed(bytes) {
    return this.#lines(bytes)
      .map((line) => this.#interpret(line))
      .filter((event) => event !== null);
  }

  /** @param {Uint8Array} bytes */
  #lines(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    // The second half of a CR LF that was cut in two.
    if (this.#afterCr && text.startsWith("\n")) text = text.slice(1);
    this.#afterCr = text.endsWith("\r");
    const lines = text.split(/\r\n|\r|\n/);
    lines[0] = this.#line + lines[0];
    this.#line = /** @type {string} */ (lines.pop());
    return lines;
  }

  /** @param {string} line */
  #interpret(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#type = value;
    else if (name === "id" && !value.includes("\0")) this.#lastId = value;
    return null;
  }

  #dispatch() {
    const event = { event: this.#type || "message", data: this.#data.join("\n"), id: this.#lastId };
    const complete = this.#data.length > 0;
    this.#type = "";
    this.#data = [];
    return complete ? event : null;
  }
}

/**
 * Streams one chat completion.
 *
 * @param {object} body That of `/v1/chat/completions`; `stream: true` is added.
 * @param {object} [options]
 * @param {AbortSignal} [options.signal] Ends the stream, at the server too, in whatever phase it is.
 * @param {(event: any) => unknown} [options.onEvent] Gets the JSON of each event, in order, but
 *   `[DONE]`. The next one waits for the promise that it returns, if it returns one.
 * @param {string} [options.baseUrl] The main listener's URL; else the origin that served this module.
 * @param {string} [options.apiKey] Sent to the main listener only.
 * @param {HeadersInit} [options.headers] More headers for every request. Credentials among them are
 *   not sent to the fast path either: the token is what it takes.
 * @returns {Promise<{ path: "fast" | "main", finished: true, requestId: string | null }>} What ended
 *   it, once the stream is whole.
 * @throws {StreamError} The stream did not end well.
 * @throws {DOMException} `AbortError`: the signal was aborted.
 * @throws {unknown} What `onEvent` threw; the stream is cancelled then.
 */
export async function streamChat(body, options = {}) {
  const call = new Call(body, options);
  try {
    return await call.run();
  } catch (error) {
    // Whatever an abort broke, and with whatever reason: it is what the caller asked for.
    throw options.signal?.aborted ? new DOMException("The stream was aborted.", "AbortError") : error;
  }
}

/** One call of `streamChat`. */
class Call {
  /**
   * @param {object} body
   * @param {NonNullable<Parameters<typeof streamChat>[1]>} options
   */
  constructor(body, { signal, onEvent, baseUrl, apiKey, headers }) {
    // A string, above all: JSON already, which would be spread into its letters.
    if (typeof body !== "object" || body === null) throw new TypeError("The body is no object.");
    this.signal = signal;
    this.onEvent = onEvent;
    this.base = (baseUrl ?? new URL(import.meta.url).origin).replace(/\/+$/, "");
    this.body = JSON.stringify({ ...body, stream: true });
    this.headers = new Headers(headers);
    if (apiKey !== undefined) this.headers.set("Authorization", `Bearer ${apiKey}`);
  }

  async run() {
    const fast = await this.negotiate();
    if (fast !== null) {
      const tried = await this.attempt(fast);
      if (tried.begun) return tried.result;
    }
    const tried = await this.attempt(this.mainRequest());
    if (!tried.begun) throw tried.error;
    return tried.result;
  }

  /** Asks where the fast path is: its request, or null for whatever reason there is none. */
  async negotiate() {
    try {
      const answer = await withScope(this.signal, async (scope) => {
        const timer = setTimeout(() => scope.abort(), NEGOTIATION_TIMEOUT_MS);
        try {
          const { headers, base } = this;
          const init = { headers, signal: scope.signal, cache: /** @type {const} */ ("no-store") };
          const response = await fetch(base + NEGOTIATION_PATH, init);
          return response.ok ? await response.json() : null;
        } finally {
          clearTimeout(timer);
        }
      });
      return answer?.supported === true ? this.fastRequest(answer) : null;
    } catch {
      return null;
    }
  }

  /** @param {{ stream_url: unknown, token: unknown }} answer */
  fastRequest({ stream_url: url, token }) {
    if (typeof url !== "string" || typeof token !== "string" || token === "") return null;
    const { href, protocol } = new URL(url);
    if (protocol !== "http:" && protocol !== "https:") return null;
    const headers = new Headers(this.headers);
    for (const name of CREDENTIALS) headers.delete(name);
    headers.set("X-Stream-Token", token);
    // The token is for this URL, and not for where it may lead to.
    return this.request("fast", href, { headers, redirect: "error" });
  }

  mainRequest() {
    return this.request("main", this.base + MAIN_PATH, { headers: new Headers(this.headers) });
  }

  /**
   * @param {"fast" | "main"} path
   * @param {string} url
   * @param {{ headers: Headers, redirect?: RequestRedirect }} init
   */
  request(path, url, init) {
    init.headers.set("Content-Type", "application/json");
    init.headers.set("Accept", "text/event-stream");
    return { path, url, init: { ...init, method: "POST", body: this.body } };
  }

  /**
   * Sends a request and, once its answer has begun, hands its events over until they end.
   *
   * @param {ReturnType<Call["request"]>} request
   * @returns {Promise<{ begun: false, error: unknown } | { begun: true, result: Finished }>}
   */
  attempt(request) {
    return withScope(this.signal, async ({ signal }) => {
      const stream = new ByteStream(request.path);
      try {
        await stream.open(request, signal);
      } catch (error) {
        return { begun: false, error };
      }
      return { begun: true, result: await this.deliver(stream, signal) };
    });
  }

  /**
   * @param {ByteStream} stream
   * @param {AbortSignal} signal
   * @returns {Promise<Finished>}
   */
  async deliver(stream, signal) {
    const parser = new EventParser();
    for await (const bytes of stream) {
      for (const { data } of parser.feed(bytes)) {
        // An event handler may have aborted: what came with its event is not handed over any more.
        signal.throwIfAborted();
        if (data === DONE) {
          await stream.linger();
          return { path: stream.path, finished: true, requestId: stream.requestId };
        }
        await this.onEvent?.(stream.parse(data));
      }
    }
    throw stream.error("The stream ended before it was finished.", { type: "incomplete_stream" });
  }
}

/**
 * @typedef {{ path: "fast" | "main", finished: true, requestId: string | null }} Finished
 * @typedef {{ type: string, code?: number | string | null, requestId?: string | null,
 *   cause?: unknown }} About
 */

/** The bytes of one answer, and the errors that they can be. */
class ByteStream {
  /** @type {string | null} */
  requestId = null;
  /** @type {ReadableStreamDefaultReader<Uint8Array> | undefined} */
  #reader;
  /** @type {Uint8Array | undefined} */
  #first;

  /** @param {"fast" | "main"} path */
  constructor(path) {
    this.path = path;
  }

  /**
   * Waits for the first byte, for as long as it takes: a prompt may take minutes.
   *
   * @param {ReturnType<Call["request"]>} request
   * @param {AbortSignal} signal
   */
  async open({ url, init }, signal) {
    const response = await this.#fetched(fetch(url, { ...init, signal }));
    this.requestId = response.headers.get("X-Request-Id");
    if (response.status !== 200) throw await this.#refusal(response);
    const kind = response.headers.get("Content-Type") ?? "";
    if (!/^text\/event-stream\s*(;|$)/i.test(kind)) {
      throw this.error("The answer is not an event stream.", { type: "invalid_response" });
    }
    this.#reader = response.body?.getReader();
    this.#first = await this.#read();
    if (this.#first === undefined) {
      throw this.error("The answer is empty.", { type: "incomplete_stream" });
    }
  }

  async *[Symbol.asyncIterator]() {
    for (let bytes = this.#first; bytes !== undefined; bytes = await this.#read()) yield bytes;
  }

  /** Takes what comes after the last event, for a short time: nothing of it matters any more. */
  async linger() {
    const timer = setTimeout(() => this.#reader?.cancel().catch(() => {}), LINGER_MS);
    try {
      while ((await this.#read()) !== undefined);
    } catch {
      // The answer was whole before.
    } finally {
      clearTimeout(timer);
    }
  }

  /**
   * Returns the JSON of an event.
   *
   * @param {string} data
   */
  parse(data) {
    const value = this.#json(data);
    if (value?.error) throw this.#told(value.error, { type: "server_error" });
    return value;
  }

  /**
   * @param {string} message
   * @param {About} about
   */
  error(message, about) {
    return new StreamError(message, { path: this.path, requestId: this.requestId, ...about });
  }

  /** Returns the next bytes, at least one (the Fetch standard has it so); undefined at the end. */
  async #read() {
    return this.#reader && (await this.#fetched(this.#reader.read())).value;
  }

  /**
   * Waits for something of the network's, whose errors say nothing to a page.
   *
   * @template T
   * @param {Promise<T>} promise
   */
  async #fetched(promise) {
    try {
      return await promise;
    } catch (cause) {
      throw this.error("The connection to the server was lost, or could not be made.", {
        type: "network_error",
        cause,
      });
    }
  }

  /** @param {Response} response */
  async #refusal(response) {
    const usual = { type: "http_error", code: response.status };
    const plain = this.error(`The server answered with status ${response.status}.`, usual);
    // Nobody reads why the fast path refuses, and nobody waits for it.
    if (this.path === "fast") return plain;
    try {
      const { error } = await response.json();
      return error ? this.#told(error, usual) : plain;
    } catch {
      return plain;
    }
  }

  /**
   * Returns the error that an error object of the server's is.
   *
   * @param {any} error
   * @param {About} usual What it is where the object does not say.
   */
  #told(error, usual) {
    const { message, type, code, request_id: requestId } = Object(error);
    const text = typeof error === "string" ? error : message;
    return this.error(typeof text === "string" ? text : "The server reported an error.", {
      type: typeof type === "string" ? type : usual.type,
      code: code ?? usual.code,
      requestId: requestId ?? this.requestId,
    });
  }

  /** @param {string} data */
  #json(data) {
    try {
      return JSON.parse(data);
    } catch (cause) {
      throw this.error("An event of the stream is not JSON.", { type: "invalid_response", cause });
    }
  }
}

/**
 * Runs `work` with an `AbortController` that the caller's signal aborts as well, and aborts it at
 * the end: no request outlives the scope that it was made in. After an abort none is made any more.
 *
 * @template T
 * @param {AbortSignal | undefined} signal
 * @param {(scope: AbortController) => Promise<T>} work
 * @returns {Promise<T>}
 */
async function withScope(signal, work) {
  signal?.throwIfAborted();
  const scope = new AbortController();
  const abort = () => scope.abort();
  signal?.addEventListener("abort", abort);
  try {
    return await work(scope);
  } finally {
    signal?.removeEventListener("abort", abort);
    scope.abort();
  }
}
