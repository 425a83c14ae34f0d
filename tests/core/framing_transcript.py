"""Plays bytes through the framer, and what it hands on through h11, as any next reader."""

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
    """A request as the framer gave it out; `framed` is its body, as it is handed on."""

    head: RequestHead
    framed: bytes = b""
    payload_length: int = 0
    complete: bool = False

    @property
    def closes(self) -> bool:
        """Whether no request may follow: said so, or HTTP/1.0, which h11 never keeps open."""
        options = [value for name, value in self.head.headers if name.lower() == b"connection"]
        return self.head.version == b"1.0" or b"close" in b",".join(options).lower()


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
            requests.append(Understood(event))
        elif isinstance(event, BodyBytes):
            requests[-1].framed += event.data
            requests[-1].payload_length += event.payload_length
        else:
            assert event is END_OF_REQUEST
            requests[-1].complete = True
            if requests[-1].closes:
                return
            framer.start_next_request()


def read_by_h11(request: Understood) -> tuple[h11.Request, bytes]:
    """Return head and payload as h11 reads them; a complete request must end for it there too."""
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(request.head.raw + request.framed)
    head = reader.next_event()
    assert isinstance(head, h11.Request)
    payload = b""
    while isinstance(event := reader.next_event(), h11.Data):
        payload += event.data
    assert isinstance(event, h11.EndOfMessage) == request.complete
    assert reader.trailing_data == (b"", False)
    assert len(payload) == request.payload_length
    return head, payload
