/**
 * Elements: how they are made, and how they are changed only where they differ.
 *
 * Owns that everything which comes from outside becomes text and never markup. An update that
 * changes nothing touches nothing, so that focus, selection and scrolling stay where they are.
 *
 * @module
 */

/**
 * Returns the element of the page with this id.
 *
 * @template {HTMLElement} [T=HTMLElement]
 * @param {string} id
 * @returns {T}
 */
export function byId(id) {
  return /** @type {T} */ (document.getElementById(id));
}

/**
 * Makes an element.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string | Record<string, string>} [attributes] Its class, or its attributes.
 * @param {...(Node | string)} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  const pairs = typeof attributes === "string" ? { class: attributes } : attributes;
  for (const [name, value] of Object.entries(pairs)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/**
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Sets an attribute, or removes it.
 *
 * @param {Element} element
 * @param {string} name
 * @param {string | null} value
 */
export function setAttribute(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * @param {HTMLElement} element
 * @param {boolean} shown
 */
export function show(element, shown) {
  if (element.hidden === shown) element.hidden = !shown;
}

/**
 * Lets `parent` have exactly these children in this order; those that stay are not moved.
 *
 * @param {Element} parent
 * @param {Element[]} wanted
 */
export function arrange(parent, wanted) {
  const kept = new Set(wanted);
  for (const child of [...parent.children]) if (!kept.has(child)) child.remove();
  let next = parent.firstElementChild;
  for (const child of wanted) {
    if (child === next) next = child.nextElementSibling;
    else parent.insertBefore(child, next);
  }
}

/** A list of names and values; a name that comes is added at the end, one that goes is removed. */
export class Facts {
  /** @type {Map<string, { pair: HTMLElement, value: HTMLElement }>} */
  #pairs = new Map();

  /** @param {HTMLElement} list A `<dl>`. */
  constructor(list) {
    this.list = list;
  }

  /** @param {Record<string, string | null>} values By name, in order; null: not there. */
  render(values) {
    const there = Object.entries(values).filter(([, value]) => value !== null);
    for (const [name, text] of there) {
      const found = this.#pairs.get(name) ?? this.#add(name);
      setText(found.value, /** @type {string} */ (text));
    }
    arrange(
      this.list,
      there.map(([name]) => /** @type {any} */ (this.#pairs.get(name)).pair),
    );
  }

  /** @param {string} name */
  #add(name) {
    const value = make("dd");
    const pair = make("div", {}, make("dt", {}, name), value);
    this.#pairs.set(name, { pair, value });
    return { pair, value };
  }
}

/**
 * Keeps a scrolling element at its end while it grows, unless its reader scrolled up.
 *
 * Writing and scrolling are apart: whoever writes to many elements scrolls them all afterwards,
 * and the browser lays the page out once.
 */
export class Follower {
  #stuck = true;

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element;
    element.addEventListener(
      "scroll",
      () => {
        const below = element.scrollHeight - element.scrollTop - element.clientHeight;
        this.#stuck = below < SLACK_PX;
      },
      { passive: true },
    );
  }

  /** Whether its end is what is shown. */
  get stuck() {
    return this.#stuck;
  }

  /** Scrolls to the end, if that is where its reader is. */
  follow() {
    if (this.#stuck) this.element.scrollTop = this.element.scrollHeight;
  }
}

/** Half a line: positions are rounded where the screen's pixels are not the page's. */
const SLACK_PX = 10;
