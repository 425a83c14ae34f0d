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
  dialog.showModal();
  const over = new AbortController();
  return new Promise((resolve) => {
    // Not the dialog's own `close`: that comes later, when the next question may be open already.
    const settle = (/** @type {boolean} */ sure) => {
      over.abort();
      resolve(sure);
    };
    const { signal } = over;
    dialog.addEventListener("submit", (event) => settle(isYes(event)), { signal });
    dialog.addEventListener("cancel", () => settle(false), { signal });
  });
}

/** @param {SubmitEvent} event */
function isYes({ submitter }) {
  return submitter instanceof HTMLButtonElement && submitter.value === "yes";
}
