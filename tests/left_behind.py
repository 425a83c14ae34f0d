"""What a test leaves behind in the operating system: descriptors, children, temporary folders."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What is open or alive at a moment."""

    descriptors: frozenset[str] = frozenset()
    children: frozenset[int] = frozenset()
    folders: frozenset[str] = frozenset()

    @classmethod
    def now(cls) -> Leftovers:
        """Look at this process."""
        return cls(_descriptors(), _children(), _folders())

    def beyond(self, before: Leftovers) -> Leftovers:
        """Return what is here now and was not before."""
        return Leftovers(
            self.descriptors - before.descriptors,
            self.children - before.children,
            self.folders - before.folders,
        )


def _descriptors() -> frozenset[str]:
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            target = str(path.readlink())
        except FileNotFoundError:
            continue  # the descriptor that reads the folder
        # Trio opens its own epoll and wake-up sockets once for each run; files of pytest come and
        # go.
        if target.startswith(("socket:", "pipe:")) or "pidfd" in target:
            found.add(f"{path.name} {target}")
    return frozenset(found)


def _children() -> frozenset[int]:
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        found.update(int(pid) for pid in (task / "children").read_text().split())
    return frozenset(found)


def _folders() -> frozenset[str]:
    return frozenset(
        str(path) for path in Path(tempfile.gettempdir()).glob("llama-proxy-*") if path.is_dir()
    )
