/**
 * The shapes of what the server reports, as types for editors; nothing loads this file.
 *
 * Source: docs/status.md, which says what each field means.
 *
 * @module
 */

/**
 * @typedef {{ total: number, processed: number, cached: number }} Progress
 *
 * @typedef {object} Exchange
 * @property {string} request_id
 * @property {string} method
 * @property {string} route
 * @property {"queued" | "connecting" | "prefill" | "decode" | "ended"} phase
 * @property {number} position
 * @property {string | null} cause
 * @property {number | null} status
 * @property {string | null} model
 * @property {Record<string, boolean | number | string | null>} parameters
 * @property {string | null} session
 * @property {string | null} key
 * @property {string[]} tags
 * @property {number} started_at
 * @property {number} elapsed_s
 * @property {number | null} queued_s
 * @property {number | null} first_token_s
 * @property {Progress | null} progress
 * @property {number | null} prompt_tokens
 * @property {number | null} cached_tokens
 * @property {number} completion_tokens
 * @property {number | null} tokens_per_second
 * @property {number | null} acceptance
 * @property {number} bytes
 * @property {string | null} prompt
 * @property {string | null} text
 * @property {string | null} thought
 * @property {boolean} text_cut
 *
 * @typedef {object} Ended
 * @property {string} request_id
 * @property {string} route
 * @property {string | null} model
 * @property {string} cause
 * @property {number} ended_at
 * @property {number} prefill_tokens
 * @property {number} cached_tokens
 * @property {number | null} prefill_tokens_per_second
 * @property {number} decode_tokens
 * @property {number | null} decode_tokens_per_second
 * @property {number | null} acceptance
 * @property {number | null} first_token_s
 * @property {number} total_s
 * @property {string[]} tags
 *
 * @typedef {{ name: string, children: Task[] }} Task
 * @typedef {{ model: string, permits: number | null, admitted: number, queued: number }} Gate
 *
 * @typedef {object} Engine
 * @property {string} state
 * @property {string | null} model
 * @property {number | null} slots
 * @property {number} restarts
 * @property {number} generation
 * @property {number | null} uptime_s
 * @property {number | null} pid
 * @property {string | null} last_exit
 * @property {string | null} failure
 * @property {number | null} progress
 * @property {boolean} managed
 * @property {string[]} log
 *
 * @typedef {object} ProxyFacts
 * @property {string} version
 * @property {number} uptime_s
 * @property {number | null} rss_bytes
 * @property {number} tasks
 * @property {number} connections
 * @property {number} viewers
 *
 * @typedef {object} Snapshot
 * @property {string} phase
 * @property {number} total_requests
 * @property {Ended[]} perf_history
 * @property {Engine} engine
 * @property {Exchange[]} exchanges
 * @property {Gate[]} gates
 * @property {{ waiting: number, running: number }} stream_tokens
 * @property {Record<string, number>} predictions
 * @property {ProxyFacts} proxy
 * @property {Task} tasks
 * @property {"full" | "none"} content
 * @property {number} now
 */

export {};
