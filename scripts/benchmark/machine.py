"""The machine: what it is, which processors who gets, and how many files a process may open.

With two processors or more the peer has one for itself, and load and upstream share the others: so
a figure of a peer never depends on where the kernel happened to put whom, and every peer has the
same to work with, however many processes or threads it has.
"""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from benchmark.processes import BenchmarkError

_PACKAGES = ("trio", "hypercorn", "h11", "httpx", "fastapi", "uvicorn", "uvloop", "httptools")
# Two for each stream in a proxy, some for itself.
_DESCRIPTORS_PER_STREAM = 2
_DESCRIPTORS_BESIDES = 100


@dataclass(frozen=True, slots=True)
class Processors:
    """Who runs where.

    Attributes:
        peer: The peer's.
        others: Those of load and upstream.
    """

    peer: AbstractSet[int]
    others: AbstractSet[int]


def share_processors(available: AbstractSet[int]) -> Processors:
    """Give the peer one processor and the others the rest; where there is one, all share it."""
    first, *rest = sorted(available)
    return Processors({first}, set(rest) or {first})


def allow_descriptors(streams: int) -> None:
    """Let this process and its children open enough files for `streams` streams.

    Raises:
        BenchmarkError: When the system does not allow so many.
    """
    needed = streams * _DESCRIPTORS_PER_STREAM + _DESCRIPTORS_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BenchmarkError(
            f"{streams} streams need {needed} open files, and {hard} are allowed (ulimit -Hn)"
        )
    if soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def describe() -> dict[str, object]:
    """Describe what figures are measured on."""
    return {
        "system": platform.platform(),
        "processors": len(os.sched_getaffinity(0)),
        "processor": _processor_name(),
        "python": platform.python_version(),
        "load_average": [round(each, 2) for each in os.getloadavg()],
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _processor_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
