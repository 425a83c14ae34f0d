"""The embedded runtime: llama-server's command line, its life and its ends, in real processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from proxy.runtime import embedded
from proxy.runtime.embedded_flags import FLAGS, Flag

REPOSITORY = Path(__file__).parent.parent.parent
COMMAND = (sys.executable, "-m", "proxy.runtime.embedded")


# llama-server closes a connection after 100 requests, which a kept one would meet at random.
ONE_REQUEST_EACH = httpx.Limits(max_keepalive_connections=0)


class Engine:
    """One running embedded server and a client of it."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client, log: Path) -> None:
        self.process = process
        self.client = client
        self.log = log

    def wait_healthy(self, path: str) -> None:
        """Return as soon as the server is ready; fail after 30 s or when it ends."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            # httpx leaks the socket of a connection that is refused, so look first.
            with socket.socket(socket.AF_UNIX) as probe:
                listening = probe.connect_ex(path) == 0
            if listening and self.client.get("/health").status_code == 200:
                return
            os.sched_yield()
        pytest.fail("the server did not become ready")


@contextmanager
def started(*arguments: str, key: str | None = None) -> Iterator[Engine]:
    """Run the embedded server on a unix socket; nothing of it is left afterwards."""
    environ = {name: value for name, value in os.environ.items() if name != "LLAMA_API_KEY"}
    if key is not None:
        environ["LLAMA_API_KEY"] = key
    # A short path: that of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory() as folder:
        path, log = str(Path(folder, "engine.sock")), Path(folder, "log")
        with log.open("wb") as stderr:
            process = subprocess.Popen(
                [*COMMAND, "--host", path, *arguments],
                cwd=REPOSITORY,
                env=environ,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        transport = httpx.HTTPTransport(uds=path, limits=ONE_REQUEST_EACH)
        try:
            with (
                process,
                httpx.Client(
                    transport=transport, base_url="http://localhost", timeout=30
                ) as client,
            ):
                try:
                    engine = Engine(process, client, log)
                    engine.wait_healthy(path)
                    yield engine
                finally:
                    process.kill()
        finally:
            assert process.returncode is not None


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the embedded server until it ends by itself."""
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    """Give a server that runs without options."""
    with started() as found:
        yield found


def test_root_of_the_default_launch_is_the_web_page(engine: Engine) -> None:
    """`GET /` answers llama.cpp's web page."""
    reply = engine.client.get("/")

    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(("path", "status"), [("/slots", 200), ("/props", 200), ("/metrics", 501)])
def test_endpoint_of_the_default_launch_is_as_llama_servers(
    engine: Engine, path: str, status: int
) -> None:
    """Slots and properties are served by default, metrics are not."""
    assert engine.client.get(path).status_code == status


def test_model_without_a_name_is_called_demo(engine: Engine) -> None:
    """The packaged model has a name in the API, not its path."""
    assert engine.client.get("/v1/models").json()["data"][0]["id"] == "demo"


def test_log_of_the_server_is_on_standard_error(engine: Engine) -> None:
    """What llama.cpp logs comes on standard error, with the address."""
    assert "listening on" in engine.log.read_text()


def test_arguments_reach_llama_cpp() -> None:
    """Slots, context, metrics and name are as the command line says."""
    with started(
        "-np", "2", "-c", "16384", "--metrics", "--alias", "small", "--temp", "0.5"
    ) as engine:
        props = engine.client.get("/props").json()

        assert props["total_slots"] == 2
        assert props["default_generation_settings"]["n_ctx"] == 8192
        assert props["default_generation_settings"]["params"]["temperature"] == 0.5
        assert props["model_alias"] == "small"
        assert engine.client.get("/metrics").status_code == 200


