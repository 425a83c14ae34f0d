"""The request on its way to llama-server: its head by the header policy, its body as it comes.

Owns what llama-server is sent. It never reads the answer and decides nothing about the request.
"""

from __future__ import annotations

import trio

from proxy.core import headers as header_policy
from proxy.http1.asgi import Receive
from proxy.relay.relayed_request import RelayedRequest
from proxy.relay.settings import RelaySettings
from proxy.runtime.backend import Engine
from proxy.runtime.upstream import UpstreamConnection


async def upload(
    request: RelayedRequest,
    settings: RelaySettings,
    engine: Engine,
    receive: Receive,
    upstream: UpstreamConnection,
) -> None:
    """Send the whole request.

    Raises:
        UpstreamFailed: The connection broke. llama-server may have answered and closed before it
            has read everything: then the answer counts.
        HttpError: The guard refused the rest of the body: too large, too slow, malformed.

    Cancellation: the connection is of no further use.
    """
    await _send_head(request, settings, engine, upstream)
    if request.body is not None:
        await upstream.send_data(request.body)
    else:
        await _stream_body(receive, upstream)
    await upstream.send_end()


async def _send_head(
    request: RelayedRequest,
    settings: RelaySettings,
    engine: Engine,
    upstream: UpstreamConnection,
) -> None:
    address = engine.address
    fields = header_policy.to_upstream(
        request.relayed_headers,
        authority=address.authority,
        # Empty for a moment after a crash: the connection is broken then, and will say so.
        api_key=engine.api_key or None,
        request_id=request.request_id,
        forward_conversation_id=settings.forward_conversation_id,
        via=settings.via,
        forwarded_for=request.client_host if settings.forwarded else None,
    )
    target = (address.base_path + request.target).encode()
    await upstream.send_head(
        request.method.encode(), target, [*fields, *_framing(request), (b"Connection", b"close")]
    )


def _framing(request: RelayedRequest) -> list[tuple[bytes, bytes]]:
    if request.body is not None:
        return [(b"Content-Length", str(len(request.body)).encode())]
    length = request.header(b"content-length")
    if length is not None:
        return [(b"Content-Length", length)]
    if request.header(b"transfer-encoding") is not None:
        return [(b"Transfer-Encoding", b"chunked")]
    return []


async def _stream_body(receive: Receive, upstream: UpstreamConnection) -> None:
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            # The client is gone, and whoever noticed has ended the exchange.
            await trio.sleep_forever()
        if message["body"]:
            await upstream.send_data(message["body"])
        more = message["more_body"]
