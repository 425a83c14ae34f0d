/**
 * The list of cards: one for each exchange, in order of arrival.
 *
 * Owns which card belongs to which exchange, that cancelling asks first, and that a card which goes
 * takes no focus with it.
 *
 * @module
 */

import { ask } from "/status/static/ask.js";
import { CardView } from "/status/static/card.js";
import { arrange, byId, setAttribute, setText, show } from "/status/static/dom.js";

export class Cards {
  /** @type {Map<import("./model.js").Card, CardView>} */
  #views = new Map();

  /**
   * @param {import("./model.js").Model} model
   * @param {(requestId: string) => void} onCancel Called once somebody has said yes.
   */
  constructor(model, onCancel) {
    this.model = model;
    this.onCancel = onCancel;
  }

  /** Takes what a snapshot changed. */
  report() {
    const hasContent = this.model.snapshot?.content === "full";
    for (const [name, card] of this.model.cards) this.#viewOf(name, card).report(card, hasContent);
    this.#arrange();
    setAttribute(byId("live"), "data-content", hasContent ? "full" : "none");
    show(byId("content-note"), !hasContent);
    setText(
      byId("live-empty"),
      "Nothing is running. A request appears here the moment it arrives.",
    );
  }

  /**
   * Writes what streamed in, and what time changed; once a frame.
   *
   * @param {number} at
   */
  render(at) {
    const before = this.model.cards.size;
    this.model.expire(at, (name) => this.#isHeld(name));
    if (this.model.cards.size !== before) this.#arrange();
    // All writing before all scrolling: so the page is laid out once.
    for (const [card, view] of this.#views) view.write(card);
    for (const view of this.#views.values()) view.follow();
  }

  /** @param {number} at */
  tick(at) {
    for (const [card, view] of this.#views) view.tick(card, at);
  }

  /**
   * @param {string} name
   * @param {import("./model.js").Card} card
   */
  #viewOf(name, card) {
    const found = this.#views.get(card);
    if (found !== undefined) return found;
    const view = new CardView(name, () => this.#cancel(card));
    this.#views.set(card, view);
    return view;
  }

  #arrange() {
    const there = new Set(this.model.cards.values());
    for (const [card, view] of this.#views) {
      if (there.has(card)) continue;
      if (view.element.contains(document.activeElement)) byId("live-title").focus();
      view.close();
      this.#views.delete(card);
    }
    const views = [...this.model.cards.values()].map((card) => this.#views.get(card)?.element);
    arrange(
      byId("cards"),
      views.filter((element) => element !== undefined),
    );
    show(byId("live-empty"), views.length === 0);
  }

  /** @param {string} name */
  #isHeld(name) {
    const card = this.model.cards.get(name);
    return (card && this.#views.get(card)?.isHeld) ?? false;
  }

  /** @param {import("./model.js").Card} card */
  async #cancel(card) {
    const { route, request_id: id } = card.exchange;
    const sure = await ask({
      title: "Cancel this exchange?",
      text: `${route}, ${id}: its client is told that an administrator ended it.`,
      yes: "Cancel exchange",
    });
    if (sure) this.onCancel(id);
  }
}