def test_request_without_the_key_of_the_environment_gets_401() -> None:
    """The key comes by environment, is needed, and stands neither in argv nor in the log."""
    with started(key="secret-of-this-launch") as engine:
        refused = engine.client.get("/v1/models")
        headers = {"Authorization": "Bearer secret-of-this-launch"}
        accepted = engine.client.get("/v1/models", headers=headers)

        assert (refused.status_code, accepted.status_code) == (401, 200)
        assert "secret-of-this-launch" not in str(engine.process.args)
        assert "secret-of-this-launch" not in engine.log.read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_streaming_ends_the_server_with_0(number: signal.Signals) -> None:
    """A stop signal ends the server in order, also while it streams."""
    body = {"prompt": "\n", "n_predict": 30_000, "ignore_eos": True, "stream": True}
    with started() as engine, engine.client.stream("POST", "/completion", json=body) as reply:
        next(reply.iter_bytes())

        engine.process.send_signal(number)

        assert engine.process.wait(10) == 0


def test_second_signal_ends_the_server_at_once() -> None:
    """Two stop signals leave no time: the server ends, by the second one or just before it."""
    with started() as engine:
        engine.process.terminate()
        engine.process.terminate()

        assert engine.process.wait(10) in {0, -signal.SIGTERM}


def test_broken_model_ends_with_1_and_the_reason(tmp_path: Path) -> None:
    """A file that is no model ends the process with llama.cpp's reason and without a traceback."""
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF" + b"\xff" * 100)

    ended = run("-m", str(broken), "--port", "0")

    assert ended.returncode == embedded.EXIT_NOT_SERVING
    assert "error loading model" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_missing_model_ends_with_1_and_the_reason(tmp_path: Path) -> None:
    """A model that is not there ends the process, and the log names it."""
    ended = run("-m", str(tmp_path / "missing.gguf"), "--port", "0")

    assert ended.returncode == embedded.EXIT_NOT_SERVING
    assert "missing.gguf" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--no-such-flag"],
            "error: the embedded runtime does not know the argument '--no-such-flag'",
        ),
        (["-c", "many"], "error: the value 'many' does not fit the argument -c: expected N"),
        (["-np", "0"], "error: the value '0' does not fit the argument -np: expected N"),
        (
            ["-fa", "maybe"],
            "error: the value 'maybe' does not fit the argument -fa: expected on|off|auto",
        ),
        (["--alias"], "error: the argument --alias needs a value: NAME,..."),
    ],
)
def test_argument_that_does_not_fit_ends_with_2_and_a_sentence(
    arguments: list[str], message: str
) -> None:
    """A flag that is unknown, or whose value is wrong or missing, is named in one line."""
    ended = run(*arguments)

    assert ended.returncode == embedded.EXIT_USAGE
    assert ended.stderr.startswith(message)
    assert ended.stderr.count("\n") == 1


def test_help_lists_every_flag() -> None:
    """`--help` prints each flag of the table and ends with 0."""
    ended = run("--help")

    assert ended.returncode == 0
    assert all(name in ended.stdout for flag in FLAGS for name in flag.names)


def test_flag_names_are_in_the_table_once() -> None:
    """No two flags share a name."""
    names = [name for flag in FLAGS for name in flag.names]

    assert len(names) == len(set(names))


# A value for each flag that takes one, where its placeholder alone does not tell.
VALUES = {
    "N": "1", "X": "0.5", "X,...": "1,2", "MIB,...": "512", "N|auto|all": "all",
    "JSON": '{"a": true}',
}  # fmt: skip


@pytest.mark.parametrize("flag", FLAGS, ids=lambda flag: flag.names[0])
def test_flag_of_the_table_is_taken_by_the_binding(flag: Flag, tmp_path: Path) -> None:
    """Every flag names a parameter that `xllamacpp` has, and a value that it takes."""
    file = tmp_path / "file"
    file.write_text("text")
    value = VALUES.get(flag.placeholder, flag.placeholder.split("|")[0])
    arguments = [flag.names[0]]
    if flag.placeholder:
        arguments.append(str(file) if flag.placeholder == "FILE" else value)

    embedded.build_params(arguments, {})
