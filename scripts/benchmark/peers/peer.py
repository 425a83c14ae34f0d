"""What a peer is to the benchmark."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmark.processes import Children


@dataclass(frozen=True, slots=True)
class Listening:
    """A peer that accepts connections.

    Attributes:
        port: On 127.0.0.1.
        pids: The processes that it consists of; none for no peer at all.
    """

    port: int
    pids: tuple[int, ...] = ()


Start = Callable[[Children, int, Path], Listening]
"""Starts a peer in front of the upstream's port, with a folder of its own for its files."""

Tell = Callable[[str], None]


def _nothing_to_prepare(_tell: Tell) -> None:
    return


@dataclass(frozen=True, slots=True)
class Peer:
    """One kind of peer.

    Attributes:
        title: Its name in tables.
        start: Starts one.
        prepare: Called once before anything is started; raises `BenchmarkError` where something
            is missing that people have to install.
    """

    title: str
    start: Start
    prepare: Callable[[Tell], None] = _nothing_to_prepare


def nothing_in_between(_children: Children, upstream_port: int, _folder: Path) -> Listening:
    """Nobody at all: what the others' figures are held against."""
    return Listening(upstream_port)
