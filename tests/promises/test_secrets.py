"""P7: keys and stream tokens are in nothing that a run of the command writes or answers.

A run with everything that a secret may meet on its way: at the lowest log level, in both formats,
with right and wrong credentials in right and wrong places, requests of every kind and stage, and a
llama-server that tells its own key. Then all of it is searched for every secret, as it is and in
the forms that code gives it.
"""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
from base64 import b64encode, urlsafe_b64encode
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import trio

from tests.cli.command import PATIENCE_S, argv_of, environment
from tests.fakes.engines import FAKE, wait_file
from tests.promises.wire import Wire, wire

USER, ADMIN, WRONG = "sk-user-7d0f1b2c9a", "sk-admin-55e1f0a7c3", "sk-nobody-1c2d3e4f5a"
HELLO = {"messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
ENDLESS = {**HELLO, "max_tokens": 30000, "ignore_eos": True, "stream": True}
AS_USER, AS_ADMIN = f"Authorization: Bearer {USER}", f"x-api-key: {ADMIN}"
CLOSE = "Connection: close"
BAD_TOKEN = "made-up-token-0123456789"


@dataclass(slots=True)
class Run:
    """A run of the command, and all that came of it.

    Attributes:
        port: The main listener's.
        fast_port: The fast listener's.
        secrets: What nothing may tell.
        written: What was written or answered, by what it is.
    """

    port: int
    fast_port: int
    secrets: dict[str, str]
    written: dict[str, bytes] = field(default_factory=dict)

    @asynccontextmanager
    async def client(self, port: int) -> AsyncIterator[Wire]:
        """Connect; what is received is part of what was answered."""
        async with wire(port) as found:
            yield found
            self.written[f"answer {len(self.written)}"] = found.received

    async def ask(self, port: int, request: str, *fields: str, body: object = None) -> bytes:
        """Send a request; returns what is answered."""
        method, path = request.split(" ")
        async with self.client(port) as client:
            if method == "POST":
                await client.post(path, body, *fields, CLOSE)
            else:
                lines = (f"{request} HTTP/1.1", "Host: localhost", *fields, CLOSE, "", "")
                await client.send("\r\n".join(lines).encode("latin-1"))
            return await client.read_to_end()

    async def token(self, **bounds: object) -> dict[str, Any]:
        """Make a token: the one answer that may have a secret in it."""
        async with wire(self.port) as client:
            await client.post("/v1/stream-tokens", bounds, AS_USER, CLOSE)
            received = await client.read_to_end()
        return self._keep(json.loads(received.partition(b"\r\n\r\n")[2]))

    async def negotiated(self) -> dict[str, Any]:
        """Be given a token with the URL that it is for."""
        async with wire(self.port) as client:
            await client.get("/api/inference/stream-url", AS_USER, CLOSE)
            received = await client.read_to_end()
        return self._keep(json.loads(received.partition(b"\r\n\r\n")[2]))

    def _keep(self, found: dict[str, Any]) -> dict[str, Any]:
        self.secrets[f"token {len(self.secrets)}"] = found["token"]
        return found


def forms_of(secret: str) -> Iterator[bytes]:
    """Yield the forms in which a secret could stand somewhere."""
    raw = secret.encode()
    for each in (raw, hashlib.sha256(raw).digest()):
        yield each
        yield each.hex().encode()
        yield each.hex().upper().encode()
        # Without the padding, and without the last character, which it can change.
        yield b64encode(each).rstrip(b"=")[:-1]
        yield urlsafe_b64encode(each).rstrip(b"=")[:-1]
    yield quote(secret, safe="").encode()
    yield secret[:-8].encode()


def token_field(token: dict[str, Any]) -> str:
    """Return the header line with a token."""
    return f"X-Stream-Token: {token['token']}"


async def play(run: Run) -> None:
    """Do all that a secret may meet."""
    await ask_rightly(run)
    await ask_wrongly(run)
    await stream_beside_the_operator(run)


async def ask_rightly(run: Run) -> None:
    """Use keys and tokens for what they are for."""
    for port, field_ in ((run.port, AS_USER), (run.fast_port, AS_ADMIN)):
        answer = await run.ask(port, "POST /v1/chat/completions", field_, body=HELLO)
        assert answer.startswith(b"HTTP/1.1 200")
    token = await run.negotiated()
    for status in (b"200", b"401"):
        answer = await run.ask(run.fast_port, "POST /stream", token_field(token), body=HELLO)
        assert answer.startswith(b"HTTP/1.1 " + status)
    unused = await run.token(max_tokens=2, lease_s=30)
    assert b"204" in await run.ask(run.port, f"DELETE /v1/stream-tokens/{unused['id']}", AS_USER)
    await run.ask(run.fast_port, "POST /stream", token_field(unused), body=HELLO)


async def ask_wrongly(run: Run) -> None:
    """Present right ones where they do not belong, and wrong ones where right ones would."""
    token = await run.token(origin="https://page.example", paths=["/completion"])
    secret = token["token"]
    for port in (run.port, run.fast_port):
        for field_ in (
            f"Authorization: Bearer {WRONG}",
            f"Authorization: Basic {USER}",
            f"Authorization: {ADMIN}",
            f"Authorization: Bearer {secret}",
            f"x-api-key: {secret}",
            f"X-Stream-Token: {USER}",
            f"X-Stream-Token: {BAD_TOKEN}",
            f"X-Stream-Token: {secret}",
            f"X-Stream-Token : {secret}",
            f"X-Stream-Token: {secret}\x00",
            f"Authorization\x01: Bearer {USER}",
            f"Cookie: {USER}={secret}",
        ):
            for path in ("/stream", "/v1/models", "/proxy/logs"):
                await run.ask(port, f"POST {path}", field_, body=HELLO)
        await run.ask(port, "GET /elsewhere", AS_USER, token_field(token))
        await run.ask(port, "POST /stream", AS_USER, body=b"{")
        await run.ask(port, "POST /stream", AS_USER, "Origin: https://evil.example", body=HELLO)
        async with run.client(port) as client:
            await client.send(f"NONSENSE {secret} {USER}\r\n{AS_ADMIN}\r\n\r\n".encode())
            await client.read_to_end()
    await run.ask(run.port, f"DELETE /v1/stream-tokens/{secret}", AS_USER)
    await run.ask(run.port, "POST /v1/stream-tokens", AS_USER, body={"origin": secret})


async def stream_beside_the_operator(run: Run) -> None:
    """Look at everything while streams of tokens and keys run, end them in each way."""
    expiring, revoked = await run.token(lease_s=0.5), await run.token()
    async with (
        run.client(run.fast_port) as one,
        run.client(run.fast_port) as other,
        run.client(run.port) as third,
        trio.open_nursery() as nursery,
    ):
        query = "?events=100000&pace_s=0.01"
        mine = (AS_USER, "X-Request-Id: mine")
        await one.post(f"/stream{query}", ENDLESS, token_field(expiring), CLOSE)
        await other.post(f"/stream{query}", ENDLESS, token_field(revoked), CLOSE)
        await third.post(f"/v1/chat/completions{query}", ENDLESS, *mine, CLOSE)
        for client in (one, other, third):
            await client.read_until(b"data: ")
            nursery.start_soon(client.read_to_end)
        await look_at_everything(run)
        await run.ask(run.port, f"DELETE /v1/stream-tokens/{revoked['id']}", AS_ADMIN)
        await run.ask(run.port, "DELETE /proxy/exchanges/mine", AS_ADMIN)
    for client, words in ((one, b"lease"), (other, b"revoked"), (third, b"administrator")):
        assert words in client.received[-300:]


async def look_at_everything(run: Run) -> None:
    """Ask what the operator may ask."""
    for path in ("exchanges", "tasks", "logs", "metrics", "nothing"):
        for kind in ("application/json", "text/plain"):
            await run.ask(run.port, f"GET /proxy/{path}", AS_ADMIN, f"Accept: {kind}")
    async with run.client(run.port) as follower:
        await follower.get("/proxy/logs", AS_ADMIN, "Accept: text/event-stream")
        await follower.read_until(b"event: log")
    for path in ("/health", "/livez", "/readyz", "/props", "/v1/models", "/slots", "/metrics"):
        await run.ask(run.port, f"GET {path}", AS_USER)


def api_key_of(pid: int) -> str:
    """Return a llama-server's key, which it has by its environment."""
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (found,) = [each for each in variables if each.startswith(b"LLAMA_API_KEY=")]
    return found.partition(b"=")[2].decode()


def serve(folder: Path, *options: str) -> Run:
    """Run the command, play, stop it; return what came of it."""
    keys, ready_file = folder / "keys", folder / "ready.json"
    keys.write_text(f"user:{USER}\nadmin:{ADMIN}:admin\n")
    files = ("--api-key-file", str(keys), "--ready-file", str(ready_file))
    ports = ("--port", "0", "--fast-port", "0")
    argv = argv_of("serve", *ports, *files, "--log-level", "debug", *options)
    with (
        (folder / "stdout").open("wb") as stdout,
        (folder / "stderr").open("wb") as stderr,
        subprocess.Popen(argv, env=environment(), stdout=stdout, stderr=stderr) as process,
    ):
        try:
            ready = trio.run(wait_file, ready_file)
            told = json.loads(ready)
            llama_server = told["llama_server_pid"]
            run = Run(
                urlsplit(told["url"]).port or 0,
                urlsplit(told["fast_url"]).port or 0,
                {"user": USER, "admin": ADMIN, "wrong": WRONG, "bad token": BAD_TOKEN},
            )
            run.secrets["upstream"] = api_key_of(llama_server)
            trio.run(play, run)
            run.written["ready file"] = ready.encode()
            for name, pid in (("llama-proxy", process.pid), ("llama-server", llama_server)):
                run.written[f"{name}'s argv"] = Path(f"/proc/{pid}/cmdline").read_bytes()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE_S) == 0
        finally:
            process.kill()
    for name in ("stdout", "stderr"):
        run.written[name] = (folder / name).read_bytes()
    return run


