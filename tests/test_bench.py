"""The benchmark: a small run gives sane figures, ends by itself and leaves nothing behind.

Only what it is made of is tested, never how fast anything is. The peers here are those that need no
more than the project itself.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
# Marks every process of one run: /proc tells it of each, whoever started it.
RUN_MARK = "BENCH_TEST_RUN"
PEERS = ["direct", "main", "fast"]


@pytest.fixture(autouse=True)
def _scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `benchmark` be imported as scripts/bench does."""
    monkeypatch.syspath_prepend(str(CHECKOUT / "scripts"))


def module(name: str) -> Any:
    """Return a module of the benchmark's."""
    return importlib.import_module(f"benchmark.{name}")


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


@dataclass(frozen=True)
class SmallRun:
    """What a run of a few seconds gave."""

    path: Path
    printed: str
    told: str

    @property
    def document(self) -> dict[str, Any]:
        """Everything, as JSON has it."""
        return json.loads(self.path.read_text())


@pytest.fixture(scope="module")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> list[SmallRun]:
    """Return what two runs gave, side by side, for time: all that streams, and all that ends."""
    folder = tmp_path_factory.mktemp("bench")
    settings = [
        *("--peers", ",".join(PEERS), "--rounds", "1", "--seconds", "0.3", "--probes", "3"),
        *("--streams", "3", "--saturation-streams", "2", "--engine-streams", "1"),
        *("--teardowns", "2"),
    ]
    processes = {
        folder / f"{parts}.json": start(
            *settings, "--only", parts, "--json", str(folder / f"{parts}.json"), mark="small"
        )
        for parts in ("first-byte,paced,unpaced", "teardown,engine")
    }
    runs = [SmallRun(path, *each.communicate(timeout=50)) for path, each in processes.items()]
    assert [each.returncode for each in processes.values()] == [0, 0], runs
    return runs


@pytest.fixture(scope="module")
def found(small_runs: list[SmallRun]) -> list[dict[str, Any]]:
    """Return the figures of both."""
    return [row for run in small_runs for row in run.document["figures"]]


def figure(found: list[dict[str, Any]], peer: str, kind: str) -> dict[str, Any]:
    """Return one row of the figures."""
    (row,) = [row for row in found if (row["peer"], row["kind"]) == (peer, kind)]
    return row


@pytest.mark.parametrize("peer", PEERS)
def test_bench_paced_load_delivers_every_event(found: list[dict[str, Any]], peer: str) -> None:
    """Streams are at their pace of 50 events a second, through each peer, and none is ended."""
    row = figure(found, peer, "paced")

    # On a machine that is busy with other things a short window may hold few of the 150, and then
    # many that were late. Unpaced it would be thousands.
    assert 0 < row["events_per_s"] < 500
    assert row["streams_not_begun"] == row["streams_ended_early"] == 0


@pytest.mark.parametrize("peer", PEERS[1:])
def test_bench_peer_figures_are_sane(found: list[dict[str, Any]], peer: str) -> None:
    """Processor time, first byte and memory of a peer are there, and possible."""
    row = figure(found, peer, "paced")

    assert 1 < row["cpu_us_per_event"] < 20_000
    assert 0 < row["first_byte_ms"] < 5_000
    assert row["added_first_byte_ms"] < row["first_byte_ms"]
    assert 10 < row["rss_mib"] < 1_000
    assert row["load_cpu_us_per_event"] > 0
    assert row["upstream_cpu_us_per_event"] > 0


@pytest.mark.parametrize("peer", PEERS)
def test_bench_events_are_timed(found: list[dict[str, Any]], peer: str) -> None:
    """An event's time of arrival is held against when it was due, and the last one's."""
    row = figure(found, peer, "paced")

    # A quarter of a short window may have seen nothing, on a machine with other work.
    delays = [row["delay_start_ms"], row["delay_end_ms"], row["delay_end_p99_ms"]]
    assert all(0 < delay < 5_000 for delay in delays if delay is not None)
    assert 0 < row["gap_p99_ms"] < 5_000
    assert 0 <= row["jitter_ms"] < 5_000


