"""The command line of `scripts/bench`: what is asked for, progress, and where the results go.

Tables go to standard output, progress to standard error. Ends with 0, with 1 when a run could not
be finished, with 130 when it was interrupted; no child is left in either case.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmark import report
from benchmark.measure import Run, measure
from benchmark.peers import PEERS
from benchmark.processes import BenchmarkError
from benchmark.startup import measure_startup, startup_markdown

_DESCRIPTION = """\
Measures what a relayed event costs: processor time, added time to the first byte, memory, and how
many events pass at most. Everything runs on this machine's loopback and ends by itself. What the
figures mean, and what they do not: docs/performance.md."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = _parser().parse_args(argv)
    # As Ctrl-C: the blocks that own children are left and end them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        table, found = (_startup if options.what == "startup" else _relay)(options)
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    print(table, end="")
    return 0


def _relay(options: argparse.Namespace) -> tuple[str, report.Row]:
    run = Run(
        peers=options.peers,
        streams=options.streams,
        rounds=options.rounds or 3,
        seconds=options.seconds,
        probes=options.probes,
        saturation_streams=options.saturation_streams,
    )
    about = report.machine()
    samples = measure(run, _tell)
    found = report.document(run, samples, about)
    return report.markdown(report.figures(run, samples)), found


def _startup(options: argparse.Namespace) -> tuple[str, report.Row]:
    about = report.machine()
    found = measure_startup(options.rounds or 5, _tell)
    return startup_markdown(found), {"machine": about, **found}


def _tell(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=_DESCRIPTION)
    parser.add_argument(
        "what",
        nargs="?",
        choices=("relay", "startup"),
        default="relay",
        help="relay (the default): streams through each peer; startup: from exec to the first 200",
    )
    add = parser.add_argument
    add("--rounds", type=_positive, metavar="N", help="rounds; default 3, for startup 5")
    add("--seconds", type=float, default=8.0, metavar="S", help="each window; default 8")
    add("--streams", type=_counts, default=(1, 32, 128), metavar="N,N", help="default 1,32,128")
    add("--peers", type=_peers, default=tuple(PEERS), metavar="P,P", help=", ".join(PEERS))
    add("--probes", type=int, default=100, metavar="N", help="first bytes timed; default 100")
    add(
        "--saturation-streams",
        type=int,
        default=32,
        metavar="N",
        help="streams of the unpaced load; 0 leaves it out; default 32",
    )
    add("--json", type=Path, metavar="PATH", help="write everything there, every sample too")
    return parser


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(sorted({_positive(each) for each in text.split(",")}))


def _peers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    unknown = [name for name in names if name not in PEERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    return names
