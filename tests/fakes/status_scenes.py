"""What a played status page reports: snapshots, exchanges and what they become when they end.

Owns the shapes of docs/status.md as plain dictionaries; a scene says only what is special about it.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

# When everything happens, in Unix seconds.
NOW = 1_790_000_000.0


def exchange(request_id: str = "r1", phase: str = "decode", **changes: Any) -> Json:
    """Return an exchange in flight; its text is what streamed before anybody looked."""
    usual: Json = {
        "request_id": request_id,
        "method": "POST",
        "route": "/v1/chat/completions",
        "phase": phase,
        "position": 0,
        "cause": None,
        "status": 200 if phase == "decode" else None,
        "model": "tiny-instruct",
        "parameters": {
            "stream": True,
            "max_tokens": 512,
            "temperature": 0.7,
            "top_p": 0.95,
            "top_k": 40,
            "tools": 2,
            "response_format": None,
        },
        "session": None,
        "key": None,
        "tags": ["stream"],
        "started_at": NOW - 2,
        "elapsed_s": 2.0,
        "queued_s": None if phase == "queued" else 0.012,
        "first_token_s": 0.42 if phase == "decode" else None,
        "progress": None,
        "prompt_tokens": 640 if phase == "decode" else None,
        "cached_tokens": 128 if phase == "decode" else None,
        "completion_tokens": 60 if phase == "decode" else 0,
        "tokens_per_second": 43.2 if phase == "decode" else None,
        "acceptance": None,
        "bytes": 4000,
        "prompt": None,
        "text": None,
        "thought": None,
        "text_cut": False,
    }
    return usual | changes


def ended(request_id: str = "old", cause: str = "finished", **changes: Any) -> Json:
    """Return an exchange as the history has it."""
    usual: Json = {
        "request_id": request_id,
        "route": "/v1/chat/completions",
        "model": "tiny-instruct",
        "cause": cause,
        "ended_at": NOW,
        "prefill_tokens": 512,
        "cached_tokens": 128,
        "prefill_tokens_per_second": 812.0,
        "decode_tokens": 230,
        "decode_tokens_per_second": 41.7,
        "acceptance": 0.71,
        "first_token_s": 0.44,
        "total_s": 6.1,
        "tags": ["stream"],
    }
    return usual | changes


def engine(state: str = "ready", **changes: Any) -> Json:
    """Return llama-server, as the snapshot has it."""
    usual: Json = {
        "state": state,
        "model": "tiny-instruct",
        "slots": 4,
        "restarts": 0,
        "generation": 1,
        "uptime_s": 4210.0 if state == "ready" else None,
        "pid": 4711 if state == "ready" else None,
        "last_exit": None,
        "failure": None,
        "progress": 0.43 if state == "starting" else None,
        "managed": True,
        "log": [f"srv  update_slots: line {number}" for number in range(20)],
    }
    return usual | changes


def task(name: str, *children: Json) -> Json:
    """Return a node of the task tree."""
    return {"name": name, "children": list(children)}


TASKS = task(
    "trio.run",
    task(
        "proxy.serve.serve",
        task("proxy.runtime.supervisor.run", task("read log"), task("watch exit")),
        task("main listener", task("connection"), task("connection")),
        task("fast listener"),
    ),
)


def snapshot(*exchanges: Json, **changes: Any) -> Json:
    """Return a snapshot of a proxy that is up, with these exchanges in flight."""
    phases = {each["phase"] for each in exchanges}
    usual: Json = {
        "phase": next((name for name in ("decode", "prefill") if name in phases), "idle"),
        "total_requests": 1204,
        "current": exchanges[0] if exchanges else None,
        "perf_history": [],
        "engine": engine(),
        "exchanges": list(exchanges),
        "gates": [
            {
                "model": "",
                "permits": 4,
                "admitted": sum(each["phase"] != "queued" for each in exchanges),
                "queued": sum(each["phase"] == "queued" for each in exchanges),
            }
        ],
        "stream_tokens": {"waiting": 0, "running": 0},
        "predictions": {
            "starting": 0,
            "processing": 0,
            "succeeded": 0,
            "failed": 0,
            "canceled": 0,
        },
        "proxy": {
            "version": "1.0.0",
            "uptime_s": 90_061.0,
            "rss_bytes": 61_341_696,
            "tasks": 9,
            "connections": 3,
            "viewers": 1,
        },
        "tasks": TASKS,
        "content": "full",
        "now": NOW,
    }
    return usual | changes
