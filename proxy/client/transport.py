"""httpx, and the only module that knows it: requests out, the bytes of one answer in.

Owns the connections, of which every request has its own, gone with it, and the seam where httpx's
errors become ours. Knows nothing of what is asked or what an answer means.

httpx hands a body out as async generators within generators. One that is left before its end waits
for the garbage collector, with a warning; so a body is read on after its connection was closed,
which ends them all (`Answer.aclose`).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress

import httpx
import trio

from proxy.client.errors import StreamBroken, StreamFailed, StreamUnanswered

# A machine that is there answers a connection at once; one that drops packets never does.
_CONNECT_S = 5.0
# As long as the proxy waits for the next bytes of a body.
_WRITE_S = 30.0
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
_FOREIGN = (httpx.HTTPError, httpx.InvalidURL, UnicodeError)
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)

_UNREACHABLE = "The server could not be reached."
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
        with _translated(_FOREIGN, StreamBroken(_BROKE)):
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
            with suppress(*_FOREIGN, httpx.StreamError):
                async for _ in self._pieces:
                    pass


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
        with (
            _translated(_FOREIGN, StreamUnanswered(_LEFT)),
            _translated(_NO_CONNECTION, StreamUnanswered(_UNREACHABLE)),
        ):
            request = self._client.build_request(method, url, headers=sent, content=body)
            return Answer(await self._client.send(request, stream=True))


@contextmanager
def _translated(foreign: tuple[type[Exception], ...], error: StreamFailed) -> Iterator[None]:
    """Raise `error` in place of `foreign` ones, also of those that come in a group."""
    found: BaseExceptionGroup[Exception] | None = None
    try:
        yield
    except* foreign as group:
        found = group
    if found is not None:
        raise error from _first(found)


def _first(group: BaseExceptionGroup[Exception]) -> BaseException:
    found: BaseException = group
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
