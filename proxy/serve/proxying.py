"""The proxy for who embeds it: its listeners, put together on one engine, and served.

The web stack is imported only when a proxy is opened, so that llama-server can be launched before.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

import trio

from proxy.core.errors import ConfigError, ProxyCrashed
from proxy.core.fast_reach import FastReach
from proxy.core.hosts import is_loopback_address
from proxy.core.stream_tokens import TokenPolicy
from proxy.runtime.backend import Backend, Engine
from proxy.runtime.listening import bind_sockets
from proxy.runtime.stream_tokens import StreamTokens
from proxy.serve.one_error import one_error
from proxy.serve.server import ProxyServer

if TYPE_CHECKING:
    import ssl

    from proxy.core.access import ApiKey

MIB = 1024 * 1024
# What a client on this machine dials for a socket that is bound to every address.
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class Runner(Protocol):
    """Serves until it is drained or cancelled."""

    async def __call__(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Serve."""
        ...


@asynccontextmanager
async def open_proxy(
    engine: Engine,
    *,
    sockets: Sequence[socket.socket] | None = None,
    host: str | Sequence[str] = "127.0.0.1",
    port: int = 8080,
    fast_sockets: Sequence[socket.socket] | None = None,
    fast_port: int | None = 0,
    fast_public_url: str | None = None,
    token_ttl_s: float = 10.0,
    token_lease_s: float = 600.0,
    api_keys: Sequence[ApiKey] = (),
    cors_origins: Sequence[str] = (),
    allowed_hosts: Sequence[str] = (),
    max_queue: int = 64,
    queue_timeout_s: float = 120.0,
    send_timeout_s: float = 30.0,
    request_timeout_s: float = 0.0,
    max_body_mib: int = 64,
    drain_s: float = 30.0,
    prediction_history: int = 1024,
    webhook_token: str | None = None,
    allow_private_webhooks: bool = False,
    status_content: str | None = None,
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
        fast_sockets: What `bind_sockets` returned for the fast path, closed by us; None: bound from
            `host` and `fast_port`.
        fast_port: TCP port of the fast path; 0 for any free one, None for no fast path.
        fast_public_url: The fast path's base URL for all clients; None: the host that a client used
            to reach us, with the fast path's port.
        token_ttl_s: How long a stream token may wait to be used, in seconds, where its maker does
            not say.
        token_lease_s: How long the stream that it opens may live, in seconds; 0 for no bound.
        api_keys: Who may use it; none: everybody who reaches it, which must be this machine only.
        cors_origins: Origins whose pages may use it; `("upstream",)` leaves CORS to llama-server.
        allowed_hosts: What `Host` may name besides loopback names; `"*"` for any.
        max_queue: How many requests may wait for a slot.
        queue_timeout_s: For how long, in seconds.
        send_timeout_s: How long a client may take no byte, in seconds.
        request_timeout_s: How long a whole exchange may take, in seconds; 0 for no bound.
        max_body_mib: The largest request body, in MiB.
        drain_s: How long what is in flight may go on at the end, in seconds.
        prediction_history: How many events of a prediction are kept for those who come late or
            lag; 0 for no replay.
        webhook_token: What webhooks of predictions carry as `Authorization: Bearer`; None for none.
        allow_private_webhooks: Let webhooks go to this machine and to private networks.
        status_content: `"full"`: the status page shows prompts and answers; `"none"`: it does not;
            None: it does where only this machine can reach it and no keys are needed.
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
    from proxy.fastpath.door import PATHS as FAST_PATHS
    from proxy.fastpath.listener import make_fast_guard
    from proxy.predictions.book import PredictionBook, PredictionSettings
    from proxy.predictions.reporting import ReportSettings
    from proxy.web.listener import MainListener, Settings

    with ExitStack() as unused:
        bound = _own(unused, bind_sockets(host, port) if sockets is None else sockets)
        fast = _own(unused, _fast_sockets(fast_sockets, host, fast_port))
        _check_reach([*bound, *fast], api_keys)
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
            show_content=_shows_content(status_content, api_keys),
        )
        backend = Backend(
            engine, max_queue=max_queue, slots=slots, router=engine.router, drain_s=drain_s
        )
        tokens = StreamTokens(engine, _token_policy(token_ttl_s, token_lease_s))
        reach = _reach_of(fast, settings.tls, fast_public_url)
        book = PredictionBook(
            backend,
            PredictionSettings(
                queue_timeout_s=queue_timeout_s,
                request_timeout_s=request_timeout_s,
                reports=ReportSettings(webhook_token, allow_private=allow_private_webhooks),
                history=prediction_history,
                show_content=_shows_content(status_content, api_keys),
            ),
        )
        listener = MainListener(
            backend,
            settings,
            bound,
            tokens=tokens,
            reach=reach,
            token_paths=FAST_PATHS,
            book=book,
            fast_hosts=[sock.getsockname()[0] for sock in fast],
        )
        guards = [listener.guard]
        if fast:
            guards.append(
                make_fast_guard(
                    listener.relay,
                    tokens,
                    listener.policy_beside,
                    listener.limits,
                    fast,
                    send_timeout_s=send_timeout_s,
                    tls=settings.tls,
                )
            )
        # Whoever serves them closes them; what is cancelled before that is closed here.
        owned = unused.pop_all()
    listener.facts.count_connections = lambda: sum(guard.connections for guard in guards)
    server = ProxyServer(
        guards,
        backend,
        tokens,
        book,
        url=_url_of(bound, settings.tls),
        port=bound[0].getsockname()[1],
        fast_url=_url_of(fast, settings.tls) if fast else None,
        drain_s=drain_s,
    )
    with owned, one_error():
        async with trio.open_nursery() as nursery:
            await nursery.start(_run_typed, book.run, name="predictions")
            await nursery.start(_run_typed, listener.run, name="main listener")
            for guard in guards[1:]:
                await nursery.start(_run_typed, guard.run, name="fast listener")
            yield server
            await server.drain()
            nursery.cancel_scope.cancel()


