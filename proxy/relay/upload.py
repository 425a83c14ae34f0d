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
from proxy.runtime.upstream import Field, UpstreamConnection


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
    method, target = request.method.encode(), _target(request, engine)
    fields = _fields(request, settings, engine)
    if request.body is not None:
        await upstream.send_whole(method, target, fields, request.body)
        return
    await upstream.send_head(method, target, fields)
    await _stream_body(receive, upstream)
    await upstream.send_end()


def _target(request: RelayedRequest, engine: Engine) -> bytes:
    return (engine.address.base_path + request.target).encode()


def _fields(request: RelayedRequest, settings: RelaySettings, engine: Engine) -> list[Field]:
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
    return [*fields, *_framing(request), (b"Connection", b"close")]


def _framing(request: RelayedRequest) -> list[Field]:
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
