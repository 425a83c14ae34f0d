/**
 * The end of a text that grows: the last 20,000 characters of it.
 *
 * Owns the bound, and the count by which a viewer knows what it has not shown yet. Pure.
 *
 * @module
 */

/** What is kept at most. A reader sees the last lines; whoever wants all has the answer itself. */
export const MOST_CHARACTERS = 20_000;

/** Cutting a bit more than needed makes cuts rare: each moves everything that is shown. */
const AFTER_A_CUT = 18_000;

export class Tail {
  text = "";
  /** Whether something before it is not there. */
  cut = false;
  /** How many characters it ever had; grows with each that is added. */
  total = 0;
  /** Grows whenever the text is another, and not the same one continued. */
  version = 0;

  /** @param {string} piece */
  append(piece) {
    this.text += piece;
    this.total += piece.length;
    if (this.text.length > MOST_CHARACTERS) {
      this.text = lastOf(this.text, AFTER_A_CUT);
      this.cut = true;
    }
  }

  /**
   * @param {string} text
   * @param {boolean} cut
   */
  replace(text, cut) {
    this.text = "";
    this.cut = cut;
    this.version += 1;
    this.append(text);
  }
}

/**
 * @param {string} text
 * @param {number} most In UTF-16 units; one less where a character would be cut in two.
 */
function lastOf(text, most) {
  const start = text.length - most;
  const half = text.charCodeAt(start) >> 10 === 0x37; // the second half of a surrogate pair
  return text.slice(half ? start + 1 : start);
}
