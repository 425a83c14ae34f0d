/**
 * Words and numbers for people.
 *
 * Owns units, digits and the names of phases and causes; knows nothing of elements. What is not
 * known is a dash, never a zero.
 *
 * @module
 */

export const NONE = "\u2013";

const WHOLE = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const TENTHS = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

/** @typedef {"good" | "bad" | "wait" | "calm"} Tone */

/** @param {number | null | undefined} value */
export function count(value) {
  return value == null ? NONE : WHOLE.format(value);
}

/**
 * A count for a narrow place: from ten thousand on in thousands.
 *
 * @param {number | null | undefined} value
 */
export function shortCount(value) {
  if (value == null || value < 10_000) return count(value);
  return `${(value < 100_000 ? TENTHS : WHOLE).format(value / 1000)}k`;
}

/**
 * Tokens per second, without the unit.
 *
 * @param {number | null | undefined} value
 */
export function rate(value) {
  if (value == null) return NONE;
  return value === 0 || value >= 100 ? WHOLE.format(value) : TENTHS.format(value);
}

/** @param {number | null | undefined} value Between 0 and 1. */
export function percent(value) {
  return value == null ? NONE : `${WHOLE.format(value * 100)} %`;
}

/** @param {number | null | undefined} value In bytes. */
export function bytes(value) {
  if (value == null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB"];
  let unit = 0;
  let size = value;
  for (; size >= 1024 && unit < units.length - 1; unit += 1) size /= 1024;
  return `${unit === 0 || size >= 100 ? WHOLE.format(size) : TENTHS.format(size)} ${units[unit]}`;
}

/** @param {number | null | undefined} value In seconds. */
export function duration(value) {
  if (value == null) return NONE;
  if (value < 1) return `${WHOLE.format(value * 1000)} ms`;
  if (value < 60) return `${TENTHS.format(value)} s`;
  return longDuration(value);
}

/** @param {number | null | undefined} value In seconds; no finer than they. */
export function longDuration(value) {
  if (value == null) return NONE;
  const whole = Math.floor(value);
  const steps = [
    { unit: "d", size: 86400, below: "h", part: 3600 },
    { unit: "h", size: 3600, below: "m", part: 60 },
    { unit: "m", size: 60, below: "s", part: 1 },
  ];
  const step = steps.find(({ size }) => whole >= size);
  if (step === undefined) return `${whole} s`;
  const rest = String(Math.floor((whole % step.size) / step.part)).padStart(2, "0");
  return `${Math.floor(whole / step.size)} ${step.unit} ${rest} ${step.below}`;
}

/** @param {number} unix In seconds. */
export function clock(unix) {
  return new Date(unix * 1000).toLocaleTimeString("en-GB");
}

/**
 * @param {string} name As the server has it.
 * @returns {string} As a sentence has it: `queue_timeout` is "Queue timeout".
 */
export function words(name) {
  const plain = name.replaceAll("_", " ");
  return plain.charAt(0).toUpperCase() + plain.slice(1);
}

/** Ends that somebody wanted, or that are nobody's fault. */
const CALM_CAUSES = new Set([
  "client_disconnected",
  "cancelled_by_admin",
  "cancelled_by_client",
  "token_revoked",
  "superseded",
  "shutting_down",
]);

/**
 * @param {string | null} cause
 * @returns {Tone}
 */
export function causeTone(cause) {
  if (cause === null) return "calm";
  if (cause === "finished") return "good";
  return CALM_CAUSES.has(cause) ? "calm" : "bad";
}

/** @type {Record<string, Tone>} */
const ENGINE_TONES = { ready: "good", crashed: "bad", failed: "bad", starting: "wait" };

/** @param {string} state */
export function engineTone(state) {
  return ENGINE_TONES[state] ?? "calm";
}
