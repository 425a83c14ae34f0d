"""A request's head: read strictly, line by line, and normalised.

Owns the rules on the request line and on how a head is put together. Must never know of sockets,
routes, hosts that are allowed, or keys.

What is handed on is what was understood: one Host, an origin-form target, one spelling of each
length, and what follows from the fields for the connection. The application takes it as it is, and
`runtime.upstream` writes llama-server's head from it, so that neither has anything left to
understand differently. Statuses that RFC 9110 has and this project's table of errors lacks are
answered with the nearest that it has: 431 for 414, 400 for 405, 501 and 505.

Source: RFC 9112 sections 2.2, 3, 5 and 9.3; RFC 9110 sections 2.5, 9.1 and 9.3.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from proxy.core.errors import BodyTooLarge, HeadTooLarge, HttpError, InvalidRequest
from proxy.core.lines import TOKEN, LineReader, split_field_line
from proxy.core.request_fields import (
    Field,
    expects_continue,
    fields_to_hand_on,
    keeps_alive,
    read_body_length,
    read_host,
)
from proxy.core.request_limits import Limits
from proxy.core.request_target import read_target

_VERSION = re.compile(rb"HTTP/1\.([0-9])")

_LOWER_CASE = re.compile(rb"[a-z]")

_REFUSED_METHODS = {
    b"CONNECT": "This server does not open tunnels; CONNECT is not accepted.",
    # RFC 9110 section 9.3.8: its reply repeats the head, and credentials with it.
    b"TRACE": "This server does not repeat requests; TRACE is not accepted.",
}


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A head that was found valid, as it is handed on.

    Args:
        method: A token without lower-case letters; never CONNECT or TRACE.
        target: Origin-form, or `*` with OPTIONS.
        version: `1.1` or `1.0`.
        headers: Names spelt as they came, values without outer white space, in order. Exactly one
            Host, save in HTTP/1.0, where it may be missing. Nothing of an upgrade is left.
        content_length: What Content-Length says; None without one.
        chunked: Whether the body is chunked. If not, and without a length, there is no body.
        expects_continue: Whether the client may be waiting for `100 Continue` to send its body.
        keep_alive: Whether the client means to send another request on this connection.
        refusal: What it is to be answered with because its body is announced as too large; the
            length is then not told. None for a request that can be carried out.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: tuple[Field, ...]
    content_length: int | None
    chunked: bool
    expects_continue: bool
    keep_alive: bool
    refusal: HttpError | None = None


@dataclass(frozen=True, slots=True)
class _RequestLine:
    method: bytes
    target: bytes
    version: bytes
    authority: bytes | None


class HeadReader:
    """Reads one head; make a new one for the next request.

    Args:
        limits: Those of the listener.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._room = limits.max_head
        self._request_line: _RequestLine | None = None
        self._fields: list[Field] = []
        self._skipped_empty_line = False

    @property
    def untouched(self) -> bool:
        """Whether no line of the head was read yet; an empty line before it is none."""
        return self._request_line is None

    def read(self, source: LineReader) -> RequestHead | None:
        """Consume whole lines and return the head once it is complete, else None.

        Raises:
            InvalidRequest: The head is malformed, or asks for what this server does not do.
            HeadTooLarge: It is over a limit.
        """
        while (line := source.take_line(self._room, _head_too_large)) is not None:
            self._room -= len(line) + 2
            if self._request_line is None:
                self._read_first(line)
            elif line:
                self._read_field(line)
            else:
                return _assemble(self._request_line, self._fields, self._limits)
        return None

    def _read_first(self, line: bytes) -> None:
        # RFC 9112 section 2.2: SHOULD ignore at least one empty line before the request line, for
        # clients that send one after a body. One it is: more are no request.
        if not line and not self._skipped_empty_line:
            self._skipped_empty_line = True
            return
        self._request_line = _read_request_line(line, self._limits.max_target)

    def _read_field(self, line: bytes) -> None:
        most = self._limits.max_headers
        if len(self._fields) == most:
            raise HeadTooLarge(f"The request has more than {most} header lines; send fewer.")
        self._fields.append(split_field_line(line))


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge("The request line and headers are larger than this server accepts.")


def _read_request_line(line: bytes, max_target: int) -> _RequestLine:
    parts = line.split(b" ")
    # Two parts are HTTP/0.9, four a target with a space in it. RFC 9112 section 3.2: no
    # autocorrection.
    if len(parts) != 3 or not parts[1]:
        raise InvalidRequest(
            "The request line must be a method, a target and HTTP/1.1 with one space between them."
        )
    method, target, protocol = parts
    # First, for somebody who speaks HTTP/2 to us is best told just that.
    version = _read_version(protocol)
    _check_method(method)
    if len(target) > max_target:
        raise HeadTooLarge(f"The request target is longer than {max_target} bytes; shorten it.")
    origin_form, authority = read_target(method, target)
    return _RequestLine(method, origin_form, version, authority)


def _check_method(method: bytes) -> None:
    if TOKEN.fullmatch(method) is None:
        raise InvalidRequest("The request method has a character that methods cannot have.")
    # RFC 9110 section 9.1: methods are case-sensitive, `get` is not GET. Software that makes it
    # GET takes for safe or unsafe what others do not.
    if _LOWER_CASE.search(method) is not None:
        raise InvalidRequest("The request method has lower-case letters; write it as in GET.")
    if method in _REFUSED_METHODS:
        raise InvalidRequest(_REFUSED_METHODS[method])


def _read_version(protocol: bytes) -> bytes:
    found = _VERSION.fullmatch(protocol)
    if found is None:
        raise InvalidRequest("This listener speaks HTTP/1.1 and HTTP/1.0, and nothing else.")
    # RFC 9110 section 2.5: a higher minor version is processed as the highest one that we know.
    return b"1.0" if found[1] == b"0" else b"1.1"


def _assemble(line: _RequestLine, fields: list[Field], limits: Limits) -> RequestHead:
    host = read_host(fields, line.version, line.authority)
    refusal: HttpError | None = None
    try:
        length, chunked = read_body_length(fields, line.version, limits)
    except BodyTooLarge as error:
        length, chunked, refusal = None, False, error
    expects = expects_continue(fields, line.version)
    return RequestHead(
        method=line.method,
        target=line.target,
        version=line.version,
        headers=fields_to_hand_on(fields, line.version, host, length),
        content_length=length,
        chunked=chunked,
        # Without a body nobody waits, and a 100 would come after the answer.
        expects_continue=expects and (chunked or bool(length)),
        keep_alive=keeps_alive(fields, line.version),
        refusal=refusal,
    )
