"""The main listener, put together: guard, front door, vitals, relay and the operator's pages.

Owns how the parts of this package are joined, and their settings. Whoever serves a backend makes
one.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace

import trio

from proxy.core.access import AccessPolicy, ApiKey, Keyring
from proxy.core.fast_reach import FastReach
from proxy.core.framing import Limits
from proxy.http1.asgi import AsgiApp
from proxy.http1.connection import ConnectionLimits, ServerContext
from proxy.http1.guard import Guard
from proxy.predictions.book import PredictionBook
from proxy.predictions.routes import PredictionRoutes
from proxy.relay.front_door import FrontDoor
from proxy.relay.relay import Relay
from proxy.relay.settings import RelaySettings
from proxy.runtime.backend import Backend
from proxy.runtime.stream_tokens import StreamTokens
from proxy.web.lazy import LazyApp
from proxy.web.main_routes import MainRoutes
from proxy.web.static_files import PATHS as STATIC_PATHS
from proxy.web.static_files import StaticFiles
from proxy.web.status.facts import Facts
from proxy.web.status.hub import StatusHub
from proxy.web.status.routes import StatusRoutes
from proxy.web.stream_tokens import TokenRoutes
from proxy.web.vitals import PATHS as VITAL_PATHS
from proxy.web.vitals import Vitals

# The value of `--cors-origin` that leaves CORS and origins to llama-server.
_BY_UPSTREAM = "upstream"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `open_proxy` is told, with times in seconds and sizes in bytes; see there."""

    api_keys: tuple[ApiKey, ...]
    cors_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    queue_timeout_s: float
    send_timeout_s: float
    request_timeout_s: float
    max_body: int
    tls: ssl.SSLContext | None
    forward_conversation_id: bool
    allow_remote_media: bool
    via: bool
    forwarded: bool
    show_content: bool


class MainListener:
    """Serves a backend on the given sockets.

    Args:
        backend: The engine with its gates.
        settings: How.
        sockets: Listening sockets; closed by the guard.
        tokens: Makes stream tokens.
        reach: Where the fast listener is; None when there is none.
        token_paths: The paths that a stream token may be for.
        fast_hosts: The addresses that the fast listener is bound to.
        book: The predictions.

    Attributes:
        relay: Carries requests, for the fast listener too.
        limits: What each connection may take.
        facts: What the status page tells; whoever has all guards says how many are connected.
        policy_beside: Who may use the fast listener: as here, with a stream token too, and pages
            that were served here.
    """

    def __init__(
        self,
        backend: Backend,
        settings: Settings,
        sockets: Sequence[socket.socket],
        *,
        tokens: StreamTokens,
        reach: FastReach | None,
        token_paths: frozenset[str],
        book: PredictionBook,
        fast_hosts: Sequence[str] = (),
    ) -> None:
        self._backend = backend
        self._operator = LazyApp(self._make_operator)
        addresses = [sock.getsockname() for sock in sockets]
        policy = _access_policy(settings, [address[0] for address in addresses])
        self.policy_beside = replace(
            _access_policy(settings, [*(address[0] for address in addresses), *fast_hosts]),
            public_paths=frozenset(),
            sister_ports=frozenset(address[1] for address in addresses),
            takes_stream_tokens=True,
        )
        self.facts = Facts(backend, book, tokens, content=settings.show_content)
        self._hub = StatusHub(backend, self.facts, content=settings.show_content)
        self.relay = Relay(backend, _relay_settings(settings))
        routes = MainRoutes(
            vitals=Vitals(backend),
            operator=self._operator,
            tokens=TokenRoutes(
                tokens, reach, paths=token_paths, any_admin=policy.keyring.any_admin
            ),
            predictions=PredictionRoutes(
                book, backend, allow_remote_media=settings.allow_remote_media
            ),
            status=StatusRoutes(self._hub),
            files=StaticFiles(),
            relay=self.relay,
        )
        app = FrontDoor(policy, routes.choose)
        self.limits = ConnectionLimits(Limits(max_body=settings.max_body))
        self.guard = Guard(
            ServerContext(app, self.limits),
            sockets,
            send_timeout_s=settings.send_timeout_s,
            tls=settings.tls,
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until the guard is drained or this is cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._backend.run)
            nursery.start_soon(self._hub.run)
            await nursery.start(self.guard.run)
            task_status.started()
            # Not before: the engine and the first request have the processor to themselves.
            await self._backend.first_ready.wait()
            await self._operator.prepare()

    def _make_operator(self) -> AsgiApp:
        from proxy.web.operator import make_operator_app

        return make_operator_app(self._backend)


def _access_policy(settings: Settings, bound_hosts: Sequence[str]) -> AccessPolicy:
    by_upstream = _BY_UPSTREAM in settings.cors_origins
    # With keys and no host named, the key alone decides: any host will do.
    restricted = settings.allowed_hosts or not settings.api_keys
    return AccessPolicy(
        keyring=Keyring(settings.api_keys),
        allowed_hosts=frozenset((*settings.allowed_hosts, *bound_hosts) if restricted else ()),
        public_paths=VITAL_PATHS | STATIC_PATHS,
        cors_origins=frozenset() if by_upstream else frozenset(settings.cors_origins),
        cors_by_upstream=by_upstream,
    )


def _relay_settings(settings: Settings) -> RelaySettings:
    return RelaySettings(
        queue_timeout_s=settings.queue_timeout_s,
        request_timeout_s=settings.request_timeout_s,
        forward_conversation_id=settings.forward_conversation_id,
        allow_remote_media=settings.allow_remote_media,
        via=settings.via,
        forwarded=settings.forwarded,
        show_content=settings.show_content,
        own_cors=_BY_UPSTREAM not in settings.cors_origins,
    )
