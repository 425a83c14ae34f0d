"""`scripts/figures`: measures what docs/promises.md says in numbers, as tables in Markdown.

How soon llama-server's slot is idle after its client has left, and what a client costs that stops
reading; on each listener, with the demo model and the llama-server that discovery finds. What it
does meanwhile is told on standard error.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import trio

from proxy.runtime.discovery import find_engine
from tests.promises.figures import leaving, stalled
from tests.promises.figures.leaving import MOMENTS, Case
from tests.promises.figures.pair import Pair, running_pair
from tests.promises.listeners import LISTENERS, Listener, no_credentials

# Between these lines of a document the figures stand.
MARKS = ("<!-- figures: begin -->\n", "<!-- figures: end -->\n")
_KIB = 1024
# Of the documents' lines.
_WIDTH = 116

Row = Sequence[str]

_SLOT_HEAD = (
    *("listener", "phase", "asked for"),
    *("alone: p50", "p99", "worst", "beside others: p50", "p99", "worst"),
)
_ABOUT_SLOTS = (
    "Milliseconds from the client's end until llama-server's slot is idle (queued: until the"
    " exchange is gone and its place given back), {times} times each, by FIN, RST and half-close in"
    " turn. Beside others: one stream; queued: one in each slot. Batches of 64 tokens."
)
_ABOUT_COSTS = (
    "For each of {readers} clients that stop reading, with receive buffers of 4 KiB, when nothing"
    " moves any more:"
)
_COST_HEAD = ("listener", "memory of the proxy", "taken from llama-server")


async def figures(times: int) -> str:
    """Measure everything, each case so often; return it as Markdown."""
    # A proxy without keys asks for nothing.
    listeners = [replace(listener, credentials=no_credentials) for listener in LISTENERS]
    slot_table = _table(_SLOT_HEAD, await _slot_rows(listeners, times))
    cost_table = _table(_COST_HEAD, await _cost_rows(listeners))
    slots = _filled(_ABOUT_SLOTS.format(times=times))
    costs = _filled(_ABOUT_COSTS.format(readers=stalled.READERS))
    return f"{_filled(_machine())}\n{slots}\n{slot_table}\n{costs}\n{cost_table}"


async def _slot_rows(listeners: Sequence[Listener], times: int) -> list[Row]:
    rows: list[Row] = []
    async with running_pair(*leaving.ENGINE_OPTIONS) as pair:
        for listener, (phase, moment), stream in product(listeners, MOMENTS.items(), (True, False)):
            case = Case(listener, moment, others=0, stream=stream)
            found = await _slot_columns(case, pair, times)
            rows.append((listener.name, phase, "a stream" if stream else "JSON", *found))
            _say(rows[-1])
    return rows


async def _cost_rows(listeners: Sequence[Listener]) -> list[Row]:
    rows: list[Row] = []
    for listener in listeners:
        # One of its own for each: memory that was given back is not always the system's again.
        async with running_pair(*stalled.ENGINE_OPTIONS) as pair:
            cost = await stalled.measure(pair, listener)
        rows.append((listener.name, _kib(cost.resident), _kib(cost.taken)))
        _say(rows[-1])
    return rows


async def _slot_columns(case: Case, pair: Pair, times: int) -> list[str]:
    columns: list[str] = []
    for others in (False, True):
        count = next((each for each in case.moment.others if bool(each) is others), None)
        if count is None:
            columns += ["", "", ""]
            continue
        found = await replace(case, others=count).measure(pair, times)
        columns += [f"{_percentile(found, share) * 1000:.3g}" for share in (0.5, 0.99, 1.0)]
    return columns


def _percentile(found: Sequence[float], share: float) -> float:
    """Return the smallest that is not less than `share` of all."""
    return sorted(found)[math.ceil(share * len(found)) - 1]


def _kib(size: int) -> str:
    return f"{size / _KIB:.0f} KiB"


def _machine() -> str:
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    system = f"{platform.system()} {platform.release().partition('-')[0]}"
    where = f"{system}, {os.cpu_count()} processors, Python {platform.python_version()}"
    return f"On {today}: {where}, {find_engine(None, os.environ).description}, the demo model."


def _filled(text: str) -> str:
    return textwrap.fill(text, _WIDTH) + "\n"


def _table(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _say(row: Row) -> None:
    print(*row, sep="\t", file=sys.stderr, flush=True)


def write_into(document: Path, text: str) -> None:
    """Put `text` into a document, in place of what stands between the two marks.

    Raises:
        ValueError: When it has no such marks.
    """
    before, begin, rest = document.read_text().partition(MARKS[0])
    _, end, after = rest.partition(MARKS[1])
    if not end:
        raise ValueError(f"{document} has no place for figures")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="scripts/figures", description=__doc__)
    parser.add_argument("--times", type=int, default=50, help="how often each case (50)")
    parser.add_argument(
        "--into", type=Path, metavar="FILE", help="put the figures into this document"
    )
    options = parser.parse_args()
    text = trio.run(figures, options.times)
    print(text)
    if options.into is not None:
        write_into(options.into, text)


if __name__ == "__main__":
    main()
