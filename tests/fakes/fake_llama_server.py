#!/usr/bin/env python3
"""A llama-server that misbehaves on command: a real program, standard library only, no model.

It takes llama-server's `--host` (an address, or a path ending in `.sock`), `--port` and `--model`,
ignores every other option of llama-server, reads its key from `LLAMA_API_KEY`, and logs in
llama-server's words to standard error. What goes wrong is chosen by `--fake-*` options (`--help`
lists them), in argv or, in the same words, in the environment variable `FAKE_LLAMA`; or by
`--fake-plan FILE`, whose n-th line holds the options of the n-th launch (the last line those of all
further ones; `FILE.launches` counts).

Routes, beside `/health`, `/props`, `/slots`, `/v1/models`:

    POST /completion, /v1/chat/completions, ...   a reply of llama-server's shape; streamed if the
                                        body says {"stream": true}. The query string says how, or
                                        a prompt that is one (`?events=3`):
        events=N        number of tokens (default 5)
        pace_s=F        time between two events (default 0)
        first_s=F       time before the head, in which the slot is busy, as in prefill (default 0)
        progress=N      number of progress events before the first token (default 0)
        padding=N       so many more bytes in each event (default 0)
        thought=TEXT    a line that the model thinks before the first token; in chats only
        timings=P,C,S   the last event tells timings: tokens of the prompt and of the answer, and
                        how many came in a second
        end=clean|no_done|cut|mid_chunk|reset|stall|hang|crash    what follows the last event
                        (default clean): clean ends as llama-server does; no_done leaves `[DONE]`
                        out; cut closes the connection without the last chunk; mid_chunk closes it
                        inside a chunk; reset sends RST; stall sends nothing more, and looks whether
                        the client is still there; hang does not even look; crash ends the process
                        with code 139
        status=N        answer N with an error in llama-server's shape instead
        name=NAME       be known by this name to the next two; it is in each token, too
    POST /fake/end?name=NAME&end=...    end the reply of this name so, wherever it is: it is known
                                        as long as it waits between two events
    GET /fake/stage?name=NAME           {"stage"}: of this name, `head`, `progress` or `tokens` is
                                        what is to be sent next; null before
    ANY /fake/echo      what has arrived, as JSON: method, target, headers (pairs), body
    GET /fake/bytes?n=N&chunk=N&length=1    n bytes, chunked, or with Content-Length if length=1
    GET /fake/state     {"pid", "busy", "disconnects", "requests": [[method, target], ...]}
    POST /fake/crash?code=N     exit at once with N;  ?signal=N: by that signal
    POST /fake/hang             answer nothing from now on, `/health` neither
"""

# A program with threads, no part of any Trio run: it sleeps like any other.
# ruff: noqa: TID251

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import shlex
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from urllib.parse import parse_qs, urlsplit

# Longer than any test.
STALL_S = 3600.0
# How soon a reply with a name is ended when somebody asks for it.
LOOK_AGAIN_S = 0.005

GENERATION_ROUTES = (
    "/completion",
    "/completions",
    "/v1/completions",
    "/chat/completions",
    "/v1/chat/completions",
    "/v1/responses",
    "/v1/messages",
    "/infill",
)


