"""The command line of `scripts/bench`: what is asked for, progress, and where the results go.

Tables go to standard output, progress to standard error. Ends with 0, with 1 when a run could not
be finished, with 130 when it was interrupted; no child is left in either case.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

from benchmark import machine, report
from benchmark.measure import measure
from benchmark.peers import PEERS
from benchmark.plan import Part, Run
from benchmark.plot import draw
from benchmark.predictions import measure_predictions, predictions_markdown
from benchmark.processes import BenchmarkError
from benchmark.startup import measure_startup, startup_markdown
from benchmark.status import measure_status, status_markdown
from benchmark.tables import markdown

_DESCRIPTION = """\
Measures what a relayed event costs: processor time, added time to the first byte, evenness, memory,
how many events pass at most, and how long a stream outlives its client. Everything runs on this
machine's loopback and ends by itself. What the figures mean, and what they do not:
docs/performance.md."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parse(argv)
    # As Ctrl-C: the blocks that own children are left and end them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        table, found = _WHAT[options.what](options)
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=1) + "\n")
        print(table, end="")
        if options.plot is not None:
            draw(found["figures"], options.plot)
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    return 0


def _relay(options: argparse.Namespace) -> tuple[str, Any]:
    found = _earlier(options.from_json) if options.from_json else _measured(options)
    run = found["run"]
    return markdown(found["figures"], run["parts"], run["peers_left_out"]), found


def _earlier(path: Path) -> Any:
    try:
        found = json.loads(path.read_text())
        _ = found["figures"], found["run"]["parts"], found["run"]["peers_left_out"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BenchmarkError(f"{path} has no figures of this command") from error
    return found


def _measured(options: argparse.Namespace) -> Any:
    run = Run(
        peers=options.peers,
        parts=options.only,
        streams=options.streams,
        engine_streams=options.engine_streams,
        rounds=options.rounds or 3,
        seconds=options.seconds,
        probes=options.probes,
        saturation_streams=options.saturation_streams,
        teardowns=options.teardowns,
    )
    about = machine.describe()
    for name in PEERS:
        if name not in run.peers:
            _tell(f"without {PEERS[name].title}")
    samples = measure(run, _tell)
    return report.document(run, samples, about)


def _startup(options: argparse.Namespace) -> tuple[str, Any]:
    about = machine.describe()
    found = measure_startup(options.rounds or 5, _tell)
    return startup_markdown(found), {"machine": about, **found}


def _predictions(options: argparse.Namespace) -> tuple[str, Any]:
    about = machine.describe()
    found = measure_predictions(options.followers, options.rounds or 3, options.seconds, _tell)
    return predictions_markdown(found), {"machine": about, **found}


def _status(options: argparse.Namespace) -> tuple[str, Any]:
    about = machine.describe()
    found = measure_status(options.viewers, options.rounds or 5, options.seconds, _tell)
    return status_markdown(found), {"machine": about, **found}


_WHAT = {
    "relay": _relay,
    "startup": _startup,
    "predictions": _predictions,
    "status": _status,
}


def _tell(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = _parser()
    options = parser.parse_args(argv)
    options.peers = tuple(name for name in options.peers if name not in options.without)
    if not options.peers:
        parser.error("nobody is left to be measured")
    if options.plot is not None and options.what != "relay":
        parser.error("--plot draws the figures of relay")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=_DESCRIPTION)
    parser.add_argument(
        "what",
        nargs="?",
        choices=tuple(_WHAT),
        default="relay",
        help="relay (the default): streams through each peer; startup: from exec to the first 200;"
        " predictions: one prediction's events to all that follow it; status: what it costs that"
        " somebody watches",
    )
    add = parser.add_argument
    add("--rounds", type=_positive, metavar="N", help="rounds; default 3, for startup and status 5")
    add("--seconds", type=float, default=5.0, metavar="S", help="each window; default 5")
    add(
        "--streams",
        type=_counts,
        default=(1, 32, 128, 512),
        metavar="N,N",
        help="paced streams; default 1,32,128,512",
    )
    add(
        "--engine-streams",
        type=_counts,
        default=(1, 4),
        metavar="N,N",
        help="streams of the real engine, up to 4; default 1,4",
    )
    peers = _names("peer", PEERS)
    add("--peers", type=peers, default=tuple(PEERS), metavar="P,P", help=", ".join(PEERS))
    add("--without", type=peers, default=(), metavar="P,P", help="leave these peers out")
    parts = [str(part) for part in Part]
    add(
        "--only",
        type=lambda text: frozenset(map(Part, _names("part", parts)(text))),
        default=frozenset(Part),
        metavar="P,P",
        help=f"only these parts: {', '.join(parts)}",
    )
    add("--probes", type=int, default=200, metavar="N", help="first bytes timed; default 200")
    add(
        "--saturation-streams",
        type=int,
        default=32,
        metavar="N",
        help="streams of the unpaced load; 0 leaves it out; default 32",
    )
    add(
        "--followers",
        type=_counts,
        default=(1, 200),
        metavar="N,N",
        help="how many follow a prediction; default 1,200",
    )
    add(
        "--viewers",
        type=_counts,
        default=(1, 20),
        metavar="N,N",
        help="how many watch, beside none; default 1,20",
    )
    add("--teardowns", type=_positive, default=36, metavar="N", help="streams closed; default 36")
    add("--json", type=Path, metavar="PATH", help="write everything there, every sample too")
    add("--plot", type=Path, metavar="FILE.svg", help="draw the figures there")
    add(
        "--from-json",
        type=Path,
        metavar="PATH",
        help="measure nothing: print, and draw, what an earlier run wrote",
    )
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(each) for each in text.split(",")}))


def _names(what: str, known: Collection[str]) -> Callable[[str], tuple[str, ...]]:
    """Return what takes a list of names and refuses one that is not known."""

    def parse(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",")))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(
                    f"no {what} {name!r}; there are {', '.join(known)}"
                )
        return names

    return parse
