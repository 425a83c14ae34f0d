"""The relay: takes one request and sees to it that it is carried to its end, as plain ASGI.

Owns an exchange's place in the registry, and the name of its task. What happens on the way is
`carriage`'s.
"""

from __future__ import annotations

import trio

from proxy.http1.asgi import Message, Receive, Send
from proxy.http1.connection import ClientConnection
from proxy.relay.carriage import Authorize, Carriage
from proxy.relay.downstream import Downstream
from proxy.relay.relayed_request import RelayedRequest
from proxy.relay.settings import RelaySettings
from proxy.runtime.backend import Backend
from proxy.runtime.exchange import Exchange


class Relay:
    """Carries requests to the backend's engine and answers back, unchanged.

    Args:
        backend: The engine with its gates.
        settings: How to treat every request.
    """

    def __init__(self, backend: Backend, settings: RelaySettings) -> None:
        self._backend = backend
        self._settings = settings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Carry one request that may be carried as it is.

        Cancellation: as `carry`.
        """
        await self.carry(RelayedRequest.of(scope), scope, receive, send)

    async def carry(
        self,
        request: RelayedRequest,
        scope: Message,
        receive: Receive,
        send: Send,
        authorize: Authorize | None = None,
    ) -> None:
        """Carry one request to its end.

        Args:
            request: What is asked of llama-server; made of `scope`.
            scope: The request as it came.
            receive: Its body.
            send: Takes the reply.
            authorize: Redeems what the request is carried for, once it is read and found in order
                and before anything is asked of llama-server; None where it may be carried anyway.

        Cancellation: the exchange ends, its upstream is closed, its permit is back.
        """
        connection: ClientConnection = scope["state"]["connection"]
        exchange = Exchange(
            request.request_id, request.route.label, request.method, trio.current_time()
        )
        downstream = Downstream(
            send,
            connection,
            dialect=request.route.dialect,
            request_id=request.request_id,
            http_version=scope["http_version"],
            sent=exchange.sent,
            passing=exchange.passing,
        )
        trio.lowlevel.current_task().name = f"exchange {request.request_id} {request.route.label}"
        with self._backend.exchanges.open(exchange):
            carriage = Carriage(self._backend, self._settings, request, exchange, downstream)
            await carriage.run(connection, receive, authorize)
