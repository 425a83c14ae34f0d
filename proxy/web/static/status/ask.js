/**
 * The question before something that cannot be undone.
 *
 * @module
 */

import { byId, setText } from "/status/static/dom.js";

/**
 * Asks; whatever closes the dialog but the button that says so means no.
 *
 * @param {object} question
 * @param {string} question.title
 * @param {string} question.text
 * @param {string} question.yes What the button says that does it.
 * @returns {Promise<boolean>}
 */
export function ask({ title, text, yes }) {
  const dialog = /** @type {HTMLDialogElement} */ (byId("ask"));
  setText(byId("ask-title"), title);
  setText(byId("ask-text"), text);
  setText(byId("ask-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
