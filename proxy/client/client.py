"""The client: a chat as a stream of events, over the fast path where there is one.

Owns the choice of the way. The fast path is a shortcut, and whatever is wrong with it is nobody's
error: until the first byte of its stream has come, the same is asked of the main path instead. From
then on nothing is repeated, for the answer has begun; what happens is the caller's to know.

Nothing here yields within a nursery or a cancel scope, so that the blocks may be left in any way.
"""

from __future__ import annotations

import json
import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus

import trio

from proxy.client.answers import NoOffer, Offer, read_offer, read_refusal
from proxy.client.errors import StreamFailed
from proxy.client.stream import ChatStream, StreamPath
from proxy.client.transport import Answer, Transport
from proxy.client.urls import Server, is_visible
from proxy.core.errors import ConfigError
from proxy.core.sse import MAX_EVENT_BYTES

logger = logging.getLogger("proxy.client")

_OFFER_PATH = "/api/inference/stream-url"
_CHAT_PATH = "/v1/chat/completions"
# An offer is some 200 bytes.
_MAX_OFFER_BYTES = 16 * 1024
# An error is a sentence, after a crash loop with some lines of llama-server's log.
_MAX_REFUSAL_BYTES = 256 * 1024
# How long the rest of an error may take once its status is here.
_REFUSAL_S = 5.0


class ProxyClient:
    """A client of one proxy, as `open_client` yields it; any number of streams at once."""

    def __init__(
        self,
        transport: Transport,
        server: Server,
        api_key: str | None,
        *,
        negotiation_timeout_s: float,
        max_event_bytes: int,
    ) -> None:
        self._transport = transport
        self._server = server
        self._credentials = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._negotiation_timeout_s = negotiation_timeout_s
        self._max_event_bytes = max_event_bytes

    def __repr__(self) -> str:
        return f"<ProxyClient of {self._server.url}>"

    @asynccontextmanager
    async def stream_chat(
        self, body: Mapping[str, object] | None = None, /, **fields: object
    ) -> AsyncIterator[ChatStream]:
        """Ask for a chat, and enter the block when its stream has begun.

        Leaving the block closes the connection at once, which frees llama-server's slot.

        Args:
            body: The body of `/v1/chat/completions`; `stream` is always true.
            fields: Members of the body; where `body` has them too, these count.

        Yields:
            The events.

        Raises:
            StreamUnanswered: Nobody answered.
            StreamRefused: The server answered an error.
            StreamBroken: It answered, and then not a byte.
            ValueError: The body has a value that JSON has not, such as NaN.
            TypeError: The same, such as a set.

        Cancellation: the connection is closed, whatever it was waiting for.
        """
        asked = {**(body or {}), **fields, "stream": True}
        stream = await self._open(json.dumps(asked, allow_nan=False).encode())
        try:
            yield stream
        finally:
            await stream.aclose()

    async def _open(self, content: bytes) -> ChatStream:
        try:
            offer = await self._negotiate()
            token = {"X-Stream-Token": offer.token}
            return await self._begin("fast", offer.stream_url, token, content)
        except (NoOffer, StreamFailed) as error:
            logger.debug("The fast path is not used: %s", error)
        return await self._begin("main", self._server.url + _CHAT_PATH, self._credentials, content)

    async def _negotiate(self) -> Offer:
        """Ask where the fast path is.

        Raises:
            NoOffer: There is none, or it took too long to say so.
            StreamFailed: The answer did not come, or broke.
        """
        with trio.move_on_after(self._negotiation_timeout_s):
            offer = read_offer(await self._ask_for_offer())
            objection = self._server.objection_to(offer.stream_url)
            if objection is not None:
                raise NoOffer(objection)
            return offer
        raise NoOffer("the server did not say in time where it is")

    async def _ask_for_offer(self) -> bytes:
        headers = {"Accept": "application/json", **self._credentials}
        answer = await self._transport.ask("GET", self._server.url + _OFFER_PATH, headers)
        try:
            if answer.status != HTTPStatus.OK:
                raise NoOffer(f"the server answered {answer.status}")
            return await _read(answer, _MAX_OFFER_BYTES)
        finally:
            await answer.aclose()

    async def _begin(
        self, path: StreamPath, url: str, credentials: Mapping[str, str], content: bytes
    ) -> ChatStream:
        """Post `content` and wait for the first byte of a stream.

        Raises:
            StreamFailed: It did not come.
        """
        headers = {
            "Accept": "text/event-stream",
            "Content-Type": "application/json",
            **credentials,
        }
        answer = await self._transport.ask("POST", url, headers, content)
        try:
            if not _is_stream(answer):
                # Nobody reads why the fast path refuses, and nobody waits for it.
                body = b"" if path == "fast" else await _read_refusal(answer)
                raise read_refusal(answer.status, answer.headers, body)
            stream = ChatStream(answer, path, self._max_event_bytes)
            await stream.wait_begun()
        except BaseException:
            await answer.aclose()
            raise
        return stream


@asynccontextmanager
async def open_client(
    url: str,
    api_key: str | None = None,
    *,
    verify: bool | ssl.SSLContext | None = None,
    negotiation_timeout_s: float = 5.0,
    max_event_bytes: int = MAX_EVENT_BYTES,
) -> AsyncIterator[ProxyClient]:
    """Make a client of a proxy; nothing is asked before a stream is. Leaving closes every stream.

    Args:
        url: The proxy's base URL, such as a `ProxyServer`'s `url`.
        api_key: A key of its; None where it wants none.
        verify: How certificates are verified: True, by the usual authorities; a context, as that
            says; False, not at all. None: as True, but not at all where `url` is this machine.
        negotiation_timeout_s: How long the proxy may take to say where the fast path is, in
            seconds; after that the main path is used.
        max_event_bytes: How large one event may be.

    Yields:
        The client.

    Raises:
        ConfigError: When the URL or the key cannot be used.
    """
    if api_key is not None and not is_visible(api_key):
        raise ConfigError("The API key has to be ASCII without blanks: it goes into a header.")
    server = Server.at(url, verify_by_host=verify is None)
    transport = Transport(not server.verify_by_host if verify is None else verify)
    try:
        yield ProxyClient(
            transport,
            server,
            api_key,
            negotiation_timeout_s=negotiation_timeout_s,
            max_event_bytes=max_event_bytes,
        )
    finally:
        await transport.aclose()


def _is_stream(answer: Answer) -> bool:
    kind = answer.headers.get("Content-Type", "").partition(";")[0]
    return answer.status == HTTPStatus.OK and kind.strip().lower() == "text/event-stream"


async def _read(answer: Answer, max_bytes: int) -> bytes:
    """Read a body to its end, or a little beyond `max_bytes`."""
    found = bytearray()
    while len(found) <= max_bytes and (data := await answer.receive_some()):
        found += data
    return bytes(found)


async def _read_refusal(answer: Answer) -> bytes:
    """Read the body of an error; nothing where it breaks, for the status is known."""
    with trio.move_on_after(_REFUSAL_S):
        try:
            return await _read(answer, _MAX_REFUSAL_BYTES)
        except StreamFailed:
            return b""
    return b""
