/**
 * The card of one exchange.
 *
 * Owns its elements, from its arrival until it goes; what it says comes from the model. Its height
 * does not depend on what streams in.
 *
 * @module
 */

import { Facts, make, setAttribute, setText, show } from "/status/static/dom.js";
import { causeTone, count, duration, percent, rate, words } from "/status/static/format.js";
import { Sparkline } from "/status/static/charts.js";
import { cachedOf, PhaseBar } from "/status/static/phases.js";
import { StreamBox } from "/status/static/stream.js";

/** @type {Record<string, string>} */
const PARAMETERS = {
  max_tokens: "max",
  temperature: "temperature",
  top_p: "top-p",
  top_k: "top-k",
  response_format: "format",
};

export class CardView {
  #badge = make("span", "badge");
  #route = make("h3", "route");
  #who = make("p", "who");
  #tags = make("ul", { class: "tags", "aria-label": "Features" });
  #parameters = make("p", "parameters");
  #bar = new PhaseBar();
  #facts = new Facts(make("dl", "facts stats"));
  #spark = new Sparkline();
  #text = new StreamBox("text", "Output");
  #thought = new StreamBox("thought", "Thoughts");
  #prompt = make("div", {
    class: "stream prompt",
    role: "region",
    "aria-label": "Prompt",
    tabindex: "0",
  });
  #cancel = make("button", { type: "button", class: "cancel" }, "Cancel");
  #shownTags = "";

  /**
   * @param {string} name Its name in the model.
   * @param {() => void} onCancel
   */
  constructor(name, onCancel) {
    this.thoughts = fold("Thoughts", this.#thought.element, true);
    this.prompts = fold("Prompt", this.#prompt, false);
    this.output = make("div", "output", this.prompts, this.thoughts, this.#text.element);
    const head = make("div", "card-head", this.#badge, this.#route, this.#cancel);
    const figures = make("div", "figures-row", this.#facts.list, this.#spark.element);
    this.element = make(
      "li",
      { class: "card", "data-exchange": name },
      head,
      this.#who,
      this.#tags,
      this.#parameters,
      this.#bar.element,
      figures,
      this.output,
    );
    this.#cancel.addEventListener("click", () => {
      if (this.#cancel.getAttribute("aria-disabled") !== "true") onCancel();
    });
  }

  /**
   * Says how far it is: what changes with each report.
   *
   * @param {import("./model.js").Card} card
   * @param {boolean} hasContent Whether the server shows prompts and outputs.
   */
  report(card, hasContent) {
    const { exchange } = card;
    this.#describe(card);
    this.#bar.render(card);
    this.#spark.render(card.rates);
    const fixed = Object.entries(PARAMETERS)
      .filter(([name]) => exchange.parameters[name] != null)
      .map(([name, label]) => `${label} ${exchange.parameters[name]}`);
    if (exchange.parameters.tools) fixed.push(`tools ${exchange.parameters.tools}`);
    setText(this.#parameters, fixed.join(" \u00b7 "));
    this.#tag(exchange.tags);
    show(this.output, hasContent);
    show(this.prompts, card.prompt !== null);
    setText(this.#prompt, card.prompt ?? "");
  }

  /**
   * Writes what streamed in.
   *
   * @param {import("./model.js").Card} card
   */
  write(card) {
    this.#text.render(card.text);
    this.#thought.render(card.thought);
    show(this.thoughts, card.thought.total > 0);
  }

  /** Scrolls to what streamed in; after every card is written. */
  follow() {
    this.#text.follower.follow();
    this.#thought.follower.follow();
  }

  /** Whether somebody is reading in it: at anything but the button, where a cancellation ends. */
  get isHeld() {
    const { activeElement: active } = document;
    return active !== this.#cancel && this.element.contains(active);
  }

  /** Gives up what only a card that is shown needs. */
  close() {
    this.#spark.close();
  }

  /**
   * Says what changes with time alone.
   *
   * @param {import("./model.js").Card} card
   * @param {number} at
   */
  tick(card, at) {
    const { exchange, ended } = card;
    const live = exchange.tokens_per_second;
    const speed = card.endedAt === null ? live : (ended?.decode_tokens_per_second ?? live);
    this.#facts.render({
      "tok/s": rate(speed),
      "First token": duration(ended?.first_token_s ?? exchange.first_token_s),
      Elapsed: duration(card.elapsed(at)),
      Tokens: count(ended?.decode_tokens ?? exchange.completion_tokens),
      Cached: count(ended?.cached_tokens ?? cachedOf(card)),
      Accepted: percent(ended?.acceptance ?? exchange.acceptance),
    });
  }

  /** @param {import("./model.js").Card} card */
  #describe(card) {
    const { exchange } = card;
    const hasEnded = card.endedAt !== null;
    const refused = exchange.status !== null && exchange.status >= 400;
    const end = refused
      ? `${words(card.cause ?? "ended")} (${exchange.status})`
      : words(card.cause ?? "ended");
    setText(this.#badge, hasEnded ? end : words(exchange.phase));
    const tone = refused && card.cause === "finished" ? "bad" : causeTone(card.cause);
    setAttribute(this.#badge, "data-tone", hasEnded ? tone : exchange.phase);
    setText(this.#route, exchange.route);
    const who = [
      exchange.model,
      exchange.request_id,
      exchange.key && `key ${exchange.key}`,
      exchange.session && `session ${exchange.session}`,
    ];
    const text = who.filter(Boolean).join(" \u00b7 ");
    setText(this.#who, text);
    setAttribute(this.#who, "title", text);
    setAttribute(this.element, "data-ended", hasEnded ? "" : null);
    setAttribute(this.#cancel, "aria-disabled", hasEnded ? "true" : null);
    setAttribute(this.#cancel, "aria-label", `Cancel ${exchange.route}, ${exchange.request_id}`);
  }

  /** @param {string[]} tags */
  #tag(tags) {
    const shown = tags.join(" ");
    if (shown === this.#shownTags) return;
    this.#shownTags = shown;
    this.#tags.replaceChildren(...tags.map((tag) => make("li", {}, tag.replaceAll("_", " "))));
  }
}

/**
 * Makes something that can be folded away.
 *
 * @param {string} title
 * @param {HTMLElement} content
 * @param {boolean} open
 */
function fold(title, content, open) {
  const element = make("details", "fold", make("summary", {}, title), content);
  element.open = open;
  show(element, false);
  return element;
}
