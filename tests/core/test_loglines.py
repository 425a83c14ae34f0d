"""Tests of `proxy.core.loglines`."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.lifecycle import ExitStatus
from proxy.core.loglines import (
    LineSplitter,
    LogBatch,
    LogRing,
    explain_failure,
    listening_port,
    load_progress,
)


def test_line_splitter_lines_across_pieces_are_joined() -> None:
    """A line may come in any number of pieces."""
    splitter = LineSplitter()
    found = [splitter.feed(piece) for piece in (b"on", b"e\ntw", b"o\r\nthree\n", b"four")]
    assert found == [[], [b"one"], [b"two", b"three"], []]
    assert splitter.partial == b"four"


def test_line_splitter_flush_returns_the_rest_once() -> None:
    """A process that dies in the middle of a line has said something nevertheless."""
    splitter = LineSplitter()
    splitter.feed(b"last wor")
    assert (splitter.flush(), splitter.flush()) == ([b"last wor"], [])


def test_line_splitter_carriage_return_starts_the_line_anew() -> None:
    """A progress bar that redraws itself is one line, in its last state."""
    splitter = LineSplitter()
    assert splitter.feed(b"10 %\r20 %\r") == []
    assert splitter.feed(b"30 %\r\nnext\n") == [b"30 %", b"next"]


def test_line_splitter_line_without_end_stays_bounded() -> None:
    """A child that never ends its line costs no memory."""
    splitter = LineSplitter(max_line_bytes=100)
    for _ in range(1000):
        splitter.feed(b"x" * 1000)
    assert len(splitter.partial) <= 100 + 256
    assert splitter.feed(b"\nafter\n")[1] == b"after"


@given(
    lines=st.lists(st.binary(max_size=20).filter(lambda b: b"\n" not in b and b"\r" not in b)),
    cuts=st.lists(st.integers(0, 200)),
)
def test_line_splitter_any_cuts_give_the_same_lines(lines: list[bytes], cuts: list[int]) -> None:
    """Where the pipe cuts does not matter."""
    stream = b"".join(line + b"\n" for line in lines)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    splitter = LineSplitter()
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        found += splitter.feed(stream[start:end])
    assert found == lines


def test_log_ring_keeps_the_last_lines_numbered() -> None:
    """The ring is bounded, and its numbers go on."""
    ring = LogRing(max_lines=3)
    for number in range(5):
        ring.append(b"line %d" % number)
    assert ring.tail(2) == ("line 3", "line 4")
    assert ring.tail(9) == ("line 2", "line 3", "line 4")
    assert ring.tail(0) == ()
    assert ring.next_number == 5


def test_log_ring_follower_in_time_gets_each_line_once() -> None:
    """Asking for the next number gives what came since."""
    ring = LogRing(max_lines=3)
    ring.append(b"a")
    first = ring.since(0)
    ring.append(b"b")
    assert first == LogBatch(("a",), 1, 0)
    assert ring.since(first.next_number) == LogBatch(("b",), 2, 0)
    assert ring.since(2) == LogBatch((), 2, 0)


def test_log_ring_slow_follower_is_told_how_many_it_missed() -> None:
    """What has fallen out of the ring is counted, not hidden."""
    ring = LogRing(max_lines=3)
    for number in range(10):
        ring.append(b"%d" % number)
    assert ring.since(2) == LogBatch(("7", "8", "9"), 10, 5)


def test_log_ring_secret_is_replaced() -> None:
    """The key of a launch never gets into the ring."""
    ring = LogRing()
    ring.hide("s3cret" * 10)
    assert ring.append(b"key=" + b"s3cret" * 10 + b"!") == "key=[hidden]!"


def test_log_ring_secret_across_the_cut_is_replaced() -> None:
    """Not even the beginning of a key stays at the end of a line that is cut."""
    ring = LogRing(max_line_bytes=50)
    ring.hide("k" * 64)
    kept = ring.append(b"x" * 45 + b"k" * 64 + b"y" * 1000)
    assert "k" not in kept
    assert len(kept) == 50


def test_log_ring_control_sequences_and_bad_bytes_are_made_harmless() -> None:
    """A line cannot drive the terminal that it is shown on."""
    ring = LogRing()
    assert ring.append(b"\x1b[31mred\x1b[0m \xff\x07\ttab") == "red \ufffd\ttab"


@pytest.mark.parametrize(
    ("line", "port"),
    [
        ("0.00.604.136 I srv  llama_server: listening on http://127.0.0.1:39871", 39871),
        ("main: server is listening on http://127.0.0.1:8080 - starting the main loop", 8080),
        ("listening on unix:///tmp/x.sock", None),
        ("couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 39871", None),
    ],
)
def test_listening_port_is_read_from_the_line_that_tells_it(line: str, port: int | None) -> None:
    """With port 0 the log is where the port is told."""
    assert listening_port(line) == port


STATE = 'cmd_child_to_router:state:{"state":"loading","payload":{"stages":["a","b"],'


@pytest.mark.parametrize(
    ("line", "progress"),
    [
        (".", 0.01),
        ("." * 42, 0.42),
        ("." * 300, 1.0),
        ("...done", None),
        ("", None),
        (STATE + '"current":"a","value":0.5}}', 0.25),
        (STATE + '"current":"b","value":1.0}}', 1.0),
        (STATE + '"current":"c","value":1.0}}', None),
        ('cmd_child_to_router:state:{"state":"ready","payload":{}}', None),
        ("cmd_child_to_router:state:[1]", None),
        ("cmd_child_to_router:state:{", None),
    ],
)
def test_load_progress_is_read_from_dots_and_states(line: str, progress: float | None) -> None:
    """One dot is a percent; a router's child tells its stages."""
    assert load_progress(line) == progress


