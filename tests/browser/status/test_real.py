"""The page before the real proxy and a real engine: what it shows is what happens.

The proxy is the command, in a process of its own, before an engine with one slot: so a second
request waits for the first.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest
import trio

from tests.browser.status.view import StatusPage, card
from tests.cli.command import argv_of, environment
from tests.fakes.status_site import StatusSite
from tests.promises.test_prefill import SMALL_BATCHES

PATIENCE_S = 20.0
# Some seconds of prefill in small batches.
LONG = "The proxy waits for the engine. " * 2500
SHORT = "Hello!"
ENDLESS = 30_000


class Client:
    """Somebody who reads a stream as fast as it comes.

    Attributes:
        received: What has come.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.received = b""
        self._sock = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S)
        self._sock.sendall(request)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self.read_to_end()
        self._sock.close()

    def read_to_end(self) -> bytes:
        """Wait until the proxy closes; return all that has come."""
        self._reader.join(PATIENCE_S)
        assert not self._reader.is_alive()
        return self.received

    def _read(self) -> None:
        with suppress(OSError):
            while data := self._sock.recv(65536):
                self.received += data


class RealProxy:
    """`llama-proxy serve`, which can be stopped and started again on the same port.

    Args:
        folder: For what it writes.

    Attributes:
        url: The page's URL.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self._port}/status"

    def start(self) -> None:
        """Start it; it serves when this returns."""
        ready = self._folder / "ready.json"
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                argv_of(
                    *("serve", "--port", str(self._port), "--ready-file", str(ready)),
                    *("--drain-s", "1", "--", "--parallel", "1", *SMALL_BATCHES),
                ),
                env=environment(),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        trio.run(self._wait, ready.exists)
        self._told = json.loads(ready.read_text())
        self._port = int(self._told["url"].rpartition(":")[2])

    def stop(self) -> None:
        """Stop it in order."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE_S) == 0
        (self._folder / "ready.json").unlink(missing_ok=True)

    def kill(self) -> None:
        """End it, whatever it does; nothing if it has ended."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def kill_engine(self) -> None:
        """End llama-server as the kernel does when memory is short."""
        os.kill(json.loads((self._folder / "ready.json").read_text())["llama_server_pid"], 9)

    def ask(self, name: str, prompt: str = SHORT, tokens: int = ENDLESS) -> Client:
        """Ask for a stream of this request id; whoever leaves the block leaves the proxy."""
        body = json.dumps(
            {
                "messages": [{"role": "user", "content": prompt}],
                "stream": True,
                "ignore_eos": True,
                "max_tokens": tokens,
                "temperature": 0.5,
            }
        )
        head = (
            "POST /v1/chat/completions HTTP/1.1",
            "Host: localhost",
            f"X-Request-Id: {name}",
            f"Content-Length: {len(body)}",
            "Connection: close",
        )
        return Client(self._port, "\r\n".join((*head, "", body)).encode())

    def wait_slots_idle(self) -> None:
        """Wait until llama-server says that none of its slots works."""
        trio.run(self._wait, lambda: not any(each["is_processing"] for each in self._slots()))

    def _slots(self) -> list[dict[str, Any]]:
        with socket.create_connection(("127.0.0.1", self._port)) as sock:
            sock.sendall(b"GET /slots HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            received = b""
            while data := sock.recv(65536):
                received += data
        head, _, body = received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        found: list[dict[str, Any]] = json.loads(body[body.index(b"[") : body.rindex(b"]") + 1])
        return found

    async def _wait(self, holds: Any) -> None:
        with trio.fail_after(PATIENCE_S):
            while not holds():
                assert self._process is not None
                assert self._process.poll() is None
                await trio.sleep(0.02)


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProxy]:
    """The proxy, for all tests of this module."""
    folder = tmp_path_factory.mktemp("real")
    found = RealProxy(folder)
    try:
        yield found
        found.stop()
        assert "Traceback" not in (folder / "log").read_text()
    finally:
        found.kill()


@pytest.fixture
def site(real: RealProxy) -> StatusSite:
    """Where the page is loaded from."""
    return cast(StatusSite, SimpleNamespace(url=real.url))


def record(page: StatusPage, name: str) -> None:
    """Keep what the badge of a card, and its bar of prefill, say from now on: once in a row."""
    page.run(
        """
        window.seen = [];
        window.prefill = [];
        const keep = (list, node) => {
            if (node && node.textContent !== list.at(-1)) list.push(node.textContent);
        };
        const look = () => {
            keep(window.seen, document.querySelector(BADGE));
            keep(window.prefill, document.querySelectorAll(BAR)[1]);
        };
        new MutationObserver(look).observe(document.body,
            { subtree: true, childList: true, characterData: true });
        """.replace("BADGE", json.dumps(card(name, ".badge"))).replace(
            "BAR", json.dumps(card(name, ".leg-value"))
        )
    )


def cancel(page: StatusPage, name: str) -> None:
    """Cancel by the card's button, and say yes."""
    page.click(card(name, ".cancel"))
    page.wait('document.querySelector("#ask").open')
    page.click("#ask-yes")


