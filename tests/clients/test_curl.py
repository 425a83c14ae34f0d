"""curl against the proxy: the commands that the README shows, as a person types them."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import trio

import proxy
from tests.clients.conftest import Causes
from tests.conftest import Running
from tests.left_behind import Leftovers
from tests.promises.observe import until, wait_busy

PATIENCE_S = 20
CHAT = json.dumps({"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 24})
STREAM = json.dumps({**json.loads(CHAT), "stream": True})
ENDLESS = json.dumps({**json.loads(STREAM), "max_tokens": 30_000, "ignore_eos": True})
JSON = ("-H", "Content-Type: application/json")


def argv_of(*arguments: str) -> list[str]:
    """Return curl's argv; nobody's configuration file or proxy settings have a say."""
    found = shutil.which("curl")
    assert found is not None, "curl is not on this machine: install it (apt-get install curl)"
    return [found, "--disable", "--noproxy", "*", "--max-time", str(PATIENCE_S), *arguments]


def curl(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    argv = argv_of("--silent", "--show-error", *arguments)
    return subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_chat_is_answered_on_one_line_of_json(proxy_url: str) -> None:
    """`curl URL -d BODY` is enough: without a content type too."""
    for header in ((), JSON):
        found = curl(f"{proxy_url}/v1/chat/completions", *header, "-d", CHAT)
        assert (found.returncode, found.stderr) == (0, "")
        assert json.loads(found.stdout)["choices"][0]["message"]["content"]


def test_stream_is_events_up_to_done(proxy_url: str) -> None:
    """`-N` shows each event; the last one says that it is complete."""
    found = curl("-N", f"{proxy_url}/v1/chat/completions", *JSON, "-d", STREAM)
    events = found.stdout.split("\n\n")
    assert found.returncode == 0
    assert events[-2:] == ["data: [DONE]", ""]
    assert all(event.startswith("data: {") for event in events[:-2])
    assert len(events) > 3


def test_headers_are_shown_as_llama_server_spells_them(proxy_url: str) -> None:
    """`-i` shows a status line with its reason and headers in their usual spelling."""
    found = curl("-i", f"{proxy_url}/v1/models")
    head, _, body = found.stdout.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 OK\n")
    for name in ("Server: ", "Content-Type: ", "Content-Length: ", "X-Request-Id: ", "Date: "):
        assert head.count(f"\n{name}") == 1
    assert json.loads(body)["object"] == "list"


def test_head_and_health_need_no_more_than_a_url(proxy_url: str) -> None:
    """`-I` gets a head alone, `/health` the shape that scripts look for."""
    assert curl("-I", f"{proxy_url}/props").stdout.startswith("HTTP/1.1 200 OK")
    assert curl(f"{proxy_url}/health").stdout == '{"status":"ok"}'


def test_large_upload_passes_curls_expectation(proxy_url: str, tmp_path: Path) -> None:
    """Before a large body curl asks with `Expect: 100-continue`; it does not wait in vain."""
    path = tmp_path / "body.json"
    path.write_text(json.dumps({"content": "word " * 400_000}))
    found = curl("-v", f"{proxy_url}/tokenize", *JSON, "-d", f"@{path}")
    assert "< HTTP/1.1 100" in found.stderr
    assert "Done waiting for 100-continue" not in found.stderr
    assert len(json.loads(found.stdout)["tokens"]) > 400_000


def test_broken_body_fails_with_a_message(proxy_url: str) -> None:
    """`--fail-with-body` exits with 22 and prints what is wrong."""
    found = curl("--fail-with-body", f"{proxy_url}/v1/chat/completions", *JSON, "-d", '{"a":')
    error = json.loads(found.stdout)["error"]
    assert found.returncode == 22
    assert (error["code"], error["type"]) == (400, "invalid_request_error")
    assert error["message"] == "The body is not valid JSON."


@pytest.mark.parametrize(
    ("option", "status"),
    [
        ((), 401),
        (("-H", "Authorization: Bearer wrong"), 401),
        (("-H", "Authorization: Bearer right"), 200),
        (("-H", "x-api-key: right"), 200),
        (("--oauth2-bearer", "right"), 200),
    ],
)
async def test_key_decides(option: tuple[str, ...], status: int, leftovers: Leftovers) -> None:
    """Without the right key there is a 401 in our shape, with it the answer."""
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, api_keys=[proxy.ApiKey.from_text("right")]) as server,
    ):
        shown = ("-w", "\n%{http_code}", f"{server.url}/v1/models", *option)
        found = await trio.to_thread.run_sync(lambda: curl(*shown))
    body, _, code = found.stdout.rpartition("\n")
    assert int(code) == status
    assert ("error" in json.loads(body)) == (status == 401)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
async def test_interrupted_stream_frees_the_slot(
    running: Running, causes: Causes, number: signal.Signals
) -> None:
    """Control-C in the middle of an answer, and harder ends, leave no slot busy."""
    url = f"{running.url}/v1/chat/completions"
    with subprocess.Popen(
        argv_of("--silent", "-N", url, *JSON, "-d", ENDLESS), stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            with trio.fail_after(PATIENCE_S):
                await trio.lowlevel.wait_readable(process.stdout)
            await wait_busy(running.engine, 1)
            process.send_signal(number)
            await wait_busy(running.engine, 0)
        finally:
            process.kill()
    assert process.returncode == -number
    await until(lambda: running.server.in_flight == 0 and running.server.connections == 0)
    assert causes() == [proxy.EndCause.CLIENT_DISCONNECTED]


async def test_closed_pipe_frees_the_slot(running: Running, causes: Causes) -> None:
    """`curl ... | head -1`: curl fails to write, leaves, and the slot is idle."""
    url = f"{running.url}/v1/chat/completions"
    with subprocess.Popen(
        argv_of("--silent", "-N", url, *JSON, "-d", ENDLESS), stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        with trio.fail_after(PATIENCE_S):
            await trio.lowlevel.wait_readable(process.stdout)
        await wait_busy(running.engine, 1)
        process.stdout.close()
        await wait_busy(running.engine, 0)
        assert process.wait(PATIENCE_S) == 23
    await until(lambda: running.server.in_flight == 0)
    assert causes() == [proxy.EndCause.CLIENT_DISCONNECTED]
