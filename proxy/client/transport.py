"""httpx, and the only module that knows it: requests out, the bytes of one answer in.

Owns the connections, of which every request has its own, gone with it, and the seam where httpx's
errors become ours. Knows nothing of what is asked or what an answer means.

httpx takes bodies and hands them out as async generators, within generators. One that is left
before its end waits for the garbage collector, with a warning. So what is sent is an iterator of
our own, and what is received is read on after its connection was closed, which ends them all.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Self

import httpx
import trio

from proxy.client.errors import StreamBroken, StreamFailed, StreamUnanswered

# A machine that is there answers a connection at once; one that drops packets never does.
_CONNECT_S = 5.0
# For each piece of a body; the proxy waits as long for the next one.
_WRITE_S = 30.0
_PIECE_BYTES = 64 * 1024
# Closing a socket waits for nobody; this is for the day on which that is not true.
_CLOSE_S = 5.0

_TIMEOUT = httpx.Timeout(
    connect=_CONNECT_S,
    write=_WRITE_S,
    # Nothing comes while a prompt is read, which may take minutes: the caller has a cancel scope.
    read=None,
    pool=None,
)
# A pool with a bound loses places to cancelled requests (httpcore issue 1093), and a connection
# that is kept may be closed by its server in the moment of its next use.
_LIMITS = httpx.Limits(max_connections=None, max_keepalive_connections=0)
# A host name that cannot be one is found out by the resolver: `UnicodeError`, of the IDNA codec.
_UNUSABLE = (httpx.InvalidURL, UnicodeError)
_FOREIGN = (httpx.HTTPError, *_UNUSABLE)
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout, *_UNUSABLE)

_UNREACHABLE = "The server could not be reached."
_UNVERIFIED = (
    "The server's certificate could not be verified. If it is by an authority of your own, open the"
    " client with a context that knows it (`verify`)."
)
_LEFT = "The connection was lost, or carried no HTTP, before the answer began."
_BROKE = "The connection broke before the stream was complete."


class Answer:
    """One answer, whose body is still on its way.

    Attributes:
        status: Its status.
        headers: Its header, by name in any case.
    """

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._response = response
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()

    async def receive_some(self) -> bytes:
        """Return the next bytes of the body; none at its end.

        Raises:
            StreamBroken: The connection was lost.

        Cancellation: the connection is closed, and what follows is an end.
        """
        with _translated(_broken):
            async for piece in self._pieces:
                if piece:
                    return piece
        return b""

    async def aclose(self) -> None:
        """Close the connection at once, wherever the body is.

        Cancellation: it is closed nevertheless; this is shielded, and bounded.
        """
        with trio.move_on_after(_CLOSE_S, shield=True):
            await self._response.aclose()
            # Comes to what has arrived already, which is little, and then to the closed socket.
            # `RuntimeError`: another task is reading; the close has woken it, and it goes there.
            with suppress(*_FOREIGN, RuntimeError):
                async for _ in self._pieces:
                    pass


class _Body(httpx.AsyncByteStream):
    """A body on its way out, once."""

    def __init__(self, body: bytes) -> None:
        self._left = memoryview(body)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece, self._left = self._left[:_PIECE_BYTES], self._left[_PIECE_BYTES:]
        if not piece:
            raise StopAsyncIteration
        return bytes(piece)


class Transport:
    """Makes requests, any number at once.

    Args:
        verify: What certificates are verified with; True: the usual authorities, False: not at all.
    """

    def __init__(self, verify: bool | ssl.SSLContext) -> None:
        # No proxy, certificate or password that the environment names: who opens a client says
        # where it goes and with what.
        self._client = httpx.AsyncClient(
            verify=verify, trust_env=False, timeout=_TIMEOUT, limits=_LIMITS
        )

    async def aclose(self) -> None:
        """Close every connection.

        Cancellation: they are closed nevertheless; this is shielded, and bounded.
        """
        with trio.move_on_after(_CLOSE_S, shield=True):
            await self._client.aclose()

    async def ask(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        """Send a request and return the answer when its head is here; the caller closes it.

        Raises:
            StreamUnanswered: There is none.

        Cancellation: the connection is closed.
        """
        # What comes packed could be of any size when it is unpacked.
        sent = {"Accept-Encoding": "identity", **headers}
        with _translated(_unanswered):
            request = self._client.build_request(method, url, headers=sent, content=body)
            request.stream = _Body(body or b"")
            return Answer(await self._client.send(request, stream=True))


@contextmanager
def _translated(ours: Callable[[Exception], StreamFailed]) -> Iterator[None]:
    """Raise our error in place of httpx's, also of those that come in a group."""
    found: BaseExceptionGroup[Exception] | None = None
    try:
        yield
    except* _FOREIGN as group:
        found = group
    if found is not None:
        error = _first(found)
        raise ours(error) from error


def _first(group: BaseExceptionGroup[Exception]) -> Exception:
    found = group.exceptions[0]
    return _first(found) if isinstance(found, BaseExceptionGroup) else found


def _broken(_: Exception) -> StreamFailed:
    return StreamBroken(_BROKE)


def _unanswered(error: Exception) -> StreamFailed:
    if not isinstance(error, _NO_CONNECTION):
        return StreamUnanswered(_LEFT)
    return StreamUnanswered(_UNVERIFIED if _is_of_certificate(error) else _UNREACHABLE)


def _is_of_certificate(error: BaseException | None) -> bool:
    """Tell what httpx's own text does not: whether OpenSSL refused the certificate."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