# Lines as llama-server b11434 and the loader of glibc wrote them.
BROKEN_TAIL = (
    "0.00.005 E llama_model_load: error loading model: llama_model_loader: failed to load model",
    "0.00.006 E srv  llama_server: exiting due to model loading error",
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "E gguf_init_from_reader: invalid magic characters: '???3', expected 'GGUF'",
            "not a GGUF",
        ),
        ("E gguf_init_from_reader: failed to read magic", "not a GGUF"),
        (
            "E gguf_init_from_file: failed to open GGUF file 'n' (No such file or directory)",
            "exist",
        ),
        (
            "E gguf_init_from_file: failed to open GGUF file 'n' (Permission denied)",
            "may not be read",
        ),
        ("E tensor 'x' data is not within the file bounds, model is corrupted", "damaged"),
        ("E error loading model: unknown model architecture: 'qwen9'", "architecture qwen9"),
        ("E cudaMalloc failed: out of memory", "not enough memory"),
        ("E alloc_tensor_range: failed to allocate CUDA0 buffer of size 12306496768", "memory"),
        ("E ggml_aligned_malloc: insufficient memory (attempted to allocate 9 MB)", "memory"),
        ("terminate called after throwing an instance of 'std::bad_alloc'", "memory"),
        ("W something harmless", "could not load the model"),
    ],
)
def test_explain_failure_particular_reason_wins(line: str, words: str) -> None:
    """What the log says first and exactly is the reason, not the general words after it."""
    assert words in explain_failure((line, *BROKEN_TAIL), ExitStatus(1))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("error: invalid argument: --bogus", "does not know the argument --bogus."),
        (
            "error: the embedded runtime does not know the argument '--bogus': l",
            "argument --bogus.",
        ),
        ("error: the value 'abc' does not fit the argument -c: expected N", "given for -c."),
        ('error while handling argument "-c": stoi', "the value that it was given for -c."),
        (
            "/x/y: error while loading shared libraries: libcudart.so.12: cannot open it",
            "the shared library libcudart.so.12 is missing",
        ),
        ("dyld: Library not loaded: @rpath/libggml.dylib", "libggml.dylib is missing"),
        ("/lib/libc.so.6: version `GLIBC_2.38' not found (required by x)", "which has GLIBC_2.38"),
        (
            "E srv  start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 39871",
            "in use or not allowed",
        ),
    ],
)
def test_explain_failure_names_what_is_wrong(line: str, words: str) -> None:
    """A person reads what to change."""
    assert words in explain_failure(("I first", line), ExitStatus(1))


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (-9, "ran out of memory"),
        (-4, "another kind of processor"),
        (-11, "signal 11 (SIGSEGV)"),
        (3, "exit code 3"),
    ],
)
def test_explain_failure_silent_end_is_told_by_its_status(returncode: int, words: str) -> None:
    """Without a word in the log the exit status has to do."""
    assert words in explain_failure(("nothing special",), ExitStatus(returncode))


def test_explain_failure_reason_has_no_path() -> None:
    """The reason may reach a client."""
    line = "E failed to open GGUF file '/home/ann/secret.gguf' (No such file or directory)"
    assert "/" not in explain_failure((line,), ExitStatus(1))
