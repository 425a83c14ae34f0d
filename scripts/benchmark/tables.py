"""The figures as tables in Markdown, one for each question that was asked."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from benchmark.peers import DIRECT, PEERS
from benchmark.plan import Kind, Part
from benchmark.report import Row

# Load and upstream together: beyond this they, and not the peer, may be what limits.
_BUSY_SHARE = 0.9
# A peer that waits for longer shares its processor with something else, and its figures say little.
_WAITED_SHARE = 0.05

Cell = Callable[[Row], str]


def _number(key: str, digits: int) -> Cell:
    def cell(row: Row) -> str:
        value = row.get(key)
        return f"{value:.{digits}f}" if isinstance(value, (int, float)) else ""

    return cell


def _added(key: str) -> Cell:
    """Return a cell that is empty for direct, whose difference to itself is none."""
    number = _number(key, 2)
    return lambda row: "" if row["peer"] == DIRECT else number(row)


def _title(row: Row) -> str:
    return PEERS[str(row["peer"])].title


def _range(row: Row) -> str:
    spread = row.get("cpu_us_per_event_min_max")
    return f"{spread[0]:.1f}-{spread[1]:.1f}" if isinstance(spread, (tuple, list)) else ""


def _trouble(row: Row) -> str:
    """Say what went wrong, where something did."""
    if not row["rounds"]:
        return "not measured: less was too much"
    said = {
        "did not begin": row["streams_not_begun"],
        "ended early": row["streams_ended_early"],
    }
    troubles = [f"{count} {what}" for what, count in said.items() if count]
    share = row.get("waited_share")
    if isinstance(share, float) and share > _WAITED_SHARE:
        troubles.append(f"waited {share:.0%} of the time for its processor")
    return ", ".join(troubles)


def _limit(row: Row) -> str:
    share = row.get("instruments_share")
    return "yes" if isinstance(share, float) and share > _BUSY_SHARE else ""


@dataclass(frozen=True, slots=True)
class _Table:
    """One table.

    Attributes:
        part: What must have been asked for.
        kinds: The kinds of loads whose rows it has.
        shown: Of rows that have none of these there is nothing to tell.
        columns: Their heads and cells.
    """

    part: Part
    kinds: frozenset[Kind]
    shown: tuple[str, ...]
    columns: dict[str, Cell]

    def rows(self, found: Sequence[Row]) -> list[Row]:
        """Return the rows that it has; none where nobody has anything to tell."""
        rows = [row for row in found if row["kind"] in self.kinds]
        return rows if any(row.get(key) for row in rows for key in self.shown) else []

    def markdown(self, rows: Sequence[Row]) -> str:
        """Return it with these rows."""
        cells = [[cell(row) for cell in self.columns.values()] for row in rows]
        lines = [list(self.columns), ["---"] * len(self.columns), *cells]
        return "".join("| " + " | ".join(line) + " |\n" for line in lines)


_TABLES = (
    _Table(
        Part.PACED,
        frozenset({Kind.PACED}),
        ("cpu_us_per_event",),
        {
            "streams": _number("streams", 0),
            "peer": _title,
            "CPU µs/event": _number("cpu_us_per_event", 1),
            "min-max": _range,
            "to FastAPI": _number("cpu_ratio", 2),
            "to nginx": _number("cpu_ratio_to_nginx", 2),
            "events/s": _number("events_per_s", 0),
            "RSS MiB": _number("rss_mib", 1),
            "RSS KiB/stream": _number("rss_kib_per_stream", 0),
            "trouble": _trouble,
        },
    ),
    _Table(
        Part.PACED,
        frozenset({Kind.PACED}),
        ("gap_p99_ms", "delay_end_ms"),
        {
            "streams": _number("streams", 0),
            "peer": _title,
            "gap p99, ms": _number("gap_p99_ms", 1),
            "jitter, ms": _number("jitter_ms", 2),
            "delay at the start, median ms": _number("delay_start_ms", 2),
            "at the start, p99 ms": _number("delay_start_p99_ms", 2),
            "at the end, median ms": _number("delay_end_ms", 2),
            "at the end, p99 ms": _number("delay_end_p99_ms", 2),
        },
    ),
    _Table(
        Part.FIRST_BYTE,
        frozenset({Kind.IDLE, Kind.PACED}),
        ("first_byte_ms",),
        {
            "streams beside": _number("streams", 0),
            "first byte through": _title,
            "median ms": _number("first_byte_ms", 2),
            "p99 ms": _number("first_byte_p99_ms", 2),
            "added, median ms": _added("added_first_byte_ms"),
            "added, p99 ms": _added("added_first_byte_p99_ms"),
        },
    ),
    _Table(
        Part.UNPACED,
        frozenset({Kind.UNPACED}),
        ("events_per_s",),
        {
            "streams, unpaced": _number("streams", 0),
            "peer": _title,
            "events/s": _number("events_per_s", 0),
            "to FastAPI": _number("events_per_s_ratio", 2),
            "CPU µs/event": _number("cpu_us_per_event", 1),
            "load was the limit": _limit,
        },
    ),
    _Table(
        Part.ENGINE,
        frozenset({Kind.ENGINE}),
        ("events_per_s",),
        {
            "streams of a real engine": _number("streams", 0),
            "peer": _title,
            "events/s": _number("events_per_s", 0),
            "CPU µs/event": _number("cpu_us_per_event", 1),
            "min-max": _range,
            "to FastAPI": _number("cpu_ratio", 2),
            "to nginx": _number("cpu_ratio_to_nginx", 2),
            "engine was the limit": _limit,
            "trouble": _trouble,
        },
    ),
    _Table(
        Part.TEARDOWN,
        frozenset({Kind.TEARDOWN, Kind.ENGINE_TEARDOWN}),
        ("teardown_ms", "teardown_went_on"),
        {
            "client's close to the end": lambda row: (
                "connection of the paced upstream"
                if row["kind"] == Kind.TEARDOWN
                else "slot of the real engine"
            ),
            "peer": _title,
            "median ms": _number("teardown_ms", 1),
            "worst ms": _number("teardown_worst_ms", 1),
            "went on after 5 s": _number("teardown_went_on", 0),
        },
    ),
    _Table(
        Part.PACED,
        frozenset({Kind.PACED, Kind.UNPACED, Kind.ENGINE}),
        ("load_cpu_us_per_event",),
        {
            "instruments": lambda row: f"{row['streams']} {row['kind']}",
            "peer": _title,
            "load, CPU µs/event": _number("load_cpu_us_per_event", 1),
            "upstream, CPU µs/event": _number("upstream_cpu_us_per_event", 1),
            "peer, CPU µs/event": _number("cpu_us_per_event", 1),
            "peer waited, share of the time": _number("waited_share", 3),
            "load and upstream, share of their processors": _number("instruments_share", 2),
        },
    ),
)


def markdown(found: Sequence[Row], parts: Collection[str], left_out: Sequence[str]) -> str:
    """Return the figures as tables, and who was not measured."""
    asked_for = [table for table in _TABLES if table.part in parts]
    tables = [table.markdown(rows) for table in asked_for if (rows := table.rows(found))]
    if left_out:
        names = ", ".join(PEERS[name].title for name in left_out)
        tables.append(f"Not measured: {names}.\n")
    return "\n".join(tables)