def test_bench_direct_has_no_processor_time(found: list[dict[str, Any]]) -> None:
    """Where nobody is in between nothing is charged to anybody."""
    row = figure(found, "direct", "paced")

    assert row["cpu_us_per_event"] is None
    assert row["added_first_byte_ms"] == 0


def test_bench_first_byte_is_measured_on_an_idle_peer_too(found: list[dict[str, Any]]) -> None:
    """Without streams beside it nothing else is in the figure."""
    row = figure(found, "main", "idle")

    assert row["added_first_byte_ms"] < row["first_byte_ms"]
    assert row["events_per_s"] is None


@pytest.mark.parametrize("kind", ["unpaced", "engine"])
@pytest.mark.parametrize("peer", PEERS)
def test_bench_full_speed_gets_through(found: list[dict[str, Any]], peer: str, kind: str) -> None:
    """Of the unpaced upstream and of the real engine; how fast is not for a test to say."""
    row = figure(found, peer, kind)

    assert row["events_per_s"] > 0
    assert row["streams_not_begun"] == row["streams_ended_early"] == 0


@pytest.mark.parametrize("kind", ["teardown", "engine teardown"])
@pytest.mark.parametrize("peer", PEERS)
def test_bench_streams_end_soon_after_their_clients(
    found: list[dict[str, Any]], peer: str, kind: str
) -> None:
    """Each close is followed by an end: of the connection, or of the work in the slot."""
    row = figure(found, peer, kind)

    assert row["teardown_went_on"] == 0
    assert 0 < row["teardown_ms"] <= row["teardown_worst_ms"] < 5_000


def test_bench_prints_a_table_for_each_question(small_runs: list[SmallRun]) -> None:
    """In Markdown, with a row for each load and peer under their heads."""
    tables = [run.printed.split("\n\n")[:-1] for run in small_runs]
    lines = [[table.splitlines() for table in each] for each in tables]

    assert [[len(table) - 2 for table in each] for each in lines] == [[3, 3, 6, 3, 6], [3, 6]]
    assert all(len({line.count("|") for line in table}) == 1 for each in lines for table in each)


def test_bench_who_is_not_measured_is_said(small_runs: list[SmallRun]) -> None:
    """In the tables, in the document and while it runs."""
    run = small_runs[0]

    assert run.document["run"]["peers_left_out"] == ["nginx", "fastapi", "litellm"]
    assert run.printed.splitlines()[-1].startswith("Not measured: nginx")
    assert "bench: without LiteLLM proxy\n" in run.told


def test_bench_json_says_on_what_and_how_it_was_measured(small_runs: list[SmallRun]) -> None:
    """Figures without the machine and the settings are worth nothing."""
    document = small_runs[0].document

    assert document["machine"]["processors"] >= 1
    assert document["machine"]["packages"]["trio"]
    assert document["run"]["rounds"] == 1
    assert 230 <= document["run"]["event_bytes"] <= 270
    assert len(document["samples"]) == len(document["figures"]) == 9


def test_bench_from_json_prints_the_same_tables(small_runs: list[SmallRun]) -> None:
    """An earlier run can be looked at again, and drawn, without another one."""
    process = start("--from-json", str(small_runs[0].path), mark="again")
    printed, told = process.communicate(timeout=30)

    assert (process.returncode, told) == (0, "")
    assert printed == small_runs[0].printed


def test_bench_from_json_without_figures_is_refused(tmp_path: Path) -> None:
    """What is no document of this command is told so."""
    path = tmp_path / "startup.json"
    path.write_text('{"machine": {}}')
    process = start("--from-json", str(path), mark="again")
    _, told = process.communicate(timeout=30)

    assert process.returncode == 1
    assert told == f"bench: {path} has no figures of this command\n"


