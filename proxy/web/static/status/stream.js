/**
 * A text that grows, in a box of fixed height.
 *
 * Owns what of a `Tail` is in the page: only what is new is added, as text; what the tail lost at
 * its front is taken away, and whoever reads further up keeps the place.
 *
 * The text lies in blocks that end with a line, which looks the same as in one, and lets the
 * browser lay out and paint the last block only: at full speed that is half the work.
 *
 * @module
 */

import { Follower, make, show } from "/status/static/dom.js";
import { MOST_CHARACTERS } from "/status/static/tail.js";

/** A block ends with the first line that ends beyond this many characters: some ten lines. */
const BLOCK_CHARACTERS = 800;

export class StreamBox {
  #body = make("div", "body");
  #note = make(
    "p",
    "cut",
    `Only the last ${MOST_CHARACTERS.toLocaleString("en")} characters are shown.`,
  );
  #total = 0;
  #version = 0;
  /** How many characters are in the page. */
  #length = 0;

  /**
   * @param {string} kind Its class.
   * @param {string} label What it is, for who cannot see it.
   */
  constructor(kind, label) {
    const role = { class: `stream ${kind}`, role: "region", "aria-label": label, tabindex: "0" };
    this.element = make("div", role, this.#note, this.#body);
    show(this.#note, false);
    this.follower = new Follower(this.element);
  }

  /**
   * Writes what is new, and does not scroll.
   *
   * @param {import("./tail.js").Tail} tail
   */
  render(tail) {
    const fresh = tail.total - this.#total;
    if (fresh === 0 && tail.version === this.#version) return;
    if (tail.version !== this.#version || fresh > tail.text.length) {
      this.#body.replaceChildren();
      this.#length = 0;
      this.#append(tail.text);
    } else {
      this.#append(tail.text.slice(tail.text.length - fresh));
    }
    this.#total = tail.total;
    this.#version = tail.version;
    if (this.#length > tail.text.length) this.#trim(this.#length - tail.text.length);
    show(this.#note, tail.cut);
  }

  /** @param {string} text */
  #append(text) {
    if (text === "") return;
    this.#length += text.length;
    let node = /** @type {Text | undefined} */ (this.#body.lastChild?.firstChild);
    if (node === undefined) node = this.#block(document.createTextNode(text));
    else node.appendData(text);
    let end = node.data.indexOf("\n", BLOCK_CHARACTERS);
    while (end >= 0 && end < node.length - 1) {
      node = this.#block(node.splitText(end + 1));
      end = node.data.indexOf("\n", BLOCK_CHARACTERS);
    }
  }

  /** @param {Text} node */
  #block(node) {
    this.#body.append(make("div", {}, node));
    return node;
  }

  /** @param {number} length How much of the front goes. */
  #trim(length) {
    if (this.follower.stuck) {
      this.#drop(length);
      return;
    }
    const before = this.element.scrollHeight;
    this.#drop(length);
    this.element.scrollTop -= before - this.element.scrollHeight;
  }

  /** @param {number} length */
  #drop(length) {
    this.#length -= length;
    let left = length;
    while (left > 0) {
      const node = /** @type {Text} */ (this.#body.firstChild?.firstChild);
      const part = Math.min(left, node.length);
      if (part === node.length) this.#body.firstChild?.remove();
      else node.deleteData(0, part);
      left -= part;
    }
  }
}
