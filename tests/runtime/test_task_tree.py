"""The live task tree."""

from __future__ import annotations

import trio
import trio.testing

from proxy.runtime.task_tree import TaskNode, task_tree

TREE = TaskNode("main", (TaskNode("a", (TaskNode("b", ()),)), TaskNode("c", ())))


def test_as_object_nests_children() -> None:
    """As JSON has it."""
    leaf_c = {"name": "c", "children": []}
    leaf_b = {"name": "b", "children": []}
    assert TREE.as_object() == {
        "name": "main",
        "children": [{"name": "a", "children": [leaf_b]}, leaf_c],
    }


def test_as_lines_indents_by_level() -> None:
    """Two spaces for each."""
    assert TREE.as_lines() == ["main", "  a", "    b", "  c"]


def test_count_includes_itself() -> None:
    """A leaf is one task."""
    assert TREE.count() == 4
    assert TaskNode("x", ()).count() == 1


async def test_task_tree_shows_children_of_every_nursery_by_name() -> None:
    """Nurseries in the order in which they were opened, their tasks in that of their names."""
    async with trio.open_nursery() as outer:
        outer.start_soon(trio.sleep_forever, name="z")
        outer.start_soon(trio.sleep_forever, name="b")
        async with trio.open_nursery() as inner:
            inner.start_soon(trio.sleep_forever, name="a")
            here = trio.lowlevel.current_task()
            assert [child.name for child in task_tree(here).children] == ["b", "z", "a"]
            inner.cancel_scope.cancel()
        outer.cancel_scope.cancel()
    assert task_tree(here).children == ()


async def test_task_tree_nests_grandchildren() -> None:
    """Each task is below the one whose nursery it is in."""

    async def parent() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever, name="child")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(parent, name="parent")
        await trio.testing.wait_all_tasks_blocked()
        found = task_tree(trio.lowlevel.current_task())
        assert found.children == (TaskNode("parent", (TaskNode("child", ()),)),)
        nursery.cancel_scope.cancel()


def test_task_tree_begins_at_the_programs_main_task_wherever_it_is_asked_for() -> None:
    """Trio's own service tasks are not shown, and a deep task sees the whole tree."""
    seen: list[TaskNode] = []

    async def deep() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(look, name="deeper")

    async def look() -> None:
        seen.append(task_tree())

    async def program() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deep, name="deep")

    trio.run(program)
    (tree,) = seen
    assert tree.name.endswith("program")
    assert [line.strip() for line in tree.as_lines()[1:]] == ["deep", "deeper"]
