"""What a framing probe is: the bytes that a client sends, and what becomes of each request in them.

A request ends as `Handled` (it is answered, with that status), `Refused` (an error reply of ours,
and the connection closed) or `Cut` (the bytes end before the request does: it is never acted upon).
What a probe does not list must not be answered: that would be a smuggled request.
"""

from __future__ import annotations

from dataclasses import dataclass

LENGTH_OF_CONTENT = 16
CONTENT = b'{"content":"hi"}'


@dataclass(frozen=True, slots=True)
class Handled:
    """A request that is taken, as it is handed on.

    Args:
        target: In origin-form, or `*`.
        method: As it came.
        host: The one Host that is handed on; None if there is none (HTTP/1.0).
        payload: The body without its framing.
        status: What the proxy's main listener answers; None where that is llama-server's business,
            and then only a 5xx would be wrong.
    """

    target: bytes = b"/livez"
    method: bytes = b"GET"
    host: bytes | None = b"localhost"
    payload: bytes = b""
    status: int | None = 200


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that is answered with an error of ours, after which the connection closes."""

    status: int = 400


@dataclass(frozen=True, slots=True)
class Cut:
    """A request that does not end before the client's bytes do.

    Args:
        target: Where its head is complete; None where not even that is.
    """

    target: bytes | None = None


Outcome = Handled | Refused | Cut


@dataclass(frozen=True, slots=True)
class Probe:
    """One row of the table.

    Args:
        name: What is special about the bytes.
        section: The number of the RFC, and its section that decides.
        data: What the client sends.
        outcomes: How each request in it ends, in order; only the last may be Refused or Cut.
    """

    name: str
    section: str
    data: bytes
    outcomes: tuple[Outcome, ...]


def head(*lines: bytes) -> bytes:
    """Return a head of these lines."""
    return b"".join(line + b"\r\n" for line in (*lines, b""))


def get(*fields: bytes, target: bytes = b"/livez", version: bytes = b"HTTP/1.1") -> bytes:
    """Return a GET request with a valid Host and these fields."""
    return head(b"GET " + target + b" " + version, b"Host: localhost", *fields)


def post(*fields: bytes, body: bytes = b"") -> bytes:
    """Return a POST request with a valid Host, these fields and this body."""
    line = b"POST /tokenize HTTP/1.1"
    return head(line, b"Host: localhost", b"Content-Type: application/json", *fields) + body


def chunked(body: bytes) -> bytes:
    """Return a POST request with this body, which is said to be chunked."""
    return post(b"Transfer-Encoding: chunked", body=body)


HANDLED = (Handled(),)
REFUSED = (Refused(),)
TOO_LARGE = (Refused(431),)
POSTED = (Handled(b"/tokenize", b"POST", payload=CONTENT),)
PLAIN_BODY = (b"Content-Length: %d" % LENGTH_OF_CONTENT,)
# One chunk with all of it, and the end.
CHUNK = b"10\r\n" + CONTENT + b"\r\n"
END = b"0\r\n\r\n"
SMUGGLED = get(target=b"/smuggled")


def elsewhere(
    target: bytes, method: bytes = b"GET", host: bytes | None = b"localhost", payload: bytes = b""
) -> tuple[Outcome, ...]:
    """Return the outcome of a request that is handed on unchanged and answered by llama-server."""
    return (Handled(target, method, host, payload, status=None),)