def test_bench_finished_run_leaves_no_process(small_runs: list[SmallRun]) -> None:
    """Upstream, engine, load and peers end with the run."""
    assert small_runs
    assert processes_of("small") == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_bench_interrupted_run_leaves_no_process(number: signal.Signals) -> None:
    """Ctrl-C in the middle of a load ends everything that was started, and says so."""
    mark = f"interrupted-{number.name}"
    process = start("--peers", "main", "--only", "paced", "--seconds", "30", mark=mark)
    assert process.stderr is not None
    while "main" not in process.stderr.readline():
        assert process.poll() is None

    process.send_signal(number)
    _, told = process.communicate(timeout=30)

    assert process.returncode == 130
    assert told == "bench: interrupted\n"
    assert processes_of(mark) == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--peers", "direct,apache"],
            "no peer 'apache'; there are direct, nginx, fastapi, litellm, main, fast",
        ),
        (["--without", "apache"], "no peer 'apache'"),
        (["--only", "speed"], "no part 'speed'; there are first-byte, paced, unpaced"),
        (["--peers", "main", "--without", "main"], "nobody is left to be measured"),
        (["startup", "--plot", "figures.svg"], "--plot draws the figures of relay"),
        (["predictions", "--plot", "figures.svg"], "--plot draws the figures of relay"),
        (["status", "--plot", "figures.svg"], "--plot draws the figures of relay"),
        (["status", "--viewers", "0"], "must be 1 or more"),
    ],
)
def test_bench_mistake_is_told_before_anything_is_started(arguments: list[str], said: str) -> None:
    """The message names what there is."""
    process = start(*arguments, mark="refused")
    _, told = process.communicate(timeout=30)

    assert process.returncode == 2
    assert said in told


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


def test_bench_predictions_counts_what_each_follower_gets(tmp_path: Path) -> None:
    """`bench predictions` has a row for each number of followers, with cost, delay and memory."""
    path = tmp_path / "predictions.json"
    process = start(
        *("predictions", "--followers", "1,5", "--rounds", "1", "--seconds", "0.5"),
        *("--json", str(path)),
        mark="predictions",
    )
    printed, told = process.communicate(timeout=50)

    assert process.returncode == 0, told
    one, five = json.loads(path.read_text())["figures"]
    assert (one["followers"], five["followers"]) == (1, 5)
    assert 0 < one["events_per_s"] < five["events_per_s"] < 500
    assert 0 < five["cpu_us_per_event"] < 20_000
    assert 10 < five["rss_before_mib"] <= five["rss_followed_mib"] < 1_000
    assert "not begun" not in five["trouble"]
    assert printed.count("\n") == 4
    assert processes_of("predictions") == []


def test_bench_status_measures_with_and_without_viewers(tmp_path: Path) -> None:
    """`bench status` has a row for each load and number of viewers, none among them."""
    path = tmp_path / "status.json"
    process = start(
        *("status", "--viewers", "2", "--rounds", "1", "--seconds", "0.3"),
        *("--json", str(path)),
        mark="status",
    )
    printed, told = process.communicate(timeout=50)

    assert process.returncode == 0, told
    rows = json.loads(path.read_text())["figures"]
    assert [(row["kind"], row["viewers"]) for row in rows] == [
        ("paced", 0),
        ("paced", 2),
        ("engine", 0),
        ("engine", 2),
    ]
    assert all(row["events_per_s"] > 0 and row["rss_mib"] > 10 for row in rows)
    assert [row["events_ratio"] for row in rows[::2]] == [1, 1]
    assert [row["trouble"] for row in rows] == [""] * 4
    assert printed.count("\n") == 6
    assert processes_of("status") == []


# ---- what it is made of --------------------------------------------------------------------------


def test_nginx_that_is_not_installed_is_named_with_its_package(tmp_path: Path) -> None:
    """The message says what to install, and how to do without."""
    error = module("processes").BenchmarkError
    with pytest.raises(error, match=r"apt install nginx-light.*--without nginx"):
        module("peers.nginx").find(str(tmp_path))


