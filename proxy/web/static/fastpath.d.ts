/** The types of fastpath.js; what each thing does is said there. */

/** How long the question where the fast path is may take, in milliseconds. */
export declare const NEGOTIATION_TIMEOUT_MS: number;

/** Which listener answered. */
export type StreamPath = "fast" | "main";

/** The options of `streamChat`. */
export interface StreamOptions {
  /** Ends the stream, at the server too, in whatever phase it is. */
  signal?: AbortSignal;
  /**
   * Gets the JSON of each event, in order, but `[DONE]`. The next one waits for the promise that it
   * returns, if it returns one.
   */
  onEvent?: (event: any) => unknown;
  /** The main listener's URL; else the origin that served the module. */
  baseUrl?: string;
  /** Sent to the main listener only. */
  apiKey?: string;
  /**
   * More headers for every request. Credentials among them are not sent to the fast path either: the
   * token is what it takes.
   */
  headers?: HeadersInit;
}

/** What ended a stream that is whole. */
export interface StreamResult {
  path: StreamPath;
  finished: true;
  /** What the server's log calls it. */
  requestId: string | null;
}

/**
 * Streams one chat completion. `body` is that of `/v1/chat/completions`; `stream: true` is added.
 *
 * Rejects with a `StreamError` when the stream did not end well, with an `AbortError` when the signal
 * was aborted, and with what `onEvent` threw; the stream is cancelled then.
 */
export declare function streamChat(body: object, options?: StreamOptions): Promise<StreamResult>;

/** Why a stream did not end well. */
export declare class StreamError extends Error {
  constructor(
    message: string,
    about: {
      type: string;
      path: StreamPath;
      code?: number | string | null;
      requestId?: string | null;
      cause?: unknown;
    },
  );
  /**
   * The server's, where the server said one; otherwise `network_error`, `incomplete_stream`,
   * `invalid_response`, `http_error` or `server_error`.
   */
  type: string;
  /** The server's code: mostly an HTTP status. */
  code: number | string | null;
  /** What the server's log calls it. */
  requestId: string | null;
  path: StreamPath;
}

/** One event of a stream. */
export interface ParsedEvent {
  /** Its type, `message` where the stream named none. */
  event: string;
  /** Its data lines, joined by a newline. */
  data: string;
  /** The last id that the stream has named so far; null before the first. */
  id: string | null;
}

/** Turns the bytes of one event stream into events, however they are cut. */
export declare class EventParser {
  /** Returns the events that `bytes` complete. */
  feed(bytes: Uint8Array): ParsedEvent[];
}
