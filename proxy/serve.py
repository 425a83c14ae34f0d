"""The composition root: builds the objects, opens the top nurseries and owns the order of shutdown.

What the command does is written with what stands here and nothing else; whoever embeds the proxy in
a Trio program has the same pieces. The web stack is imported only when a proxy is opened, so that
llama-server can be launched before.

Shutdown, in this order: nothing new is accepted; what is in flight may finish; what is left is
ended with `shutting_down` and told so; what is left then is reset; the engine stops last.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from proxy.core.causes import EndCause
from proxy.core.errors import ConfigError, EngineError, ProxyCrashed
from proxy.core.hosts import is_loopback_address
from proxy.runtime.backend import Backend, Engine
from proxy.runtime.discovery import find_engine
from proxy.runtime.external import ExternalServer
from proxy.runtime.listening import bind_sockets
from proxy.runtime.supervisor import LlamaServer

if TYPE_CHECKING:
    import ssl

    from proxy.core.access import ApiKey
    from proxy.http1.guard import Guard
    from proxy.web.listener import MainListener

# After the drain time each client left is told why and then cut; this is how long the telling may
# take.
FAREWELL_S = 1.0
MIB = 1024 * 1024
# What a client on this machine dials for a socket that is bound to every address.
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


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
    with _one_error():
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
    with _one_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(engine.run)
            if wait_ready:
                await engine.wait_ready()
            yield engine
            nursery.cancel_scope.cancel()


class ProxyServer:
    """A running proxy, as `open_proxy` yields it.

    Attributes:
        url: Its base URL, for this machine.
        port: Its TCP port.
        fast_url: The fast path's base URL; None: there is no fast path yet.
    """

    fast_url: str | None = None

    def __init__(self, guard: Guard, backend: Backend, url: str, port: int, drain_s: float) -> None:
        self.url = url
        self.port = port
        self._guard = guard
        self._backend = backend
        self._drain_s = drain_s

    @property
    def in_flight(self) -> int:
        """How many exchanges are under way."""
        return len(self._backend.exchanges)

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return self._guard.connections

    async def drain(self) -> None:
        """Stop accepting, let what is in flight finish for the drain time, then end what is left.

        Exchanges that are left are ended with `shutting_down`, which their clients are told.
        Returns when every connection is gone.

        Cancellation: what is left is reset at once.
        """
        self._backend.shut_down()
        try:
            with trio.move_on_after(self._drain_s):
                await self._guard.drain()
            self._backend.exchanges.end_all(EndCause.SHUTTING_DOWN)
            with trio.move_on_after(FAREWELL_S):
                await self._guard.drain()
        finally:
            self._guard.abort()
        await self._guard.drain()


@asynccontextmanager
async def open_proxy(
    engine: Engine,
    *,
    sockets: Sequence[socket.socket] | None = None,
    host: str | Sequence[str] = "127.0.0.1",
    port: int = 8080,
    api_keys: Sequence[ApiKey] = (),
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    max_queue: int = 64,
    queue_timeout_s: float = 120.0,
    send_timeout_s: float = 30.0,
    request_timeout_s: float = 0.0,
    max_body_mib: int = 64,
    drain_s: float = 30.0,
    certfile: str | os.PathLike[str] | None = None,
    keyfile: str | os.PathLike[str] | None = None,
    slots: int | None = None,
    forward_conversation_id: bool = False,
    allow_remote_media: bool = False,
    via: bool = False,
    forwarded: bool = False,
) -> AsyncIterator[ProxyServer]:
    """Serve `engine` to clients while the block runs; leaving the block drains.

    Args:
        engine: What `open_llama_server` or `open_upstream` yielded; it need not be ready yet.
        sockets: What `bind_sockets` returned, closed by us; None: bound from `host` and `port`.
        host: Names or addresses to listen on.
        port: TCP port; 0 for any free one.
        api_keys: Who may use it; none: everybody who reaches it, which must be this machine only.
        cors_origins: Origins whose pages may use it; `("upstream",)` leaves CORS to llama-server.
        allowed_hosts: What `Host` may name besides loopback names; `"*"` for any.
        max_queue: How many requests may wait for a slot.
        queue_timeout_s: For how long, in seconds.
        send_timeout_s: How long a client may take no byte, in seconds.
        request_timeout_s: How long a whole exchange may take, in seconds; 0 for no bound.
        max_body_mib: The largest request body, in MiB.
        drain_s: How long what is in flight may go on at the end, in seconds.
        certfile: TLS certificate chain, PEM; needs `keyfile`.
        keyfile: TLS private key, PEM.
        slots: Permits, where llama-server does not tell its slots; None for no gate then.
        forward_conversation_id: Pass `X-Conversation-Id` on to llama-server.
        allow_remote_media: Let llama-server fetch URLs that a request names.
        via: Add `Via` headers.
        forwarded: Add a `Forwarded` header towards llama-server.

    Yields:
        The server, accepting connections.

    Raises:
        ConfigError: When it cannot listen, others than this machine can reach it and there are no
            keys, or a certificate cannot be used.
        ProxyCrashed: When a background task fails, to which the body of the block is then
            cancelled.

    Cancellation: connections are reset, exchanges ended; nothing is left.
    """
    # Here and not above: the engine is launched while these are imported.
    from proxy.web.listener import MainListener, Settings

    bound = bind_sockets(host, port) if sockets is None else list(sockets)
    try:
        _check_reach(bound, api_keys)
        settings = Settings(
            api_keys=tuple(api_keys),
            cors_origins=tuple(cors_origins),
            allowed_hosts=tuple(allowed_hosts),
            queue_timeout_s=queue_timeout_s,
            send_timeout_s=send_timeout_s,
            request_timeout_s=request_timeout_s,
            max_body=max_body_mib * MIB,
            tls=_tls_context(certfile, keyfile),
            forward_conversation_id=forward_conversation_id,
            allow_remote_media=allow_remote_media,
            via=via,
            forwarded=forwarded,
        )
        backend = Backend(
            engine, max_queue=max_queue, slots=slots, router=engine.router, drain_s=drain_s
        )
        listener = MainListener(backend, settings, bound)
    except BaseException:
        for sock in bound:
            sock.close()
        raise
    address = bound[0].getsockname()
    server = ProxyServer(
        listener.guard, backend, _url_of(address, settings.tls), address[1], drain_s
    )
    with _one_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(_run_typed, listener)
            yield server
            await server.drain()
            nursery.cancel_scope.cancel()


def _check_reach(sockets: Sequence[socket.socket], api_keys: Sequence[ApiKey]) -> None:
    for sock in sockets:
        host = sock.getsockname()[0]
        if not api_keys and not is_loopback_address(host):
            raise ConfigError(
                f"{host} is not a loopback address, so anybody who reaches it could use the model:"
                " give clients keys with `api_keys`, or listen on 127.0.0.1."
            )


async def _run_typed(listener: MainListener, *, task_status: trio.TaskStatus[None]) -> None:
    """Run it, and let a defect reach the caller's nursery as one typed exception."""
    try:
        await listener.run(task_status=task_status)
    except Exception as error:
        raise ProxyCrashed("A background task of the proxy failed.") from error


def _tls_context(
    certfile: str | os.PathLike[str] | None, keyfile: str | os.PathLike[str] | None
) -> ssl.SSLContext | None:
    if certfile is None:
        return None
    import ssl

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certfile, keyfile)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            "The certificate or its key cannot be used: both have to be readable PEM files"
            " that belong together."
        ) from error
    return context


def _url_of(address: tuple[str, int], tls: ssl.SSLContext | None) -> str:
    host = _REACHABLE.get(address[0], address[0])
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if tls is None else 'https'}://{shown}:{address[1]}"


@contextmanager
def _one_error() -> Iterator[None]:
    """Let an error leave our nursery as itself: that there is a nursery is no caller's business.

    Several that are the caller's to sort out leave as a group, as Trio has it.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone = _alone(group)
        if alone is None:
            raise
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context


def _alone(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the only error in `group`; an engine's, raised by each who waits for it, is one."""
    if len(group.exceptions) == 1:
        return group.exceptions[0]
    engine_errors, rest = group.split(EngineError)
    if engine_errors is None or rest is not None:
        return None
    found: BaseException = engine_errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