@pytest.mark.parametrize(
    ("available", "peer", "others"), [({4, 7, 9}, {4}, {7, 9}), ({2}, {2}, {2})]
)
def test_processors_are_the_peers_or_the_others(
    available: set[int], peer: set[int], others: set[int]
) -> None:
    """The peer has one for itself, unless there is only one."""
    shared = module("machine").share_processors(available)

    assert (shared.peer, shared.others) == (peer, others)


def test_rounds_begin_with_another_peer() -> None:
    """In turn, and each has its turn."""
    rotated = module("measure").rotated

    assert [rotated("abc", by)[0] for by in range(4)] == ["a", "b", "c", "a"]
    assert rotated("abc", 2) == ["c", "a", "b"]


def test_agenda_takes_out_who_is_due_in_order() -> None:
    """By whole milliseconds; those of one millisecond together, later ones stay."""
    agenda = module("agenda").Agenda()
    for due_ns, name in [(2_000_001, "c"), (900_000, "a"), (1_000_000, "b"), (9_000_000, "d")]:
        agenda.add(due_ns, name)

    assert agenda.next_ns == 1_000_000
    assert agenda.take(999_999) == []
    assert agenda.take(3_000_000) == ["a", "b", "c"]
    assert agenda.next_ns == 9_000_000
    assert agenda.take(9_000_000) == ["d"]
    assert agenda.next_ns is None


def test_order_is_read_out_of_json_that_was_written_anew() -> None:
    """Peers may add to the body and lay it out otherwise; without an order one event comes."""
    wire = module("wire")
    order = wire.Order(12.5, events=3, name="s7")
    _, _, body = wire.paced_request("127.0.0.1:1", order).partition(b"\r\n\r\n")
    written_anew = json.dumps({"more": [1], **json.loads(body)}, indent=2).encode()

    assert wire.read_order(written_anew) == order
    assert wire.read_order(b"{}") == wire.Order(0, events=1)


def test_event_has_one_mark_and_its_stamp() -> None:
    """Its chunk is whole, and as long whatever the time."""
    wire = module("wire")
    for stamp_ns in (0, 123_456_789_012):
        size, _, data = wire.event_chunk(stamp_ns).partition(b"\r\n")
        assert int(size, 16) == wire.EVENT_BYTES == len(data) - 2
        assert data.count(wire.MARK) == 1
        assert [int(stamp) for stamp in wire.STAMP.findall(data)] == [stamp_ns]


MS = 1_000_000


def test_gaps_of_an_even_stream_have_no_jitter() -> None:
    """As even as a clock is 0, whatever delay all events have."""
    found = module("timing").gaps([[(n * 20 * MS, n * 20 * MS + 7) for n in range(5)]])

    assert (found.p99, found.jitter) == (pytest.approx(0.02), pytest.approx(0))


def test_gaps_of_events_that_come_together_are_none_and_twice_the_pace() -> None:
    """Two events that should be 20 ms apart and come in pairs: 0 and 40 ms, 20 from the mean."""
    came = [0, 40, 40, 80, 80]
    found = module("timing").gaps([[(0, at * MS) for at in came]])

    assert (found.p99, found.jitter) == (pytest.approx(0.04), pytest.approx(0.02))


def test_gaps_are_within_a_stream_only() -> None:
    """One event each: there is nothing between them."""
    assert module("timing").gaps([[(0, 1)], [(0, 2)]]) is None