def test_card_goes_through_queue_prefill_decode_and_end(page: StatusPage, real: RealProxy) -> None:
    """In this order, with its place, its progress, its text and its figures; then its history."""
    page.open()
    record(page, "second")
    with real.ask("first"):
        page.wait_text(card("first", ".badge"), "Decode")
        with real.ask("second", LONG, tokens=1000) as client:
            page.wait_text(card("second", ".badge"), "Queued")
            page.wait(
                "document.querySelector(arguments[0]).textContent === 'place 1'",
                card("second", ".leg-value"),
            )
            cancel(page, "first")
            page.wait_text(card("first", ".badge"), "Cancelled by admin")
            assert b"data: [DONE]" in client.read_to_end()
    page.wait_text(card("second", ".badge"), "Finished")
    seen = [word for word in page.run("return window.seen;") if word != "Connecting"]
    assert seen == ["Queued", "Prefill", "Decode", "Finished"]
    assert any(" of " in each for each in page.run("return window.prefill;"))
    assert page.facts(card("second", ".stats"))["Tokens"] == "1,000"
    assert len(page.text(card("second", ".stream.text"))) > 300
    page.wait_count("#history tr", 2)


def test_cancelling_from_the_page_frees_the_slot(page: StatusPage, real: RealProxy) -> None:
    """llama-server itself says so, and the client is told why."""
    page.open()
    with real.ask("mine") as client:
        page.wait_text(card("mine", ".badge"), "Decode")
        page.wait("document.querySelector(arguments[0]).textContent > ''", card("mine", ".text"))
        cancel(page, "mine")
        page.wait_text(card("mine", ".badge"), "Cancelled by admin")
        real.wait_slots_idle()
        assert b"administrator" in client.read_to_end()
    page.wait('document.querySelector("#figures").textContent.includes("Idle")')


def test_crash_and_restart_of_the_engine_are_shown(page: StatusPage, real: RealProxy) -> None:
    """Its end, that it loads again, and how often; the exchange ended with it."""
    page.open()
    before = page.facts("#engine-facts")
    assert page.text("#engine-state") == "ready"
    page.run(
        """
        const states = window.states = ["ready"], node = document.querySelector("#engine-state");
        new MutationObserver(() => states.push(node.textContent)).observe(node,
            { subtree: true, childList: true, characterData: true });
        """
    )
    with real.ask("doomed"):
        page.wait_text(card("doomed", ".badge"), "Decode")
        real.kill_engine()
        page.wait_text(card("doomed", ".badge"), "Upstream crashed")
        page.wait("window.states.length > 1 && window.states.at(-1) === 'ready'")
    assert page.run("return window.states;") == ["ready", "crashed", "starting", "ready"]
    after = page.facts("#engine-facts")
    assert int(after["Restarts"]) == int(before["Restarts"]) + 1
    assert "SIGKILL" in after["Last end"]
    assert after["Process"] != before["Process"]
    with real.ask("next", tokens=600):
        page.wait_text(card("next", ".badge"), "Finished")


def test_page_finds_a_restarted_proxy_again(page: StatusPage, real: RealProxy) -> None:
    """By itself; meanwhile it says that nobody is there, and then it follows again."""
    page.open()
    page.wait_text("#link-state", "Live")
    real.stop()
    page.wait("document.querySelector('#link').dataset.tone === 'bad'")
    real.start()
    page.wait_text("#link-state", "Live")
    with real.ask("again", tokens=600):
        page.wait_text(card("again", ".badge"), "Finished")
    assert page.facts("#engine-facts")["Restarts"] == "0"
