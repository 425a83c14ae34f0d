/**
 * The charts: rates of the last exchanges, and the rate of one as it goes. Drawn by uPlot.
 *
 * Owns their options and sizes. Colours are the style sheet's, asked for at each drawing, so that a
 * change of scheme needs a drawing only.
 *
 * @module
 */

import uPlot from "/status/static/vendor/uplot/uPlot.esm.js";
import { make, setAttribute, setText } from "/status/static/dom.js";
import { clock, percent, rate, shortCount } from "/status/static/format.js";

/** A stream shorter than this, in reports, does not fill its line: eight seconds. */
const FEWEST_RATES = 32;
const MOST_ENDED = 50;
const CHART_HEIGHT_PX = 132;
const SPARK_PX = { width: 96, height: 56 };
const FONT = "12px system-ui, sans-serif";

/** @type {Set<uPlot>} */
const drawn = new Set();
for (const query of ["(prefers-color-scheme: dark)", "(resolution: 1dppx)"]) {
  matchMedia(query).addEventListener("change", () => {
    for (const plot of drawn) plot.redraw();
  });
}

/** @param {string} name Of a custom property of the style sheet. */
function colour(name) {
  return () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** One figure of the last exchanges: a bar for each, the latest at the right. */
class EndedChart {
  #value = make("output", { class: "chart-value" });
  #plot;
  /** @type {import("./model.js").Ended[]} */
  #ended = [];

  /**
   * @param {object} about
   * @param {string} about.title
   * @param {string} about.colour
   * @param {(ended: import("./model.js").Ended) => number | null} about.of
   * @param {(value: number | null) => string} about.say
   * @param {number} [about.most] Where its scale ends, if it does.
   */
  constructor(about) {
    this.about = about;
    this.canvas = make("div", { class: "canvas", role: "img" });
    // Hovering is a shortcut: the same is in the table, for everybody.
    const caption = make("figcaption", {}, make("span", {}, about.title), this.#value);
    this.element = make("figure", "panel chart", caption, this.canvas);
    this.#value.setAttribute("aria-live", "off");
    this.#plot = new uPlot(this.#options(), [[], []], this.canvas);
    drawn.add(this.#plot);
    new ResizeObserver(([entry]) => {
      const width = Math.floor(entry.contentRect.width);
      if (width > 0) this.#plot.setSize({ width, height: CHART_HEIGHT_PX });
    }).observe(this.canvas);
  }

  /** @param {import("./model.js").Ended[]} ended Oldest first. */
  render(ended) {
    this.#ended = ended;
    const last = ended.length - 1;
    this.#plot.setData([ended.map((_, index) => index - last), ended.map(this.about.of)]);
    this.#say(null);
    const values = ended.map(this.about.of).filter((value) => value !== null);
    const latest = this.about.say(values[values.length - 1] ?? null);
    const highest = this.about.say(Math.max(...values));
    const summary =
      values.length === 0
        ? "nothing yet"
        : `latest ${latest}, highest ${highest}, of ${values.length} exchanges`;
    setAttribute(this.canvas, "aria-label", `${this.about.title}: ${summary}`);
  }

  /** @param {number | null} [index] What the pointer is at; otherwise the latest is said. */
  #say(index) {
    const found = this.#ended[index ?? this.#ended.length - 1];
    const when = found !== undefined && index != null ? ` at ${clock(found.ended_at)}` : "";
    setText(this.#value, this.about.say(found === undefined ? null : this.about.of(found)) + when);
  }

  /** @returns {uPlot.Options} */
  #options() {
    const { most, say } = this.about;
    const bars = uPlot.paths.bars?.({ size: [0.7, 14], radius: 0.2 });
    const axis = { stroke: colour("--muted"), font: FONT, ticks: { show: false } };
    const fill = colour(this.about.colour);
    return {
      width: 300,
      height: CHART_HEIGHT_PX,
      padding: [8, 16, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false, setScale: false }, points: { show: false } },
      scales: {
        x: { time: false, range: () => [0.5 - MOST_ENDED, 0.5] },
        y: { range: (_, __, max) => [0, most ?? 1.1 * (max || 1)] },
      },
      axes: [
        {
          ...axis,
          size: 22,
          grid: { show: false },
          values: (_, splits) => splits.map((at) => (at === 0 ? "latest" : String(at))),
        },
        {
          ...axis,
          size: 46,
          grid: { stroke: colour("--line"), width: 1 },
          values: (_, splits) => splits.map(say === rate ? shortCount : say),
          space: 36,
        },
      ],
      series: [{}, { stroke: fill, fill, width: 0, paths: bars, points: { show: false } }],
      hooks: { setCursor: [(plot) => this.#say(plot.cursor.idx)] },
    };
  }
}

/** The three charts of what has ended. */
export class EndedCharts {
  #last = "";
  #charts = [
    new EndedChart({
      title: "Prefill, tok/s",
      colour: "--prefill",
      of: (ended) => ended.prefill_tokens_per_second,
      say: rate,
    }),
    new EndedChart({
      title: "Decode, tok/s",
      colour: "--decode",
      of: (ended) => ended.decode_tokens_per_second,
      say: rate,
    }),
    new EndedChart({
      title: "Draft tokens accepted",
      colour: "--accepted",
      of: (ended) => ended.acceptance,
      say: percent,
      most: 1,
    }),
  ];

  /** @param {HTMLElement} parent */
  constructor(parent) {
    parent.append(...this.#charts.map((chart) => chart.element));
  }

  /** @param {import("./model.js").Ended[]} ended Oldest first. */
  render(ended) {
    const latest = ended[ended.length - 1];
    const mark = `${ended.length} ${latest?.request_id} ${latest?.ended_at}`;
    if (mark === this.#last) return;
    this.#last = mark;
    for (const chart of this.#charts) chart.render(ended);
  }
}

/** A small line without axes; the number beside it says what it ends with. */
export class Sparkline {
  #plot;
  #width = FEWEST_RATES;

  constructor() {
    this.element = make("div", { class: "spark", "aria-hidden": "true" });
    this.#plot = new uPlot(
      {
        ...SPARK_PX,
        padding: [2, 0, 2, 0],
        legend: { show: false },
        cursor: { show: false },
        scales: {
          x: { time: false, range: () => [1 - this.#width, 0] },
          y: { range: (_, __, max) => [0, max || 1] },
        },
        axes: [{ show: false }, { show: false }],
        series: [{}, { stroke: colour("--decode"), width: 1.5, points: { show: false } }],
      },
      [[], []],
      this.element,
    );
    drawn.add(this.#plot);
  }

  /** @param {number[]} rates */
  render(rates) {
    this.#width = Math.max(FEWEST_RATES, rates.length);
    this.#plot.setData([rates.map((_, index) => 1 + index - rates.length), rates]);
  }

  /** Gives up what it draws with. */
  close() {
    drawn.delete(this.#plot);
    this.#plot.destroy();
  }
}