def parse_options(argv: list[str]) -> argparse.Namespace:
    """Read argv, `FAKE_LLAMA` and the plan; other options of llama-server are ignored."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("-m", "--model", default="")
    add = parser.add_argument
    add("--fake-load-s", type=float, default=0.0, help="load for so long, a log line every 50 ms")
    add(
        "--fake-load-dots",
        action="store_true",
        help="load with dots without newline, one per percent",
    )
    add("--fake-load-silent", action="store_true", help="load without a word")
    add("--fake-stall", action="store_true", help="never get loaded, and log nothing")
    add("--fake-exit-after", type=float, metavar="S", help="exit S seconds after the start")
    add("--fake-exit-ready", type=float, metavar="S", help="exit S seconds after being loaded")
    add("--fake-exit-health", type=int, metavar="N", help="exit at the N-th /health once loaded")
    add(
        "--fake-exit-code", type=int, default=1, metavar="N", help="with this code; -N: by signal N"
    )
    add("--fake-say", action="append", default=[], metavar="TEXT", help="log TEXT at the start")
    add("--fake-ignore-sigterm", action="store_true", help="do not stop on SIGTERM")
    add("--fake-stop-s", type=float, default=0.0, metavar="S", help="take S seconds to stop")
    add("--fake-stop-spew", action="store_true", help="log 1 MiB while stopping")
    add(
        "--fake-grandchild", metavar="FILE", help="fork a process that ignores signals; pid to FILE"
    )
    add("--fake-hang-after", type=int, metavar="N", help="answer /health N times, then nothing")
    add("--fake-slots", type=int, default=4, metavar="N", help="total_slots; 0: /props has none")
    add("--fake-spew", action="store_true", help="log without end")
    add("--fake-tell-key", action="store_true", help="log the key and the environment")
    add("--fake-plan", metavar="FILE", help="options of each launch, one line per launch")
    options, _ = parser.parse_known_args(argv + shlex.split(os.environ.get("FAKE_LLAMA", "")))
    if options.fake_plan:
        more = next_of_plan(Path(options.fake_plan))
        options, _ = parser.parse_known_args(argv + more)
    return options


def next_of_plan(plan: Path) -> list[str]:
    """Return the options of this launch and count it."""
    counter = plan.with_name(plan.name + ".launches")
    launch = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(launch + 1))
    lines = plan.read_text().splitlines()
    return shlex.split(lines[min(launch, len(lines) - 1)])


def log(text: str) -> None:
    """Log a line as llama-server does."""
    sys.stderr.write(f"0.00.000.000 I srv  {text}\n")
    sys.stderr.flush()


def die(code: int) -> None:
    """End the process at once: with exit code `code`, or by signal `-code`."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
        signal.pause()
    os._exit(code)


