"""One webhook as one request: httpx, and the only module of this package that knows it.

Owns the name look-up, the check of what it found, the connection and the seam where foreign errors
become ours. Knows nothing of predictions, of when one is sent or whether it is sent again.

A name is looked up once for each request, and the request goes to the addresses that were checked:
asked a second time, a hostile name server would answer with one of ours. The name is in `Host` and
in the TLS handshake only. Redirects are not followed, as their target is another name.

Importing httpx takes a while: whoever imports this module does so in a worker thread, when there is
something to send.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, Self

import httpx
import trio

from proxy._version import __version__
from proxy.core.predictions.webhook_addresses import is_allowed_address
from proxy.core.predictions.webhooks import WebhookUrl

_PIECE_BYTES = 64 * 1024
# An answer's body is nothing to us, and the largest that makes sense is the page of an error.
_MAX_ANSWER_BYTES = 64 * 1024
# Closing a socket waits for nobody; this is for the day on which that is not true.
_CLOSE_S = 5.0
# A pool with a bound loses places to cancelled requests (httpcore issue 1093).
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class Unanswered(Exception):
    """There was no answer; its text names no more than the kind of failure."""


class AddressRefused(Exception):
    """The name leads to an address that webhooks may not be sent to."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a receiver is waited for, in seconds.

    Attributes:
        connect_s: For a connection to one of its addresses.
        answer_s: From the name look-up to the head of the answer. Cog's is 30.
        finish_s: For the rest of the answer: a server that is cut off in it may take the request
            for failed.
    """

    connect_s: float = 5.0
    answer_s: float = 30.0
    finish_s: float = 5.0


@dataclass(frozen=True, slots=True)
class WebhookRules:
    """How webhooks are sent; the operator's.

    Attributes:
        token: What receivers know us by; None for nothing. Secret.
        allow_private: Whether they may go to this machine and to private networks.
        tls: What receivers' certificates are verified with; None: the usual authorities and those
            that this machine trusts.
        patience: How long a receiver is waited for.
    """

    token: str | None = field(default=None, repr=False)
    allow_private: bool = False
    tls: ssl.SSLContext | None = None
    patience: Patience = Patience()


class _Closable(Protocol):
    async def aclose(self) -> None: ...


class _Body(httpx.AsyncByteStream):
    """A body on its way out, once; httpx's own is a generator, which a cancellation leaves open."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece, self._left = self._left[:_PIECE_BYTES], self._left[_PIECE_BYTES:]
        if not piece:
            raise StopAsyncIteration
        return bytes(piece)


class WebhookClient:
    """Sends to one receiver, one request at a time.

    Args:
        url: Where it is.
        rules: How webhooks are sent.
        trace: `traceparent` and `tracestate` of the request that made the prediction, if any.
    """

    def __init__(self, url: WebhookUrl, rules: WebhookRules, trace: Mapping[str, str]) -> None:
        self._url = url
        self._rules = rules
        self._headers = {
            "Host": url.authority,
            "Accept": "*/*",
            "User-Agent": f"trio-llama-proxy/{__version__}",
            "Content-Type": "application/json",
            **trace,
        }
        if rules.token is not None:
            self._headers["Authorization"] = f"Bearer {rules.token}"

    async def post(self, body: bytes) -> int:
        """Send JSON and return the status of the answer.

        Raises:
            AddressRefused: The receiver is where webhooks may not go.
            Unanswered: There was no connection, or no answer in time.

        Cancellation: the connection is closed.
        """
        opened: list[_Closable] = []
        try:
            with trio.fail_after(self._rules.patience.answer_s):
                response = await self._ask(body, opened)
            with trio.move_on_after(self._rules.patience.finish_s):
                await _let_finish(response)
        except (trio.TooSlowError, OSError, UnicodeError, httpx.TransportError) as error:
            raise Unanswered(type(error).__name__) from error
        else:
            return response.status_code
        finally:
            # httpx leaves a connection open that is cancelled in its TLS handshake.
            with trio.move_on_after(_CLOSE_S, shield=True):
                for stream in opened:
                    await stream.aclose()

    async def _ask(self, body: bytes, opened: list[_Closable]) -> httpx.Response:
        """Return the first answer that one of the addresses gives."""
        tls = self._rules.tls
        if tls is None and self._url.scheme == "https":
            tls = await trio.to_thread.run_sync(_usual_tls)
        *others, last = await self._addresses()
        for address in others:
            # Nothing was sent yet, so the next one cannot get it twice.
            with suppress(httpx.ConnectError, httpx.ConnectTimeout):
                return await self._ask_at(address, body, tls, opened)
        return await self._ask_at(last, body, tls, opened)

    async def _addresses(self) -> list[str]:
        found = await trio.socket.getaddrinfo(
            self._url.host, self._url.port, type=trio.socket.SOCK_STREAM
        )
        addresses = [str(entry[4][0]) for entry in found]
        # All of them: a name that has both kinds is made for an attack, or by mistake.
        if not all(is_allowed_address(each, self._rules.allow_private) for each in addresses):
            raise AddressRefused
        return addresses

    async def _ask_at(
        self,
        address: str,
        body: bytes,
        tls: ssl.SSLContext | None,
        opened: list[_Closable],
    ) -> httpx.Response:
        async def note(event: str, info: Mapping[str, _Closable]) -> None:
            if event == "connection.connect_tcp.complete":
                opened.append(info["return_value"])

        url = self._url
        patience = self._rules.patience
        request = httpx.Request(
            "POST",
            httpx.URL(scheme=url.scheme, host=address, port=url.port, raw_path=url.target.encode()),
            headers={**self._headers, "Content-Length": str(len(body))},
            stream=_Body(body),
            extensions={
                "timeout": {"connect": patience.connect_s},
                "sni_hostname": url.host,
                "trace": note,
            },
        )
        # A bare transport knows no redirects, cookies or proxies: one that the environment names
        # would do its own look-up. Only plain http comes here without a context.
        transport = httpx.AsyncHTTPTransport(verify=tls or False, limits=_LIMITS)
        return await transport.handle_async_request(request)


@functools.cache
def _usual_tls() -> ssl.SSLContext:
    """Return a context that knows the usual authorities, and those that this machine trusts."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


async def _let_finish(response: httpx.Response) -> None:
    """Read what little a receiver may say; whatever becomes of it, it has answered."""
    read = 0
    with suppress(httpx.TransportError):
        async for piece in response.aiter_raw():
            read += len(piece)
            if read > _MAX_ANSWER_BYTES:
                # Read on: the end that comes now ends the generators under httpx, too.
                await response.aclose()
