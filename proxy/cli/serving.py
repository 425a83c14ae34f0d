"""`llama-proxy serve` once its arguments are known: the order of starting, signals, exit status.

Owns what the process does about SIGINT and SIGTERM and how a failure is told. Uses the public API
of `proxy` and nothing below it: whoever embeds the library can do the same.

The order: bind (so that a port in use is told before anything is launched), launch llama-server,
import the web stack while it loads, accept, wait until the model is loaded, tell. The first signal
drains and stops, the second one stops at once.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import trio

import proxy
from proxy import logs
from proxy._version import __version__
from proxy.cli import notice, progress
from proxy.cli.output import complain, say
from proxy.core.errors import ConfigError, EngineError, ProxyError

if TYPE_CHECKING:
    from proxy.config import Config

    Engine = proxy.LlamaServer | proxy.ExternalServer

_DEFECT_STATUS = 1
_USAGE_STATUS = 2
_ENGINE_STATUS = 3
_AT_ONCE_STATUS = 130
# What fits a terminal and, as a rule, has the reason.
_SHOWN_LOG_LINES = 20

_logger = logging.getLogger(__name__)


def run(config: Config) -> int:
    """Serve until a signal, or until llama-server cannot be served.

    Returns:
        The exit status; what went wrong has been told on standard error by then.
    """
    logs.configure(config.log_format, config.log_level)
    try:
        return _run(config)
    except (Exception, BaseExceptionGroup) as error:  # noqa: BLE001  # the process's last boundary
        return tell_failure(error, config.log_format)


def _run(config: Config) -> int:
    ready_file = notice.ReadyFile(config.ready_file)
    with ExitStack() as bound:
        sockets = _Sockets.bind(config, bound)
        # Not before: with the port taken, the ready file may be that of who has it.
        ready_file.clear()
        bound.callback(ready_file.remove)
        return trio.run(_serve, config, sockets, ready_file)


@dataclass(frozen=True, slots=True)
class _Sockets:
    """What is listened on, bound before anything is launched."""

    main: list[socket.socket]
    fast: list[socket.socket]

    @classmethod
    def bind(cls, config: Config, stack: ExitStack) -> _Sockets:
        main = proxy.bind_sockets(config.hosts, config.port)
        _close_with(stack, main)
        fast: list[socket.socket] = []
        if not config.no_fast_path:
            fast = proxy.bind_sockets(config.hosts, config.fast_port, option="--fast-port")
        _close_with(stack, fast)
        return cls(main, fast)


def _close_with(stack: ExitStack, sockets: list[socket.socket]) -> None:
    for each in sockets:
        stack.callback(each.close)


class _Signals:
    """SIGINT and SIGTERM: the first asks to stop, the second cancels all work."""

    def __init__(self) -> None:
        self.asked = trio.Event()
        self.at_once = False
        self.work = trio.CancelScope()
        self.loading = trio.CancelScope()

    async def watch(self, task_status: trio.TaskStatus[None]) -> None:
        """Listen until cancelled; a third signal does not break the cleanup of the second."""
        with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as arrived:
            task_status.started()
            async for number in arrived:
                self._take(signal.Signals(number).name)

    def _take(self, name: str) -> None:
        if self.asked.is_set():
            _logger.warning("%s again: stopping at once", name)
            self.at_once = True
            self.work.cancel()
        else:
            _logger.info("%s: stopping when what is in flight has ended; again: at once", name)
            self.asked.set()
            self.loading.cancel()


async def _serve(config: Config, sockets: _Sockets, ready_file: notice.ReadyFile) -> int:
    signals = _Signals()
    async with trio.open_nursery() as nursery:
        await nursery.start(signals.watch)
        with signals.work:
            await _serve_until_asked(config, sockets, ready_file, signals)
        nursery.cancel_scope.cancel()
    return _AT_ONCE_STATUS if signals.at_once else 0


async def _serve_until_asked(
    config: Config,
    sockets: _Sockets,
    ready_file: notice.ReadyFile,
    signals: _Signals,
) -> None:
    async with (
        _open_engine(config) as engine,
        _open_proxy(config, engine, sockets) as server,
    ):
        with signals.loading:
            await _wait_loaded(config, engine)
        if signals.asked.is_set():
            return
        _tell_ready(config, engine, server, ready_file)
        await signals.asked.wait()
        await server.drain()


def _open_engine(config: Config) -> AbstractAsyncContextManager[Engine]:
    if config.upstream_url is not None:
        return proxy.open_upstream(
            config.upstream_url, api_key=config.upstream_api_key, wait_ready=False
        )
    return proxy.open_llama_server(
        config.model,
        llama_server=config.llama_server,
        extra_args=config.extra_args,
        router=config.router,
        load_stall_s=config.load_stall_s,
        stop_grace_s=config.stop_grace_s,
        exit_on_failed=config.exit_on_failed,
        wait_ready=False,
    )


def _open_proxy(
    config: Config, engine: Engine, sockets: _Sockets
) -> AbstractAsyncContextManager[proxy.ProxyServer]:
    return proxy.open_proxy(
        engine,
        sockets=sockets.main,
        fast_sockets=sockets.fast,
        fast_public_url=config.fast_public_url,
        token_ttl_s=config.token_ttl_s,
        token_lease_s=config.token_lease_s,
        api_keys=config.api_keys,
        cors_origins=config.cors_origins,
        allowed_hosts=config.allowed_hosts,
        max_queue=config.max_queue,
        queue_timeout_s=config.queue_timeout_s,
        send_timeout_s=config.send_timeout_s,
        request_timeout_s=config.request_timeout_s,
        max_body_mib=config.max_body_mib,
        drain_s=config.drain_s,
        prediction_history=config.prediction_history,
        webhook_token=config.webhook_token,
        allow_private_webhooks=config.allow_private_webhooks,
        status_content=config.status_content,
        certfile=config.certfile,
        keyfile=config.keyfile,
        slots=config.slots,
        forward_conversation_id=config.forward_conversation_id,
        allow_remote_media=config.allow_remote_media,
        via=config.via,
        forwarded=config.forwarded,
    )


async def _wait_loaded(config: Config, engine: Engine) -> None:
    async with trio.open_nursery() as nursery:
        what = _describe_load(config)
        # Between JSON lines a bar would be in the way of the programs that read them.
        if config.log_format == "text" and sys.stderr is not None and sys.stderr.isatty():
            nursery.start_soon(progress.show_bar, engine, what, sys.stderr)
        else:
            nursery.start_soon(progress.log_lines, engine, what)
        await engine.wait_ready()
        nursery.cancel_scope.cancel()


def _describe_load(config: Config) -> str:
    if config.upstream_url is not None:
        return "waiting for the llama-server at --upstream-url"
    if config.serves_demo_model:
        return "loading the demo model"
    return f"loading {Path(config.model).name}" if config.model else "starting llama-server"


def _tell_ready(
    config: Config,
    engine: Engine,
    server: proxy.ProxyServer,
    ready_file: notice.ReadyFile,
) -> None:
    def describe() -> notice.Ready:
        return notice.Ready(
            url=server.url,
            fast_url=server.fast_url,
            pid=os.getpid(),
            llama_server_pid=engine.pid,
            model=engine.model,
            api_key_required=bool(config.api_keys),
        )

    def follow() -> None:
        # A restarted llama-server has another process id.
        if engine.state == "ready":
            try:
                ready_file.write(describe())
            except ConfigError as error:
                _logger.warning("%s", error)

    # The file first: who reads the notice may look for it.
    ready_file.write(describe())
    say(notice.render(describe(), version=__version__, is_demo=config.serves_demo_model))
    engine.watch(follow)


# --- what went wrong ---


def tell_failure(error: BaseException, log_format: str) -> int:
    """Tell what ended the run, on standard error, and return the exit status.

    Args:
        error: What left `trio.run`; groups are taken apart.
        log_format: With "json" the reason is a line of the log, so that every line is JSON.
    """
    leaves = list(_leaves(error))
    told = next((each for each in leaves if isinstance(each, (ConfigError, EngineError))), None)
    if told is None and any(isinstance(each, KeyboardInterrupt) for each in leaves):
        return _AT_ONCE_STATUS
    for each in leaves:
        if not isinstance(each, (ConfigError, EngineError, KeyboardInterrupt)):
            _logger.error("a defect of llama-proxy, please report it", exc_info=each)
    if told is None:
        return _DEFECT_STATUS
    log_tail = told.log_tail[-_SHOWN_LOG_LINES:] if isinstance(told, EngineError) else ()
    if log_format == "json":
        _logger.error("%s", told, extra={"log_tail": list(log_tail)})
    else:
        _complain(told, log_tail)
    return _ENGINE_STATUS if isinstance(told, EngineError) else _USAGE_STATUS


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from _leaves(each)
    else:
        yield error


def _complain(told: ProxyError, log_tail: Sequence[str]) -> None:
    complain(f"llama-proxy: error: {told}")
    if log_tail:
        complain("llama-server's last lines:")
    for line in log_tail:
        complain(f"  {line}")