def _own(unused: ExitStack, sockets: Sequence[socket.socket]) -> list[socket.socket]:
    for sock in sockets:
        unused.callback(sock.close)
    return list(sockets)


def _fast_sockets(
    given: Sequence[socket.socket] | None, host: str | Sequence[str], port: int | None
) -> Sequence[socket.socket]:
    if given is not None:
        return given
    return [] if port is None else bind_sockets(host, port, option="--fast-port")


def _token_policy(ttl_s: float, lease_s: float) -> TokenPolicy:
    usual = TokenPolicy()
    return TokenPolicy(
        ttl_s=ttl_s,
        lease_s=lease_s,
        max_ttl_s=max(ttl_s, usual.max_ttl_s),
        max_lease_s=max(lease_s, usual.max_lease_s),
    )


def _reach_of(
    sockets: Sequence[socket.socket], tls: ssl.SSLContext | None, public_url: str | None
) -> FastReach | None:
    if not sockets:
        return None
    addresses = [sock.getsockname() for sock in sockets]
    return FastReach(
        [address[0] for address in addresses],
        addresses[0][1],
        secure=tls is not None,
        public_url=public_url,
    )


def _shows_content(wanted: str | None, api_keys: Sequence[ApiKey]) -> bool:
    """Tell whether the status page shows texts: by itself where only this machine can look."""
    if wanted not in (None, "full", "none"):
        raise ConfigError("`status_content` has to be full or none.")
    return wanted == "full" or (wanted is None and not api_keys)


def _check_reach(sockets: Sequence[socket.socket], api_keys: Sequence[ApiKey]) -> None:
    for sock in sockets:
        host = sock.getsockname()[0]
        if not api_keys and not is_loopback_address(host):
            raise ConfigError(
                f"{host} is not a loopback address, so anybody who reaches it could use the model:"
                " give clients keys with `api_keys`, or listen on 127.0.0.1."
            )


async def _run_typed(run: Runner, *, task_status: trio.TaskStatus[None]) -> None:
    """Run it, and let a defect reach the caller's nursery as one typed exception."""
    try:
        await run(task_status=task_status)
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


def _url_of(sockets: Sequence[socket.socket], tls: ssl.SSLContext | None) -> str:
    address = sockets[0].getsockname()
    host = _REACHABLE.get(address[0], address[0])
    shown = f"[{host}]" if ":" in host else host
    return f"{'http' if tls is None else 'https'}://{shown}:{address[1]}"
