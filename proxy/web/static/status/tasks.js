/**
 * The live tree of Trio tasks.
 *
 * Owns which branches are open; they stay so across updates. A branch is known by its name and, as
 * tasks may share one, by how many of that name come before it. Closed branches have no elements
 * inside, and an update touches only what is another.
 *
 * @module
 */

import { arrange, make, setText, show } from "/status/static/dom.js";
import { count } from "/status/static/format.js";

/** The root, its nurseries' tasks, and theirs: listeners and services, and not yet connections. */
const OPEN_DEPTH = 2;

/** Nobody reads more; a listener may have thousands of connections. */
const MOST_CHILDREN = 200;

/** @typedef {import("./shapes.js").Task} Task */

export class TaskTree {
  /** @type {Branch | null} */
  #root = null;

  /** @param {HTMLElement} list A `<ul>`. */
  constructor(list) {
    this.list = list;
  }

  /** @param {Task} root */
  render(root) {
    if (this.#root?.name !== root.name) this.#root = new Branch(root.name, 0);
    this.#root.render(root);
    arrange(this.list, [this.#root.element]);
  }
}

class Branch {
  element = make("li");
  #label = make("span", "task-name");
  #count = make("span", "task-count");
  #more = make("li", "task-more");
  #list = make("ul");
  /** @type {HTMLDetailsElement | null} */
  #fold = null;
  /** @type {Map<string, Branch>} */
  #children = new Map();
  /** @type {Task | null} */
  #task = null;

  /**
   * @param {string} name
   * @param {number} depth
   */
  constructor(name, depth) {
    this.name = name;
    this.depth = depth;
    // A name is a path with dots, and breaks after one where it does not fit.
    for (const part of name.split(/(?<=\.)/)) this.#label.append(part, make("wbr"));
    this.element.append(this.#label);
  }

  /** @param {Task} task */
  render(task) {
    this.#task = task;
    // Once a branch, always a branch: a tree whose nodes change their kind flickers.
    if (task.children.length > 0) this.#fold ??= this.#becomeBranch();
    if (this.#fold === null) return;
    setText(this.#count, count(sizeOf(task) - 1));
    if (this.#fold.open) this.#renderChildren(task);
  }

  #becomeBranch() {
    const fold = make("details", {}, make("summary", {}, this.#label, this.#count), this.#list);
    fold.open = this.depth < OPEN_DEPTH;
    fold.addEventListener("toggle", () => {
      if (fold.open && this.#task !== null) this.#renderChildren(this.#task);
    });
    this.element.append(fold);
    return fold;
  }

  /** @param {Task} task */
  #renderChildren({ children }) {
    /** @type {Map<string, Branch>} */
    const branches = new Map();
    /** @type {Map<string, number>} */
    const seen = new Map();
    for (const child of children.slice(0, MOST_CHILDREN)) {
      const number = (seen.get(child.name) ?? 0) + 1;
      seen.set(child.name, number);
      const place = `${number} ${child.name}`;
      const branch = this.#children.get(place) ?? new Branch(child.name, this.depth + 1);
      branch.render(child);
      branches.set(place, branch);
    }
    this.#children = branches;
    const hidden = children.length - branches.size;
    setText(this.#more, `and ${count(hidden)} more`);
    show(this.#more, hidden > 0);
    arrange(this.#list, [...[...branches.values()].map((branch) => branch.element), this.#more]);
  }
}

/**
 * @param {Task} task
 * @returns {number} How many tasks it is, with those below it.
 */
function sizeOf(task) {
  return task.children.reduce((sum, child) => sum + sizeOf(child), 1);
}
