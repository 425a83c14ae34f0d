"""The live Trio task tree, as data: who is whose child at this moment.

Owns a copy of the names and the nesting, taken at once and without running anything. A task's name
is what its nursery was told; names hold request ids and routes, never secrets.

Source: `trio.lowlevel.Task.child_nurseries`, `Nursery.child_tasks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import trio


@dataclass(frozen=True, slots=True)
class TaskNode:
    """A task with the tasks of its nurseries, in the order in which they were opened.

    Attributes:
        name: The task's name.
        children: Its children, of all its nurseries.
    """

    name: str
    children: tuple[TaskNode, ...]

    def as_object(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"name": self.name, "children": [child.as_object() for child in self.children]}

    def as_lines(self, depth: int = 0) -> list[str]:
        """Return it as text, two spaces for each level."""
        lines = [f"{'  ' * depth}{self.name}"]
        for child in self.children:
            lines += child.as_lines(depth + 1)
        return lines

    def count(self) -> int:
        """Return how many tasks it has, itself included."""
        return 1 + sum(child.count() for child in self.children)


def task_tree(root: trio.lowlevel.Task | None = None) -> TaskNode:
    """Return the tree below `root`, or below the running program's main task.

    Args:
        root: A task; None for the one that `trio.run` began with.
    """
    return _node(_main_task() if root is None else root)


def _main_task() -> trio.lowlevel.Task:
    """Find the main task: Trio's own service tasks beside it are not ours to show."""
    root = trio.lowlevel.current_root_task()
    task = trio.lowlevel.current_task()
    while task.parent_nursery is not None and task.parent_nursery.parent_task is not root:
        task = task.parent_nursery.parent_task
    return task


def _node(task: trio.lowlevel.Task) -> TaskNode:
    children = [
        _node(child)
        for nursery in task.child_nurseries
        for child in sorted(nursery.child_tasks, key=lambda found: found.name)
    ]
    return TaskNode(task.name, tuple(children))
