"""Scenes that fill the page: each panel with the longest that is to be expected of it."""

from __future__ import annotations

import math

from tests.fakes.status_scenes import NOW, Json, ended, engine, exchange, snapshot, task

_PROSE = (
    "A nursery is where tasks live: each task is in exactly one, and whoever opened it waits for "
    "all of them before it goes on.\n\nSo nothing runs that nobody waits for, and no error is lost."
    "\n\n    async with trio.open_nursery() as nursery:\n        nursery.start_soon(serve)\n\n"
)
_LONG_MODEL = "Meta-Llama-3.1-70B-Instruct-IQ4_XS-00001-of-00002"


def history(length: int) -> list[Json]:
    """Return ended exchanges, of every kind."""
    causes = ["finished", "finished", "client_disconnected", "finished", "upstream_crashed"]
    return [
        ended(
            f"ended-{number}",
            causes[number % len(causes)],
            ended_at=NOW - 13 * (length - number),
            prefill_tokens_per_second=0 if number % 7 == 3 else 700 + 200 * math.sin(number),
            decode_tokens_per_second=42 + 6 * math.cos(number / 3),
            acceptance=None if number % 4 == 0 else 0.6 + 0.2 * math.sin(number / 5),
        )
        for number in range(length)
    ]


def busy(content: str = "full") -> Json:
    """Return a proxy whose slots are taken: an exchange in each phase."""
    exchanges = [
        exchange(
            "3d3bdf3298860cf0acb4eaacdc3b2ff1",
            text=_PROSE * 4,
            thought="The user asks what a nursery is. " * 12,
            prompt="What is a nursery?",
            tags=["stream", "thinking", "tools", "cache_hit", "speculative", "fast_path"],
            key="somebody",
            session="5f0c8a1e-9a65-4b27-8f5c-0e4f1c7f4a52",
            acceptance=0.71,
            completion_tokens=312,
        ),
        exchange(
            "b7c1",
            phase="prefill",
            route="/v1/messages",
            progress={"total": 131_072, "processed": 49_152, "cached": 16_384},
            tags=["stream", "fast_path"],
            prompt="A long document.",
            text="",
        ),
        exchange("c9", parameters={"max_tokens": None, "response_format": "json_schema"}, text="{"),
        exchange("q1", phase="queued", position=1, tags=[], text="", model=_LONG_MODEL),
        exchange("e1", phase="ended", cause="deadline_exceeded", status=504, text="Too l"),
    ]
    if content == "none":
        for each in exchanges:
            each.update(text=None, thought=None, prompt=None)
    return snapshot(
        *exchanges,
        content=content,
        perf_history=history(12),
        gates=[
            {"model": "", "permits": 4, "admitted": 4, "queued": 1},
            {"model": _LONG_MODEL, "permits": 2, "admitted": 1, "queued": 0},
        ],
        engine=engine(
            restarts=2, generation=3, last_exit="killed by SIGSEGV 12.4 s after its start"
        ),
        tasks=task(
            "trio._core._run.Runner.init",
            task(
                "proxy.serve.open_proxy.<locals>.serve_until_cancelled",
                *[task("proxy.http1.connection.serve", task("watch the client")) for _ in range(9)],
                task("proxy.runtime.supervisor.LlamaServer.run_and_restart_forever"),
            ),
        ),
    )


def broken() -> Json:
    """Return a proxy whose llama-server does not start any more."""
    return snapshot(
        engine=engine(
            "failed",
            model=_LONG_MODEL,
            failure="llama-server ended 3 times within 60 s; the last time with exit status 1. "
            "error_loading_model:_tensor_blk.0.attn_q.weight_has_wrong_shape",
            last_exit="exit status 1",
            log=["llama_model_load: error loading model: " + "x" * 300] * 20,
        )
    )
