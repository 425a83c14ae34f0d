"""The benchmark: a small run gives sane figures, ends by itself and leaves nothing behind.

Only what it is made of is tested, never how fast anything is. The peers here are those that need no
more than the project itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
# Marks every process of one run: /proc tells it of each, whoever started it.
RUN_MARK = "BENCH_TEST_RUN"


def start(*arguments: str, mark: str) -> subprocess.Popen[str]:
    """Start the benchmark with this environment's Python."""
    path = os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "scripts")])
    return subprocess.Popen(
        [sys.executable, "-m", "benchmark", *arguments],
        env={**os.environ, "PYTHONPATH": path, RUN_MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(mark: str) -> list[str]:
    """Return the command lines of the processes that are left of a run."""
    wanted = f"{RUN_MARK}={mark}".encode()
    left = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                left.append((folder / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return left


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str]:
    """Return what one run of a few seconds gave: the JSON document and what it printed."""
    path = tmp_path_factory.mktemp("bench") / "figures.json"
    process = start(
        *("--peers", "direct,main", "--streams", "1,3", "--rounds", "1", "--seconds", "0.5"),
        *("--probes", "5", "--saturation-streams", "2", "--json", str(path)),
        mark="small",
    )
    printed, told = process.communicate(timeout=50)
    assert process.returncode == 0, told
    return json.loads(path.read_text()), printed


def figure(document: dict[str, Any], peer: str, streams: int, *, paced: bool) -> dict[str, Any]:
    """Return one row of the figures."""
    (row,) = [
        row
        for row in document["figures"]
        if (row["peer"], row["streams"], row["paced"]) == (peer, streams, paced)
    ]
    return row


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize("peer", ["direct", "main"])
def test_bench_paced_load_delivers_every_event(
    small_run: tuple[dict[str, Any], str], peer: str, streams: int
) -> None:
    """Every stream gets its 50 events a second, through each peer, and none is ended."""
    row = figure(small_run[0], peer, streams, paced=True)

    # Half a second holds 25 events of each stream, give or take those at its edges.
    assert row["events_per_s"] == pytest.approx(50 * streams, rel=0.25)
    assert row["streams_ended_early"] == 0


def test_bench_peer_figures_are_sane(small_run: tuple[dict[str, Any], str]) -> None:
    """Processor time, first byte and memory of a peer are there, and possible."""
    row = figure(small_run[0], "main", 3, paced=True)

    assert 1 < row["cpu_us_per_event"] < 20_000
    assert 0 < row["first_byte_ms"] < 5_000
    assert row["added_first_byte_ms"] < row["first_byte_ms"]
    assert 10 < row["rss_mib"] < 1_000


def test_bench_direct_has_no_processor_time(small_run: tuple[dict[str, Any], str]) -> None:
    """Where nobody is in between nothing is charged to anybody."""
    row = figure(small_run[0], "direct", 1, paced=True)

    assert row["cpu_us_per_event"] is None
    assert row["added_first_byte_ms"] == 0


def test_bench_unpaced_load_is_faster_than_the_paced_one(
    small_run: tuple[dict[str, Any], str],
) -> None:
    """Saturation is measured without the pace."""
    assert figure(small_run[0], "main", 2, paced=False)["events_per_s"] > 500


def test_bench_prints_a_table_row_for_each_figure(small_run: tuple[dict[str, Any], str]) -> None:
    """Two tables in Markdown: four paced rows and two unpaced ones, each under its head."""
    lines = small_run[1].splitlines()

    assert [line.count("|") for line in lines if line] == [11] * 6 + [6] * 4


def test_bench_json_says_on_what_and_how_it_was_measured(
    small_run: tuple[dict[str, Any], str],
) -> None:
    """Figures without the machine and the settings are worth nothing."""
    document = small_run[0]

    assert document["machine"]["processors"] >= 1
    assert document["machine"]["packages"]["trio"]
    assert document["run"]["rounds"] == 1
    assert 230 <= document["run"]["event_bytes"] <= 270
    assert len(document["samples"]) == 6


def test_bench_finished_run_leaves_no_process(small_run: tuple[dict[str, Any], str]) -> None:
    """Upstream, load and peers end with the run."""
    assert small_run
    assert processes_of("small") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bench_interrupted_run_leaves_no_process(number: signal.Signals) -> None:
    """Ctrl-C in the middle of a load ends everything that was started, and says so."""
    mark = f"interrupted-{number.name}"
    process = start("--peers", "main", "--seconds", "30", mark=mark)
    assert process.stderr is not None
    while "main" not in process.stderr.readline():
        assert process.poll() is None

    process.send_signal(number)
    _, told = process.communicate(timeout=30)

    assert process.returncode == 130
    assert told == "bench: interrupted\n"
    assert processes_of(mark) == []


def test_bench_unknown_peer_is_refused_with_those_that_there_are() -> None:
    """A mistake is told before anything is started."""
    process = start("--peers", "direct,apache", mark="refused")
    _, told = process.communicate(timeout=30)

    assert process.returncode == 2
    assert "no peer 'apache'; there are direct, fastapi, main" in told


def test_bench_startup_measures_both_and_what_the_proxy_adds(tmp_path: Path) -> None:
    """`bench startup` times the engine alone and behind the proxy, and names the slow imports."""
    path = tmp_path / "startup.json"
    process = start("startup", "--rounds", "1", "--json", str(path), mark="startup")
    printed, told = process.communicate(timeout=50)

    assert process.returncode == 0, told
    found = json.loads(path.read_text())
    assert 0 < found["engine_alone_s"]["median"] < found["llama_proxy_s"]["median"] < 30
    assert "trio" in [name for name, _, _ in found["imports_ms"]]
    assert "added by the proxy" in printed
    assert processes_of("startup") == []
