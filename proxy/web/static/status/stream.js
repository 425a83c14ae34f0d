/**
 * A text that grows, in a box of fixed height.
 *
 * Owns what of a `Tail` is in the page: only what is new is added, as text; what the tail lost at
 * its front is taken away, and whoever reads further up keeps the place.
 *
 * @module
 */

import { Follower, make, show } from "/status/static/dom.js";
import { MOST_CHARACTERS } from "/status/static/tail.js";

export class StreamBox {
  #node = document.createTextNode("");
  #note = make("p", "cut", `Only the last ${MOST_CHARACTERS.toLocaleString("en")} characters are shown.`);
  #shown = 0;
  #version = 0;

  /**
   * @param {string} kind Its class.
   * @param {string} label What it is, for who cannot see it.
   */
  constructor(kind, label) {
    const body = make("div", "body", this.#node);
    this.element = make("div", {
      class: `stream ${kind}`, role: "region", "aria-label": label, tabindex: "0",
    }, this.#note, body);
    show(this.#note, false);
    this.follower = new Follower(this.element);
  }

  /**
   * Writes what is new, and does not scroll.
   *
   * @param {import("./tail.js").Tail} tail
   */
  render(tail) {
    const fresh = tail.total - this.#shown;
    if (fresh === 0 && tail.version === this.#version) return;
    if (tail.version !== this.#version || fresh > tail.text.length) this.#node.data = tail.text;
    else this.#node.appendData(tail.text.slice(tail.text.length - fresh));
    this.#shown = tail.total;
    this.#version = tail.version;
    if (this.#node.length > MOST_CHARACTERS) this.#trim(this.#node.length - tail.text.length);
    show(this.#note, tail.cut);
  }

  /** @param {number} length How much of the front goes. */
  #trim(length) {
    if (this.follower.stuck) {
      this.#node.deleteData(0, length);
      return;
    }
    const before = this.element.scrollHeight;
    this.#node.deleteData(0, length);
    this.element.scrollTop -= before - this.element.scrollHeight;
  }
}