def test_delays_that_grow_show_at_the_end() -> None:
    """The first quarter of the window and the last one are apart; the middle is in neither."""
    arrivals = [(at * MS, at * MS + at * MS // 10) for at in range(0, 90, 10)]
    found = module("timing").delays([arrivals], 0, 100 * MS)

    # Those due at 0, 10 and 20 ms came 0, 1 and 2 ms late; that due at 70 and 80, 7 and 8.
    assert found.start.p50 == pytest.approx(0.001)
    assert found.start.p99 == pytest.approx(0.002)
    assert found.end.p50 == pytest.approx(0.0075)
    assert found.end.p99 == pytest.approx(0.008)


def test_delays_of_a_window_whose_end_saw_nothing_are_not_known() -> None:
    """A stream that stood still has no delay at the end."""
    assert module("timing").delays([[(0, 1)]], 0, 100) is None


@pytest.mark.parametrize(("share", "value"), [(0, 1), (0.5, 51), (0.99, 100), (1, 100)])
def test_percentile_is_one_of_the_values(share: float, value: int) -> None:
    """Of 1 to 100, in any order."""
    assert module("timing").percentile(list(range(100, 0, -1)), share) == value


@pytest.fixture
def far_end() -> Iterator[tuple[int, list[socket.socket]]]:
    """Give a port, and the connections that came to it when they are asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted: list[socket.socket] = [listener]
        yield listener.getsockname()[1], accepted
        for sock in accepted[1:]:
            sock.close()


def send_in_pieces(sock: socket.socket, stream: Any, data: bytes, size: int) -> None:
    """Send some bytes at a time, each read by `stream` before the next."""
    for begin in range(0, len(data), size):
        sock.sendall(data[begin : begin + size])
        stream.read()


@pytest.mark.parametrize("size", [1, 7, 100, 10_000])
def test_sampled_stream_finds_stamps_that_are_cut(
    far_end: tuple[int, list[socket.socket]], size: int
) -> None:
    """Every event is counted once and timed once, however it was split."""
    port, (listener,) = far_end
    stream = module("clients").SampledStream(port, b"?")
    sock, _ = listener.accept()
    event_chunk = module("wire").event_chunk
    send_in_pieces(sock, stream, b"".join(map(event_chunk, (5, 6, 7))), size)
    sock.close()
    stream.close()

    assert stream.events == 3
    assert [due for due, _ in stream.arrivals] == [5, 6, 7]


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_engine_stream_counts_events_and_sees_the_end(
    far_end: tuple[int, list[socket.socket]], size: int
) -> None:
    """Text that looks like an event is none; the last chunk is the end."""
    port, (listener,) = far_end
    stream = module("clients").EngineStream(port, b"?")
    sock, _ = listener.accept()
    data = b'HTTP/1.1 200 OK\r\n\r\n1\r\ndata: {"a": "\\ndata: x"}\n\n\r\n1\r\ndata: [DONE]\n\n\r\n'
    send_in_pieces(sock, stream, data, size)
    assert not stream.ended
    send_in_pieces(sock, stream, b"0\r\n\r\n", size)
    sock.close()
    stream.close()

    assert stream.events == 2
    assert stream.complete


def sample(peer: str, number: int, **seen: Any) -> Any:
    """Return a sample of 2 paced streams, with 100 events in a second unless told otherwise."""
    plan, load = module("plan"), module("load")
    usual = dict.fromkeys(load.LoadResult.__slots__, 0) | {
        "window_s": 1.0,
        "events": 100,
        "cpu_s": 0.01,
        "own_cpu_s": 0.1,
        "upstream_cpu_s": 0.2,
        "rss_bytes": 3 << 20,
    }
    result = load.LoadResult(**(usual | seen))
    return module("measure").Sample(peer, number, plan.Kind.PACED, 2, 1 << 20, seen=result)


def run_of(*peers: str, parts: str = "paced") -> Any:
    """Return a run of 2 paced streams."""
    plan = module("plan")
    wanted = frozenset(map(plan.Part, parts.split(",")))
    return plan.Run(peers, wanted, (2,), (1,), 3, 1.0, 10, 0, 10)


def only_row(samples: list[Any], peer: str, *peers: str) -> dict[str, Any]:
    """Return the row of a peer."""
    rows = module("report").figures(run_of(peer, *peers), samples)
    (row,) = [row for row in rows if row["peer"] == peer]
    return row


def test_report_processor_time_is_for_each_event() -> None:
    """10 ms for 100 events are 100 microseconds for each; 2 MiB for two streams, 1 for each."""
    row = only_row([sample("main", 1)], "main")

    assert row["cpu_us_per_event"] == 100
    assert row["events_per_s"] == 100
    assert (row["load_cpu_us_per_event"], row["upstream_cpu_us_per_event"]) == (1000, 2000)
    assert (row["rss_mib"], row["rss_kib_per_stream"]) == (3, 1024)


def test_report_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    """A machine that was slow in one round was so for both: 2, 3 and 4, not the medians' 30."""
    own, other = [0.02, 0.09, 0.4], [0.01, 0.03, 0.1]
    samples = [sample("main", n, cpu_s=cpu) for n, cpu in enumerate(own)]
    samples += [sample("nginx", n, cpu_s=cpu) for n, cpu in enumerate(other)]
    row = only_row(samples, "main", "nginx")

    assert row["cpu_ratio_to_nginx"] == pytest.approx(3)
    assert row["cpu_ratio"] is None
    assert row["cpu_us_per_event_min_max"] == (200, 4000)


def test_report_added_first_byte_is_the_difference_within_each_round() -> None:
    """Of the medians and of the 99th percentiles, each."""
    spread = module("timing").Spread
    samples = [sample("main", n, first_byte=spread(n + 0.005, n + 0.5)) for n in (0, 1, 2)]
    samples += [sample("direct", n, first_byte=spread(n + 0.001, n + 0.1)) for n in (0, 1, 2)]
    row = only_row(samples, "main", "direct")

    assert row["added_first_byte_ms"] == pytest.approx(4)
    assert row["added_first_byte_p99_ms"] == pytest.approx(400)


def test_report_teardown_is_over_all_rounds_together() -> None:
    """The worst of all is told, and how many went on."""
    teardown, kind = module("teardown").TeardownResult, module("plan").Kind.TEARDOWN
    make = module("measure").Sample
    samples = [
        make("main", 1, kind, 10, 0, ends=teardown([0.001, 0.002], 0)),
        make("main", 2, kind, 10, 0, ends=teardown([0.003], 1)),
    ]
    (row,) = module("report").figures(run_of("main", parts="teardown"), samples)

    assert (row["teardown_ms"], row["teardown_worst_ms"], row["teardown_went_on"]) == (2, 3, 1)


def test_report_peer_that_was_spared_a_load_has_a_row_that_says_so() -> None:
    """It is not left out of the table in silence."""
    rows = module("report").figures(run_of("main", "litellm"), [sample("main", 1)])
    table = module("tables").markdown(rows, ["paced"], [])

    assert rows[1]["rounds"] == 0
    assert "| LiteLLM proxy |  |  |  |  |  |  |  | not measured: less was too much |" in table


@pytest.mark.parametrize(
    ("seen", "expected"),
    [({}, False), ({"events": 51}, False), ({"events": 49}, True), ({"not_begun": 1}, True)],
)
def test_peer_that_falls_far_behind_is_spared_heavier_loads(
    seen: dict[str, int], expected: bool
) -> None:
    """Half of the events, or a stream that did not begin, are too much."""
    plan = module("plan")
    result = sample("main", 1, **seen).seen

    assert module("measure").is_too_much(result, plan.Load(plan.Kind.PACED, 2)) is expected


def test_only_first_byte_asks_for_streams_no_longer_than_needed() -> None:
    """No window is measured: the short answers beside the streams are what is wanted."""
    plan = module("plan")
    loads = plan.all_loads(run_of("main", parts="first-byte"))

    assert [(load.kind, load.seconds, load.probes) for load in loads] == [
        (plan.Kind.IDLE, 0.0, 10),
        (plan.Kind.PACED, 0.5, 10),
    ]


def test_plot_has_a_point_for_each_load_of_a_peer() -> None:
    """What is unknown, and what a logarithmic scale has no place for, is left out."""
    plot = module("plot")
    rows = [
        {"peer": "main", "kind": "paced", "streams": 1, "cpu_us_per_event": 5.0},
        {"peer": "main", "kind": "paced", "streams": 32, "cpu_us_per_event": 4.0},
        {"peer": "main", "kind": "unpaced", "streams": 32, "cpu_us_per_event": 1.0},
        {"peer": "direct", "kind": "paced", "streams": 1, "cpu_us_per_event": None},
        {"peer": "fast", "kind": "paced", "streams": 1, "cpu_us_per_event": 0.0},
    ]

    assert plot.series(rows, plot.PANELS[0]) == {"main": [(1, 5.0), (32, 4.0)]}


def followed(**seen: Any) -> Any:
    """Return what one load of 2 followers saw: 100 events in a second, unless told otherwise."""
    result = module("followers").FollowersResult
    usual = dict.fromkeys(result.__slots__, 0) | {
        "window_s": 1.0,
        "events": 100,
        "cpu_s": 0.01,
        "rss_followed": 4096,
        "delays": None,
    }
    return result(**(usual | seen))


def test_predictions_row_is_of_medians_over_the_rounds() -> None:
    """10 ms for 100 delivered events are 100 microseconds for each; 4 KiB for two, 2 for each."""
    rounds = [followed(cpu_s=cpu) for cpu in (0.03, 0.01, 0.02)]
    row = module("predictions").figures(2, rounds)

    assert (row["cpu_us_per_event"], row["cpu_us_per_event_min_max"]) == (200, (100, 300))
    assert (row["events_per_s"], row["rss_kib_per_follower"]) == (100, 2)
    assert (row["delay_ms"], row["trouble"]) == (None, "")


def test_predictions_row_tells_trouble() -> None:
    """Followers that got nothing, and a processor that others used."""
    row = module("predictions").figures(2, [followed(events=0, not_begun=2, waited_s=0.5)])

    assert row["trouble"] == "2 not begun, waited 50% of the time for its processor"
    assert row["cpu_us_per_event"] is None


def test_follower_orders_once_and_joins_otherwise() -> None:
    """The first makes the prediction, by a message for the upstream; the others send none."""
    wire, followers = module("wire"), module("followers")
    order = wire.Order(50)
    _, _, body = followers.follow_request("127.0.0.1:1", order).partition(b"\r\n\r\n")

    assert wire.read_order(body) == order
    assert followers.follow_request("127.0.0.1:1", None).endswith(b"\r\n\r\n")


def watched(number: int, viewers: int, lost: int = 0, **seen: Any) -> Any:
    """Return what one load with some viewers saw in a round."""
    seen_then = sample("fast", number, **seen).seen
    return module("status").StatusSample(
        module("plan").Kind.PACED, 2, viewers, lost, number, seen_then
    )


def test_status_ratio_is_the_median_of_the_ratios_within_each_round() -> None:
    """A machine that was slow in one round was so with viewers and without."""
    alone = [watched(n, 0, events=events) for n, events in enumerate((1000, 100, 500))]
    with_one = [watched(n, 1, events=events) for n, events in enumerate((900, 50, 450))]
    first, second = module("status").figures([*alone, *with_one])

    assert (first["viewers"], first["events_ratio"], first["cpu_us_more"]) == (0, 1, 0)
    assert (second["viewers"], second["events_ratio"]) == (1, pytest.approx(0.9))


def test_status_cost_is_what_comes_on_top_in_each_round() -> None:
    """10 ms more for 100 events are 100 microseconds for each; streams that failed are told."""
    alone = [watched(n, 0, cpu_s=cpu) for n, cpu in enumerate((0.01, 0.02, 0.1))]
    with_one = [watched(n, 1, cpu_s=cpu) for n, cpu in enumerate((0.02, 0.03, 0.2))]
    with_one.append(watched(2, 1, 1, cpu_s=0.11, not_begun=1))
    _, row = module("status").figures([*alone, *with_one])

    assert row["cpu_us_more"] == pytest.approx(100)
    assert row["trouble"] == "1 not begun, 1 viewers lost"
