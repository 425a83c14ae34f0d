"""The options of the fast path, through the real command."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.cli.command import argv_of, environment, run_command
from tests.cli.test_serve import FAKE, Served, ask
from tests.http1.guarded import TLS, tls_client
from tests.web.wire import Answer, Sent, ask_port
from tests.web.wire import ask as ask_over

HELLO = {"messages": [{"role": "user", "content": "x"}]}


@contextmanager
def serving(folder: Path, *arguments: str, **environ: str) -> Iterator[Served]:
    """Run the command on any free port until it is told to stop, once it is ready."""
    ready_file, temporary = folder / "ready.json", folder / "tmp"
    temporary.mkdir()
    options = ["--port", "0", "--llama-server", FAKE, "--ready-file", str(ready_file), *arguments]
    with subprocess.Popen(
        argv_of("serve", *options),
        env=environment({"TMPDIR": str(temporary), **environ}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            served = Served(process, ready_file, temporary)
            served.read_notice()
            yield served
            served.send(signal.SIGTERM)
            assert served.wait_gone() == 0
        finally:
            process.kill()


def negotiated(served: Served) -> dict[str, Any]:
    """Return what a client is told of the fast path."""
    status, body = ask(served.ready["url"], "/api/inference/stream-url")
    assert status == 200
    found: dict[str, Any] = json.loads(body)
    return found


def streamed(url: str, token: str) -> Answer:
    """Use a token."""
    address = urlsplit(url)
    target = address._replace(scheme="", netloc="").geturl()
    assert address.port is not None
    return trio.run(ask_port, address.port, Sent.json(target, HELLO, f"X-Stream-Token: {token}"))


def free_port() -> int:
    """Return a port that was free just now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def test_fast_path_of_the_command_streams_with_a_token(tmp_path: Path) -> None:
    """The ready file has its URL, which is the one that clients are given."""
    with serving(tmp_path, "--fast-port", "0") as served:
        found = negotiated(served)
        fast_url = served.ready["fast_url"]
        assert (found["stream_url"], found["port"]) == (
            f"{fast_url}/stream",
            urlsplit(fast_url).port,
        )
        assert streamed(found["stream_url"], found["token"]).status == 200
        assert streamed(found["stream_url"], found["token"]).status == 401


@pytest.mark.parametrize("by", ["flag", "variable", "file"])
def test_fast_port_is_the_one_that_is_asked_for(by: str, tmp_path: Path) -> None:
    """From any of the sources."""
    port = str(free_port())
    file = tmp_path / "options.toml"
    file.write_text(f"fast-port = {port}\n")
    arguments, environ = {
        "flag": (("--fast-port", port), {}),
        "variable": ((), {"LLAMA_PROXY_FAST_PORT": port}),
        "file": (("--config", str(file)), {}),
    }[by]
    with serving(tmp_path, *arguments, **environ) as served:
        assert served.ready["fast_url"] == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "environ", [{}, {"LLAMA_PROXY_NO_FAST_PATH": "1"}], ids=["flag", "variable"]
)
def test_no_fast_path_is_no_second_listener(environ: dict[str, str], tmp_path: Path) -> None:
    """Clients are told to stay on the main port, and there is nothing to make tokens for."""
    arguments = () if environ else ("--no-fast-path",)
    with serving(tmp_path, *arguments, **environ) as served:
        assert served.ready["fast_url"] is None
        assert negotiated(served) == {"supported": False}
        status, body = ask(served.ready["url"], "/v1/stream-tokens", {})
        assert (status, json.loads(body)["error"]["type"]) == (404, "not_found_error")


def test_fast_public_url_is_given_to_every_client(tmp_path: Path) -> None:
    """What is before us leads there; the listener itself is where it was."""
    url = "https://llm.example/fast/"
    with serving(tmp_path, "--fast-port", "0", "--fast-public-url", url) as served:
        found = negotiated(served)
        assert found["stream_url"] == "https://llm.example/fast/stream"
        fast_url = served.ready["fast_url"]
        assert fast_url.startswith("http://127.0.0.1:")
        assert streamed(f"{fast_url}/stream", found["token"]).status == 200


def test_token_times_are_the_operators(tmp_path: Path) -> None:
    """How long a token waits, and how long its stream may live, where nobody says."""
    times = ("--token-ttl-s", "77", "--token-lease-s", "88")
    with serving(tmp_path, "--fast-port", "0", *times) as served:
        assert negotiated(served)["ttl_seconds"] == 77
        status, body = ask(served.ready["url"], "/v1/stream-tokens", {})
        assert (status, json.loads(body)["lease_s"]) == (201, 88)


def test_lease_of_the_operators_ends_a_stream(tmp_path: Path) -> None:
    """It is told why, and llama-server is free again."""
    with serving(tmp_path, "--fast-port", "0", "--token-lease-s", "1") as served:
        found = negotiated(served)
        url = f"{found['stream_url']}?first_s=600"
        answer = streamed(url, found["token"])
        assert (answer.status, answer.error["type"]) == (401, "authentication_error")
        assert "lease" in str(answer.error["message"])
        _, state = ask(served.ready["url"], "/slots")
        assert b'"is_processing": true' not in state


def test_fast_path_has_the_certificate_of_the_main_port(tmp_path: Path) -> None:
    """A page that came by https streams by https."""
    files = ("--certfile", str(TLS / "one.pem"), "--keyfile", str(TLS / "one.key"))
    with serving(tmp_path, "--fast-port", "0", *files) as served:
        assert served.ready["fast_url"].startswith("https://127.0.0.1:")
        port = urlsplit(served.ready["fast_url"]).port
        assert trio.run(status_over_tls, port) == 401


async def status_over_tls(port: int) -> int:
    """Present a token that there is not."""
    sent = Sent.json("/stream", HELLO, "X-Stream-Token: made-up")
    stream = await tls_client(port)
    return (await ask_over(stream, sent)).status  # type: ignore[arg-type]


# --- what cannot be ---


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--no-fast-path", "--fast-port", "1"), "--no-fast-path cannot be used with --fast-port"),
        (
            ("--no-fast-path", "--fast-public-url", "https://x.example"),
            "--no-fast-path cannot be used with --fast-public-url",
        ),
        (("--fast-port", "65536"), "--fast-port"),
        (("--fast-public-url", "ftp://x.example"), "--fast-public-url"),
        (("--fast-public-url", "https://x.example?a=b"), "--fast-public-url"),
        (("--token-ttl-s", "0"), "--token-ttl-s"),
        (("--token-lease-s", "-1"), "--token-lease-s"),
        (("--host", "0.0.0.0"), "--host 0.0.0.0 is not a loopback address"),
    ],
)
def test_options_that_cannot_be_used_are_told_with_status_2(
    arguments: tuple[str, ...], told: str
) -> None:
    """Nothing is launched."""
    done = run_command("serve", "--port", "0", *arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("taken_by", ["another program", "the main port"])
def test_fast_port_in_use_is_told_with_its_option(taken_by: str) -> None:
    """Status 2, before anything is launched."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        if taken_by == "the main port":
            taken.close()
        main = port if taken_by == "the main port" else "0"
        done = run_command("serve", "--port", main, "--fast-port", port, "--llama-server", FAKE)
    assert done.returncode == 2
    assert f"port {port}" in done.stderr
    assert "--fast-port" in done.stderr
    assert "Traceback" not in done.stderr
