"""Engines for who embeds the proxy: a llama-server that is launched, or one that others run.

Owns the nursery in which an engine runs, and its end.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio

from proxy.runtime.discovery import find_engine
from proxy.runtime.external import ExternalServer
from proxy.runtime.supervisor import LlamaServer
from proxy.serve.one_error import one_error


@asynccontextmanager
async def open_llama_server(
    model: str | os.PathLike[str] | None = None,
    *,
    llama_server: str | None = None,
    extra_args: Sequence[str] = (),
    router: bool = False,
    load_stall_s: float = 120.0,
    stop_grace_s: float = 10.0,
    exit_on_failed: bool = False,
    wait_ready: bool = True,
) -> AsyncIterator[LlamaServer]:
    """Launch a llama-server and keep it running while the block runs; gone on exit.

    Args:
        model: Path of a GGUF file; None for the packaged demo model, unless `extra_args` name one.
        llama_server: Path of a binary, or `"embedded"`; None: discovered, see docs/engine.md.
        extra_args: Arguments passed to llama-server unchanged.
        router: Start llama-server's router mode, which serves several models; excludes `model`.
        load_stall_s: Without a log line for so long, in seconds, a load has failed.
        stop_grace_s: Seconds between SIGTERM and SIGKILL.
        exit_on_failed: Raise `EngineFailed` after a crash loop; else it stays in state `failed`.
        wait_ready: Enter the block only when the model is loaded.

    Yields:
        The engine; ready, if `wait_ready`.

    Raises:
        ConfigError: When an argument cannot be used.
        EngineNotFound: When there is no llama-server on this machine.
        EngineLoadFailed: When the first load fails; with the last log lines.
        EngineFailed: Under `exit_on_failed`, after a crash loop.

    Cancellation: the process and everything that it forked are stopped, within `stop_grace_s` and a
    little.
    """
    engine = LlamaServer(
        find_engine(llama_server, os.environ),
        model_path=model,
        extra_args=extra_args,
        router=router,
        load_stall_s=load_stall_s,
        stop_grace_s=stop_grace_s,
        exit_on_failed=exit_on_failed,
    )
    with one_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            if wait_ready:
                await engine.wait_ready()
            yield engine
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_upstream(
    url: str, *, api_key: str | None = None, wait_ready: bool = True
) -> AsyncIterator[ExternalServer]:
    """Follow a llama-server that somebody else runs while the block runs.

    Args:
        url: Its base URL, `http` or `https`.
        api_key: Its key, if it wants one.
        wait_ready: Enter the block only when it answers and its model is loaded.

    Yields:
        The engine.

    Raises:
        ConfigError: When the URL cannot be used.
    """
    engine = ExternalServer(url, api_key=api_key)
    with one_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            if wait_ready:
                await engine.wait_ready()
            yield engine
            nursery.cancel_scope.cancel()