class Server(ThreadingMixIn, TCPServer):
    """The listener, and the state that its threads share."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 1024

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.api_key = os.environ.get("LLAMA_API_KEY", "")
        self.loaded = threading.Event()
        self.hanging = threading.Event()
        self.lock = threading.Lock()
        self.slots = [False] * (options.fake_slots or 4)
        # Of the replies that have a name: what they are about to send, and how they are to end.
        self.stages: dict[str, str] = {}
        self.ends: dict[str, str] = {}
        self.disconnects = 0
        self.healths = 0
        self.requests: list[tuple[str, str]] = []
        unix = options.host.endswith(".sock")
        self.address_family = socket.AF_UNIX if unix else socket.AF_INET
        address = options.host if unix else (options.host, options.port)
        try:
            super().__init__(address, Handler)
        except OSError:
            log(f"start: couldn't bind HTTP server socket, hostname: {options.host}, port: 0")
            die(1)
        where = (
            f"unix://{options.host}" if unix else "http://{}:{}".format(*self.server_address[:2])
        )
        log(f"start: server is listening on {where}")

    def handle_error(self, request: object, client_address: object) -> None:
        """Keep quiet: a client that leaves is nothing to report here."""

    @contextlib.contextmanager
    def slot(self):  # type: ignore[no-untyped-def]
        """Hold a slot; wait for one without looking at the client, as llama-server does."""
        while True:
            with self.lock:
                free = next((i for i, busy in enumerate(self.slots) if not busy), None)
                if free is not None:
                    self.slots[free] = True
                    break
            time.sleep(0.005)
        try:
            yield free
        finally:
            with self.lock:
                self.slots[free] = False


class EndAsked(Exception):
    """Somebody asked for the end of this reply."""


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *args: object) -> None:
        """Keep the log to what llama-server would say."""

    def handle_expect_100(self) -> bool:
        """Send no interim response: llama-server does not."""
        return True

    def do(self) -> None:
        """Answer a request."""
        server = self.server
        self.url = urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(self.url.query).items()}
        self.body = self.read_body()
        with server.lock:
            server.requests.append((self.command, self.path))
        if self.url.path in ("/health", "/v1/health"):
            self.count_health()
        if server.hanging.is_set():
            threading.Event().wait()
        if not server.loaded.is_set():
            self.answer_error(503, "Loading model", "unavailable_error")
        elif self.url.path in ("/health", "/v1/health"):
            self.answer({"status": "ok"})
        elif self.is_refused():
            self.answer_error(401, "Invalid API Key", "authentication_error")
        else:
            self.route()

    def __getattr__(self, name: str) -> Callable[[], None]:
        if name.startswith("do_"):  # Any method, `do_GET` or one that nobody has heard of.
            return self.do
        raise AttributeError(name)

    def route(self) -> None:
        """Answer what needs the key."""
        path, server = self.url.path, self.server
        if path in GENERATION_ROUTES:
            self.generate()
        elif path == "/props":
            found: dict[str, object] = {"model_path": server.options.model, "build_info": "fake"}
            if server.options.fake_slots:
                found["total_slots"] = server.options.fake_slots
            self.answer(found)
        elif path == "/slots":
            self.answer([{"id": i, "is_processing": b} for i, b in enumerate(server.slots)])
        elif path in ("/models", "/v1/models"):
            self.answer({"object": "list", "data": [{"id": "fake", "object": "model"}]})
        elif path.startswith("/fake/"):
            self.obey(path.removeprefix("/fake/"))
        else:
            self.answer_error(404, "File Not Found", "not_found_error")

    def obey(self, command: str) -> None:
        """Do what a `/fake/` route says."""
        server = self.server
        if command == "crash":
            number = self.query.get("signal")
            die(-int(number) if number else int(self.query.get("code", "1")))
        elif command == "hang":
            server.hanging.set()
            self.answer({})
        elif command == "echo":
            self.answer(
                {
                    "method": self.command,
                    "target": self.path,
                    "headers": self.headers.items(),
                    "body": self.body.decode("latin-1"),
                }
            )
        elif command == "end":
            server.ends[self.query["name"]] = self.query["end"]
            self.answer({})
        elif command == "stage":
            self.answer({"stage": server.stages.get(self.query["name"])})
        elif command == "bytes":
            self.send_bytes(int(self.query["n"]), int(self.query.get("chunk", "65536")))
        elif command == "state":
            with server.lock:
                self.answer(
                    {
                        "pid": os.getpid(),
                        "busy": sum(server.slots),
                        "disconnects": server.disconnects,
                        "requests": server.requests,
                    }
                )
        else:
            self.answer_error(404, "File Not Found", "not_found_error")

    def is_refused(self) -> bool:
        """Return whether the key is asked for and missing."""
        key = self.server.api_key
        given = self.headers.get("Authorization") or f"Bearer {self.headers.get('X-Api-Key')}"
        return bool(key) and given != f"Bearer {key}"

    def count_health(self) -> None:
        """Hang or die when it has been asked often enough."""
        limit = self.server.options.fake_hang_after
        with self.server.lock:
            if self.server.loaded.is_set():
                self.server.healths += 1
            if limit is not None and self.server.healths > limit:
                self.server.hanging.set()
            if self.server.healths == self.server.options.fake_exit_health:
                die(self.server.options.fake_exit_code)

    def read_body(self) -> bytes:
        """Read the request's body, in either framing."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def answer(self, value: object, status: int = 200) -> None:
        """Send JSON."""
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def answer_error(self, status: int, message: str, kind: str) -> None:
        """Send an error in llama-server's shape."""
        self.answer({"error": {"code": status, "message": message, "type": kind}}, status)

    def send_bytes(self, total: int, chunk: int) -> None:
        """Send `total` bytes."""
        length = self.query.get("length") == "1"
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        if length:
            self.send_header("Content-Length", str(total))
        else:
            self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for offset in range(0, total, chunk):
            piece = bytes((offset + i) % 251 for i in range(min(chunk, total - offset)))
            self.wfile.write(piece if length else b"%x\r\n%s\r\n" % (len(piece), piece))
        if not length:
            self.wfile.write(b"0\r\n\r\n")

    def generate(self) -> None:
        """Answer a generation route."""
        try:
            asked = json.loads(self.body or b"{}")
        except ValueError:
            self.answer_error(400, "invalid JSON", "invalid_request_error")
            return
        self.take_orders(asked)
        if "status" in self.query:
            self.answer_error(int(self.query["status"]), "as asked", "server_error")
            return
        count = int(self.query.get("events", "5"))
        with self.server.slot():
            try:
                self.generate_in_slot(count, stream=bool(asked.get("stream")))
            except EndAsked:
                self.end_stream(self.server.ends.pop(self.query["name"]))

    def take_orders(self, asked: dict[str, Any]) -> None:
        """Take what the prompt, or the last message, says as if the query string said it."""
        prompt = asked.get("prompt") or (asked.get("messages") or [{}])[-1].get("content") or ""
        if str(prompt).startswith("?"):
            self.query |= {name: values[-1] for name, values in parse_qs(prompt[1:]).items()}

    def generate_in_slot(self, count: int, *, stream: bool) -> None:
        """Answer a generation route that has its slot."""
        self.enter("head")
        if not self.idle(float(self.query.get("first_s", "0"))):
            return
        if stream:
            self.stream(count)
        elif self.idle(float(self.query.get("pace_s", "0")) * count):
            self.answer(self.whole(count))

    def enter(self, stage: str) -> None:
        """Note what this reply is about to send."""
        if "name" in self.query:
            self.server.stages[self.query["name"]] = stage

    def whole(self, count: int) -> dict[str, object]:
        """Return a reply that is not streamed."""
        text = "".join(f"t{i} " for i in range(count))
        if "chat" not in self.path:
            return {"content": text, "stop": True, "tokens_predicted": count}
        message = {"role": "assistant", "content": text}
        return {
            "object": "chat.completion",
            "model": "fake",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": count, "total_tokens": count + 1},
        }

    def stream(self, count: int) -> None:
        """Send events, then end as asked."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        padding = "x" * int(self.query.get("padding", "0"))
        steps = int(self.query.get("progress", "0"))
        progress = (self.progress(number, steps) for number in range(steps))
        word = self.query.get("name", "t")
        tokens = (self.delta(f"{word}{number} " + padding, None) for number in range(count))
        if "thought" in self.query:
            self.send_event(self.thought(self.query["thought"]))
        if self.send_paced("progress", progress) and self.send_paced("tokens", tokens):
            self.end_stream(self.query.get("end", "clean"))

    def send_paced(self, stage: str, events: Iterable[object]) -> bool:
        """Send events with the pace between them; return whether the client is still there."""
        self.enter(stage)
        pace_s = float(self.query.get("pace_s", "0"))
        for number, event in enumerate(events):
            if (number and not self.idle(pace_s)) or not self.send_event(event):
                return False
        return True

    def progress(self, processed: int, total: int) -> dict[str, object]:
        """Return a progress event's object, of the shape of the route."""
        found = {"total": total, "cache": 0, "processed": processed, "time_ms": 1}
        return {**self.delta("", None), "prompt_progress": found}

    def delta(self, text: str, finish: str | None) -> dict[str, object]:
        """Return one event's object, of the shape of the route."""
        if "chat" not in self.path:
            return {"content": text, "stop": finish is not None}
        choice = {"index": 0, "delta": {"content": text} if text else {}, "finish_reason": finish}
        return {"object": "chat.completion.chunk", "model": "fake", "choices": [choice]}

    def thought(self, text: str) -> dict[str, object]:
        """Return the object of an event that tells a thought."""
        choice = {"index": 0, "delta": {"reasoning_content": f"{text}\n"}, "finish_reason": None}
        return {"object": "chat.completion.chunk", "model": "fake", "choices": [choice]}

    def last(self) -> dict[str, object]:
        """Return the object of the event that says that the reply is whole."""
        if "timings" not in self.query:
            return self.delta("", "stop")
        prompt, answer, speed = self.query["timings"].split(",")
        timings = {
            "prompt_n": int(prompt),
            "predicted_n": int(answer),
            "predicted_per_second": float(speed),
        }
        return {**self.delta("", "stop"), "timings": timings}

    def end_stream(self, how: str) -> None:
        """Do what `end=` says."""
        if how in ("clean", "no_done"):
            self.send_event(self.last())
            if how == "clean" and self.url.path.startswith("/v1/"):
                self.send_chunk(b"data: [DONE]\n\n")
            self.send_chunk(b"")
            return
        if how == "crash":
            die(139)
        if how == "stall":
            self.idle(STALL_S)
        if how == "hang":
            threading.Event().wait()
        if how == "mid_chunk":
            self.wfile.write(b'ff\r\ndata: {"cut')
        if how == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.close_connection = True

    def send_event(self, value: object) -> bool:
        """Send an event; return whether the client is still there."""
        # As compact as llama-server writes them.
        data = json.dumps(value, separators=(",", ":")).encode()
        return self.send_chunk(b"data: " + data + b"\n\n")

    def send_chunk(self, data: bytes) -> bool:
        """Send a chunk; return whether the client is still there."""
        try:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        except OSError:
            self.note_disconnect()
            return False
        return True

    def idle(self, duration_s: float) -> bool:
        """Wait; return whether the client is still there."""
        deadline = time.monotonic() + duration_s
        while True:
            left = max(0.0, deadline - time.monotonic())
            named = self.query.get("name")
            if named in self.server.ends:
                raise EndAsked
            patience_s = left if named is None else min(left, LOOK_AGAIN_S)
            readable, _, _ = select.select([self.connection], [], [], patience_s)
            if not readable and patience_s < left:
                continue
            if not readable:
                return True
            try:
                gone = not self.connection.recv(1, socket.MSG_PEEK)
            except OSError:
                gone = True
            if gone:
                self.note_disconnect()
                return False
            if not left:
                return True
            time.sleep(min(left, 0.005))

    def note_disconnect(self) -> None:
        """Count a client that left."""
        self.close_connection = True
        with self.server.lock:
            self.server.disconnects += 1


