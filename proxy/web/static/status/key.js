/**
 * The API key: asked for, kept for this tab, and forgotten when told so.
 *
 * Owns where it is kept (session storage) and the dialog. It never gets into a URL, a cookie or the
 * page's text.
 *
 * @module
 */

import { byId, setText } from "/status/static/dom.js";

const NAME = "llama-proxy.key";

/** What a header can carry; nothing else can be a key. */
const SANE = /^[\x21-\x7e]+$/;

export class Key {
  #dialog = /** @type {HTMLDialogElement} */ (byId("key-dialog"));
  #input = /** @type {HTMLInputElement} */ (byId("key-input"));

  /** @param {() => void} onChange Called when there is another key, or none any more. */
  constructor(onChange) {
    this.onChange = onChange;
    byId("key-form").addEventListener("submit", (event) => this.#take(event));
    byId("key-cancel").addEventListener("click", () => this.#close());
    byId("key-forget").addEventListener("click", () => this.#forget());
    this.#input.addEventListener("input", () => this.#input.setCustomValidity(""));
    this.#dialog.addEventListener("cancel", () => this.#close());
  }

  /** The key; null: none. */
  get value() {
    return sessionStorage.getItem(NAME);
  }

  /** @param {string} why What the dialog says. */
  ask(why) {
    setText(byId("key-text"), why);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  /** @param {Event} event */
  #take(event) {
    event.preventDefault();
    const key = this.#input.value.trim();
    if (!SANE.test(key)) {
      this.#input.setCustomValidity("A key has no spaces and no letters beyond ASCII.");
      this.#input.reportValidity();
      return;
    }
    sessionStorage.setItem(NAME, key);
    this.#close();
    this.onChange();
  }

  /** Nothing that was typed stays in the page. */
  #close() {
    this.#input.value = "";
    this.#dialog.close();
  }

  #forget() {
    sessionStorage.removeItem(NAME);
    this.onChange();
  }
}
