"""Plays bytes through the framer, and writes down what came out so that h11 can read it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import h11

from proxy.core.errors import HttpError
from proxy.core.framing import (
    END_OF_REQUEST,
    NEED_DATA,
    BodyBytes,
    Limits,
    RequestFramer,
    RequestHead,
)


@dataclass
class Understood:
    """A request as the framer gave it out."""

    head: RequestHead
    payload: bytes = b""
    complete: bool = False


@dataclass
class Transcript:
    """What came of some bytes: requests, the last perhaps incomplete, and the fault, if any."""

    requests: list[Understood]
    fault: HttpError | None
    framer: RequestFramer


def play(pieces: Iterable[bytes], limits: Limits) -> Transcript:
    """Give the framer the pieces one by one; each request is answered when it is complete."""
    transcript = Transcript([], None, RequestFramer(limits))
    for piece in pieces:
        transcript.framer.receive_data(piece)
        try:
            _take_events(transcript)
        except HttpError as fault:
            transcript.fault = fault
            break
    return transcript


def _take_events(transcript: Transcript) -> None:
    framer, requests = transcript.framer, transcript.requests
    while (event := framer.next_event()) is not NEED_DATA:
        if isinstance(event, RequestHead):
            if event.refusal is None:
                requests.append(Understood(event))
        elif isinstance(event, BodyBytes):
            assert event.data
            requests[-1].payload += event.data
        else:
            assert event is END_OF_REQUEST
            requests[-1].complete = True
            if not requests[-1].head.keep_alive:
                return
            framer.start_next_request()


def written_head(head: RequestHead) -> bytes:
    """Return the head as the bytes of a request."""
    lines = [b"%b %b HTTP/%b" % (head.method, head.target, head.version)]
    lines += [b"%b: %b" % field for field in head.headers]
    return b"\r\n".join((*lines, b"", b""))


def written(request: Understood) -> bytes:
    """Return the request as bytes, a chunked body as one chunk."""
    body = request.payload
    if request.head.chunked:
        body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
        body += b"0\r\n\r\n" if request.complete else b""
    return written_head(request.head) + body


@dataclass
class ReadByH11:
    """The first request in some bytes, as h11 reads it, and the bytes after it."""

    head: h11.Request
    payload: bytes
    complete: bool
    rest: bytes


def read_first_by_h11(data: bytes) -> ReadByH11:
    """Return the first request in `data`; h11 must not refuse its head."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(data)
    head = reader.next_event()
    assert isinstance(head, h11.Request)
    payload = b""
    while isinstance(event := reader.next_event(), h11.Data):
        payload += event.data
    return ReadByH11(head, payload, isinstance(event, h11.EndOfMessage), reader.trailing_data[0])


def read_by_h11(request: Understood) -> tuple[h11.Request, bytes]:
    """Return head and payload as h11 reads them; it must find the same payload and end."""
    read = read_first_by_h11(written(request))
    assert (read.payload, read.complete, read.rest) == (request.payload, request.complete, b"")
    return read.head, read.payload