def fork_grandchild(pid_file: str) -> None:
    """Fork a process that ignores the polite signals, holds our output and lives for long."""
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(3600)
        os._exit(0)
    Path(pid_file).write_text(str(pid))


def stop(options: argparse.Namespace) -> None:
    """End in order, as slowly and loudly as asked."""
    log("operator(): cleaning up before exit...")
    if options.fake_stop_spew:
        sys.stderr.write("x" * 99 + "\n")
        for _ in range(10_000):
            sys.stderr.write("y" * 99 + "\n")
        sys.stderr.flush()
    time.sleep(options.fake_stop_s)
    log("bye")
    os._exit(0)


def load(options: argparse.Namespace) -> None:
    """Take the time of a load."""
    steps = 100 if options.fake_load_dots else max(1, round(options.fake_load_s / 0.05))
    log(f"load_model: loading model '{options.model}'")
    for step in range(steps):
        time.sleep(options.fake_load_s / steps)
        if options.fake_load_dots:
            sys.stderr.write(".")
            sys.stderr.flush()
        elif options.fake_load_s and not options.fake_load_silent:
            log(f"load_model: step {step + 1} of {steps}")
    if options.fake_load_dots:
        sys.stderr.write("\n")


def spew() -> None:
    """Log without end."""
    while True:
        log("spew " + "z" * 200)