RUNS = {
    "text, a llama-server that tells its key": (
        *("--log-format", "text", "--llama-server", str(FAKE)),
        *("--", "--fake-tell-key"),
    ),
    "json, the embedded runtime": ("--log-format", "json", "--llama-server", "embedded"),
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_no_secret_is_in_anything_that_a_run_writes(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    """Neither as it is, nor cut, encoded or hashed."""
    run = serve(tmp_path, *options)
    assert len(run.secrets) == 5 + 5
    found = [
        (what, name, form)
        for what, text in run.written.items()
        for name, secret in run.secrets.items()
        for form in forms_of(secret)
        if form in text
    ]
    assert found == []
    # It was looked where there is something.
    log = run.written["stderr"]
    for told in (b"a stream token was refused: used", b"wrong_origin", b"token_expired", b"debug"):
        assert told in log.lower()
    assert sum(b"llama_proxy_exchanges_total" in text for text in run.written.values()) >= 2
    assert any(b"exchange mine" in text for text in run.written.values())


def test_forms_are_found_where_they_are() -> None:
    """The search could find something."""
    digest = hashlib.sha256(USER.encode())
    for text in (
        f"key {USER}",
        digest.hexdigest(),
        b64encode(digest.digest()).decode(),
        urlsafe_b64encode(USER.encode()).decode(),
        USER[:-3],
    ):
        assert any(form in text.encode() for form in forms_of(USER))
