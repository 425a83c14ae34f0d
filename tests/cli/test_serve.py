"""`llama-proxy serve` as a real process: start, notice, ready file, signals and failures."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from proxy._version import __version__
from tests.cli.command import PATIENCE_S, ROOT, argv_of, environment, run_command

FAKE = str(ROOT / "tests" / "fakes" / "fake_llama_server.py")
KEY = "sk-very-secret"
# A body for the fake, which streams its words in the form of this route.
CHAT = {"messages": [{"role": "user", "content": "x"}]}


@dataclass
class Served:
    """A running command."""

    process: subprocess.Popen[str]
    ready_file: Path
    temporary: Path
    notice: list[str] = field(default_factory=list)

    @property
    def ready(self) -> dict[str, Any]:
        """What its ready file says now."""
        found: dict[str, Any] = json.loads(self.ready_file.read_text())
        return found

    def read_notice(self) -> None:
        """Wait for the notice: the line with the command to try is there once it is ready."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.notice.append(line.rstrip("\n"))
            if line.startswith("try:"):
                return
        raise AssertionError(self.told())

    def wait_logged(self, pattern: str) -> str:
        """Wait for a line of the log that has the pattern."""
        assert self.process.stderr is not None
        read = []
        for line in self.process.stderr:
            read.append(line)
            if re.search(pattern, line):
                return line
        raise AssertionError("".join(read))

    def told(self) -> str:
        """Return the rest of what it writes to standard error, until it ends."""
        assert self.process.stderr is not None
        return self.process.stderr.read()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait_gone(self) -> int:
        """Return its exit status, once it is seen that it left nothing."""
        pid = self.ready["llama_server_pid"] if self.ready_file.exists() else None
        status = self.process.wait(PATIENCE_S)
        self.assert_nothing_left(pid)
        return status

    def assert_nothing_left(self, llama_server_pid: int | None) -> None:
        """Neither ready file nor temporary folder nor llama-server."""
        assert not self.ready_file.exists()
        assert list(self.temporary.iterdir()) == []
        if llama_server_pid is not None:
            with pytest.raises(ProcessLookupError):
                os.kill(llama_server_pid, 0)


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[Served]:
    """Start the command on any free port; kill it at the end if it is still there."""
    ready_file, temporary = folder / "ready.json", folder / "tmp"
    temporary.mkdir()
    options = ["--port", "0", "--fast-port", "0", "--ready-file", str(ready_file), *arguments]
    with subprocess.Popen(
        argv_of("serve", *options),
        env=environment({"TMPDIR": str(temporary), **environ}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Served(process, ready_file, temporary)
        finally:
            process.kill()


def ask(url: str, target: str, body: object | None = None) -> tuple[int, bytes]:
    """Send one request; return status and body."""
    connection = HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE_S)
    try:
        method = "GET" if body is None else "POST"
        headers = {"Content-Type": "application/json"}
        connection.request(method, target, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


@contextmanager
def asking(url: str, target: str, body: object) -> Iterator[list[tuple[int, bytes] | OSError]]:
    """Send one request while the block runs; the list has the answer, or the failure, after it."""
    answers: list[tuple[int, bytes] | OSError] = []

    def run() -> None:
        try:
            answers.append(ask(url, target, body))
        except OSError as error:
            answers.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield answers
    finally:
        thread.join(PATIENCE_S)


async def until_busy(url: str) -> None:
    """Wait until llama-server works on a request."""
    with trio.fail_after(PATIENCE_S):
        busy = False
        while not busy:  # noqa: ASYNC110  # llama-server has no event for it
            await trio.sleep(0.01)
            _, state = await trio.to_thread.run_sync(ask, url, "/fake/state")
            busy = bool(json.loads(state)["busy"])


# --- start ---


def test_demo_model_is_served_with_one_command(tmp_path: Path) -> None:
    """The notice, the ready file and the command to paste are right; SIGTERM ends with status 0."""
    with serving(tmp_path, "--llama-server", "embedded") as served:
        served.read_notice()
        ready = served.ready
        assert served.notice[0] == f"llama-proxy {__version__} is ready: {ready['url']}"
        assert "the packaged demo model" in served.notice[1]
        assert ready["pid"] == served.process.pid
        assert ready["fast_url"].startswith("http://127.0.0.1:")
        assert ready["api_key_required"] is False
        os.kill(ready["llama_server_pid"], 0)
        command = served.notice[-1].removeprefix("try:")
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, timeout=PATIENCE_S, check=True
        )
        assert json.loads(done.stdout)["choices"][0]["message"]["content"]
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0
        assert "Traceback" not in served.told()


def test_command_to_paste_works_with_a_key_in_its_place(tmp_path: Path) -> None:
    """The notice has a placeholder, never the key; without the key it is refused."""
    with serving(tmp_path, "--llama-server", FAKE, LLAMA_PROXY_API_KEY=KEY) as served:
        served.read_notice()
        served.notice.append(served.process.stdout.readline())  # type: ignore[union-attr]
        assert KEY not in "".join(served.notice)
        assert served.ready["api_key_required"] is True
        [command] = [line for line in served.notice if line.startswith("try:")]
        for key, expected in ((KEY, "choices"), ("wrong", "error")):
            done = subprocess.run(
                ["/bin/sh", "-c", command.removeprefix("try:")],
                env={"PATH": os.environ["PATH"], "KEY": key},
                capture_output=True,
                timeout=PATIENCE_S,
                check=True,
            )
            assert expected in json.loads(done.stdout)
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0
        assert KEY not in served.told()


def test_json_log_has_nothing_but_json(tmp_path: Path) -> None:
    """Every line of standard error, also those about the load."""
    with serving(tmp_path, "--llama-server", FAKE, "--log-format", "json") as served:
        served.read_notice()
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0
        lines = [json.loads(line) for line in served.told().splitlines()]
    assert {"ts", "level", "logger", "message"} <= set(lines[0])
    assert any(line["message"].startswith("loading the demo model") for line in lines)


async def test_serves_on_without_anybody_reading_its_output(tmp_path: Path) -> None:
    """Readers of the notice and of the log may leave: that is no reason to stop."""
    with serving(tmp_path, "--llama-server", FAKE) as served:
        served.process.stdout.close()  # type: ignore[union-attr]
        served.process.stderr.close()  # type: ignore[union-attr]
        with trio.fail_after(PATIENCE_S):
            while not served.ready_file.exists():  # noqa: ASYNC110  # the file is the only sign
                await trio.sleep(0.01)
        status, _ = await trio.to_thread.run_sync(ask, served.ready["url"], "/v1/models")
        assert status == 200
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0


async def test_ready_file_follows_a_restarted_llama_server(tmp_path: Path) -> None:
    """After a crash it has the new process id."""
    with serving(tmp_path, "--llama-server", FAKE) as served:
        served.read_notice()
        before = served.ready["llama_server_pid"]
        os.kill(before, signal.SIGKILL)
        with trio.fail_after(PATIENCE_S):
            # The file is the only sign.
            while served.ready["llama_server_pid"] == before:  # noqa: ASYNC110
                await trio.sleep(0.01)
        os.kill(served.ready["llama_server_pid"], 0)
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0


def test_upstream_of_somebody_else_is_served(tmp_path: Path) -> None:
    """Nothing is launched, and nothing is stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [FAKE, "--port", str(port)], stderr=subprocess.DEVNULL, env=environment()
    ) as upstream:
        try:
            with serving(tmp_path, "--upstream-url", f"http://127.0.0.1:{port}") as served:
                served.read_notice()
                assert served.ready["llama_server_pid"] is None
                assert ask(served.ready["url"], "/v1/models")[0] == 200
                served.send(signal.SIGTERM)
                assert served.wait_gone() == 0
            assert upstream.poll() is None
        finally:
            upstream.kill()


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
async def test_first_signal_lets_what_is_in_flight_finish(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The answer is whole, and the status is 0."""
    with serving(tmp_path, "--llama-server", FAKE) as served:
        served.read_notice()
        url = served.ready["url"]
        with asking(url, "/v1/chat/completions?first_s=1", CHAT) as answers:
            await until_busy(url)
            served.send(number)
        assert isinstance(answers[0], tuple)
        assert answers[0][0] == 200
        assert served.wait_gone() == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
async def test_second_signal_stops_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """What is in flight is cut, nothing is left, and the status is 130."""
    with serving(tmp_path, "--llama-server", FAKE) as served:
        served.read_notice()
        url = served.ready["url"]
        with asking(url, "/v1/chat/completions?first_s=60", CHAT) as answers:
            await until_busy(url)
            served.send(number)
            served.wait_logged(f"{number.name}: stopping when")
            started = trio.current_time()
            served.send(number)
            assert served.wait_gone() == 130
            assert trio.current_time() - started < 5
        # Cut without an answer, or told why.
        assert isinstance(answers[0], OSError) or answers[0][0] == 503
        assert "Traceback" not in served.told()


async def test_drain_time_bounds_what_is_in_flight(tmp_path: Path) -> None:
    """After it the client is told that we shut down."""
    with serving(tmp_path, "--llama-server", FAKE, "--drain-s", "0.2") as served:
        served.read_notice()
        url = served.ready["url"]
        with asking(url, "/v1/chat/completions?first_s=60", CHAT) as answers:
            await until_busy(url)
            served.send(signal.SIGTERM)
            assert served.wait_gone() == 0
        assert isinstance(answers[0], tuple)
        assert answers[0][0] == 503


def test_signal_while_loading_stops(tmp_path: Path) -> None:
    """Nothing is in flight then, and nothing is ready."""
    with serving(tmp_path, "--llama-server", FAKE, "--", "--fake-stall") as served:
        served.wait_logged("loading the demo model")
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0
        assert served.process.stdout is not None
        assert served.process.stdout.read() == ""
        assert "Traceback" not in served.told()


# --- failures ---


def test_port_in_use_is_told_before_anything_is_launched(tmp_path: Path) -> None:
    """Status 2, and the launch did not take place."""
    plan = tmp_path / "plan"
    plan.write_text("\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        done = run_command(
            *("serve", "--port", port, "--llama-server", FAKE),
            environ={"FAKE_LLAMA": f"--fake-plan {plan}", "TMPDIR": str(tmp_path)},
        )
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == [plan]


def test_port_in_use_leaves_the_ready_file_of_who_has_it(tmp_path: Path) -> None:
    """A second start by mistake does not hide the first one."""
    with serving(tmp_path, "--llama-server", FAKE) as served:
        served.read_notice()
        ready = served.ready
        port = str(urlsplit(ready["url"]).port)
        done = run_command("serve", "--port", port, "--ready-file", str(served.ready_file))
        assert done.returncode == 2
        assert served.ready == ready
        served.send(signal.SIGTERM)
        assert served.wait_gone() == 0


@pytest.mark.parametrize(
    "content", [b"", b"GGUF", b"no model " * 1000], ids=["empty", "cut", "text"]
)
def test_broken_model_is_told_with_status_3(tmp_path: Path, content: bytes) -> None:
    """The reason and llama-server's last lines, within seconds, and no traceback."""
    model = tmp_path / "broken.gguf"
    model.write_bytes(content)
    with serving(tmp_path, "--llama-server", "embedded", "-m", str(model)) as served:
        assert served.wait_gone() == 3
        told = served.told()
    assert "llama-proxy: error: " in told
    assert "llama-server's last lines:" in told
    assert "Traceback" not in told


def test_missing_llama_server_is_told_with_status_3(tmp_path: Path) -> None:
    """What was looked for, and no traceback."""
    with serving(tmp_path, "--llama-server", "/no/llama-server") as served:
        assert served.wait_gone() == 3
        told = served.told()
    assert "/no/llama-server" in told
    assert "Traceback" not in told


def test_crash_loop_under_exit_on_failed_is_told_with_status_3(tmp_path: Path) -> None:
    """llama-server's last lines are told; the backoff makes this take about 15 s."""
    plan = tmp_path / "plan"
    plan.write_text("--fake-say first\n--fake-exit-after 0 --fake-say 'my last words'\n")
    arguments = ["--exit-on-failed", "--", "--fake-plan", str(plan)]
    with serving(tmp_path, "--llama-server", FAKE, *arguments) as served:
        served.read_notice()
        os.kill(served.ready["llama_server_pid"], signal.SIGKILL)
        # It closes its standard error last.
        told = served.told()
        assert served.wait_gone() == 3
    assert "llama-proxy: error: llama-server crashed 6 times in 60 s" in told
    assert "my last words" in told
    assert "Traceback" not in told
