"""The task tree: live, collapsible, and still where nothing changed."""

from __future__ import annotations

from typing import Any

from tests.browser.status.view import StatusPage
from tests.fakes.status_scenes import TASKS, exchange, snapshot, task
from tests.fakes.status_site import StatusSite

NAMES = "#tasks .task-name"


def tree(*children: dict[str, Any]) -> dict[str, Any]:
    """Return a snapshot whose tree has these below its root."""
    return snapshot(tasks=task("root", *children))


def test_tree_shows_services_and_folds_what_is_below(page: StatusPage) -> None:
    """Each branch says how many tasks are in it."""
    page.open()
    assert page.all(NAMES) == [
        "trio.run",
        "proxy.serve.serve",
        "proxy.runtime.supervisor.run",
        "main listener",
        "fast listener",
    ]
    assert page.all("#tasks .task-count") == ["8", "7", "2", "2"]


def test_branch_opens_by_keyboard(page: StatusPage) -> None:
    """As every button does."""
    page.open()
    folded = "#tasks details:not([open]) > summary"
    page.type(folded, "\n")
    page.wait_count("#tasks details:not([open])", 1)
    assert "read log" in page.all(NAMES)


def test_branches_stay_open_and_focused_while_tasks_come_and_go(
    page: StatusPage, site: StatusSite
) -> None:
    """What the reader did outlives every report."""
    page.open()
    page.click("#tasks details:not([open]) > summary")
    page.click("#tasks > li > details > ul > li > details > ul > li:nth-child(2) summary")
    serve = TASKS["children"][0]
    more = task("main listener", *[task("connection")] * 3)
    children = [task("a new one"), serve["children"][0], more]
    site.status(snapshot(tasks=task("trio.run", task("proxy.serve.serve", *children))))
    page.wait('document.querySelector("#tasks").textContent.includes("a new one")')
    assert page.all(NAMES)[2:] == [
        "a new one",
        "proxy.runtime.supervisor.run",
        "read log",
        "watch exit",
        "main listener",
        *["connection"] * 3,
    ]
    assert page.run("return document.activeElement.textContent;") == "main listener3"


def test_nodes_that_are_the_same_are_not_touched(page: StatusPage, site: StatusSite) -> None:
    """An observer sees what is another, and nothing else."""
    site.status(tree(task("a"), task("b"), task("c")))
    page.open()
    page.run(
        """
        window.changes = [];
        new MutationObserver((records) => changes.push(...records))
            .observe(document.querySelector("#tasks"), { subtree: true, childList: true,
                characterData: true, attributes: true });
        """
    )
    site.status(snapshot(exchange(), tasks=tree(task("a"), task("b"), task("c"))["tasks"]))
    page.wait_count(".card", 1)
    assert page.run("return changes.length;") == 0
    site.status(tree(task("a"), task("c")))
    page.wait('!document.querySelector("#tasks").textContent.includes("b")')
    removed = "changes.flatMap((record) => [...record.removedNodes]).map((node) => node.nodeName)"
    assert sorted(set(page.run(f"return {removed};"))) == ["#text", "LI"]


def test_task_that_gets_its_first_child_becomes_a_branch(
    page: StatusPage, site: StatusSite
) -> None:
    """And stays one when it goes again."""
    site.status(tree(task("a")))
    page.open()
    site.status(tree(task("a", task("child"))))
    page.wait('document.querySelector("#tasks").textContent.includes("child")')
    site.status(tree(task("a")))
    page.wait('!document.querySelector("#tasks").textContent.includes("child")')
    assert page.all("#tasks .task-count") == ["1", "0"]


def test_thousands_of_siblings_are_counted_and_not_all_shown(
    page: StatusPage, site: StatusSite
) -> None:
    """Nobody reads them."""
    site.status(tree(task("listener", *[task("connection")] * 5000)))
    page.open()
    assert len(page.all("#tasks li")) == 203
    assert page.text(".task-more") == "and 4,800 more"