def obey_router() -> None:
    """End with the standard input, as llama-server does when a router has started it."""
    sys.stdin.buffer.read()
    log("operator(): EOF on stdin detected, forcing shutdown...")
    os._exit(1)


def start_timers(options: argparse.Namespace) -> None:
    """Arrange for the process's sudden end."""
    if options.fake_exit_after is not None:
        time.sleep(options.fake_exit_after)
        die(options.fake_exit_code)


def prepare(options: argparse.Namespace) -> None:
    """Do what comes before the listener."""
    if options.fake_ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: stop(options))
    log("llama_server: initializing ...")
    for text in options.fake_say:
        log(text)
    if options.fake_tell_key:
        log(f"argv {sys.argv} environment {dict(os.environ)}")
    if options.fake_grandchild:
        fork_grandchild(options.fake_grandchild)
    if options.fake_exit_after == 0:
        die(options.fake_exit_code)


def start_threads(server: Server, options: argparse.Namespace) -> None:
    """Start all that goes on beside the load."""
    jobs = [server.serve_forever, lambda: start_timers(options)]
    if "LLAMA_SERVER_ROUTER_PORT" in os.environ:
        jobs.append(obey_router)
    if options.fake_spew:
        jobs.append(spew)
    for job in jobs:
        threading.Thread(target=job, daemon=True).start()


def main(argv: list[str]) -> None:
    """Run until told to stop."""
    options = parse_options(argv)
    prepare(options)
    server = Server(options)
    start_threads(server, options)
    if options.fake_stall:
        threading.Event().wait()
    load(options)
    log("llama_server: model loaded")
    server.loaded.set()
    if options.fake_exit_ready is not None:
        time.sleep(options.fake_exit_ready)
        die(options.fake_exit_code)
    while True:
        signal.pause()


if __name__ == "__main__":
    main(sys.argv[1:])
