"""Event streams in chunks, cut in every way that a server may cut them, and h11 to read them back.

Owns no test: the strategies are drawn by those of the passage and of the pump.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate, pairwise

import h11
from hypothesis import strategies as st

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LAST_CHUNK = b"0\r\n\r\n"

# What an event may be made of that could be taken for framing.
_WORDS = st.sampled_from(
    [b"", b"x", b"data", b"0", b"5;", b": ", b"{}", b"\t", b"\xc3\xa9", b"a" * 30]
)
_LINES = st.lists(_WORDS, min_size=1, max_size=3).map(lambda words: b"data: " + b"".join(words))
EVENTS = st.lists(_LINES, min_size=1, max_size=2).map(lambda lines: b"\n".join(lines) + b"\n\n")

_EXTENSIONS = st.sampled_from([b"", b"", b"", b";x", b';q="0 z"', b"  "])
_SPELLINGS = st.sampled_from([b"%x", b"%x", b"%x", b"%X", b"00%x"])
_ENDS = st.sampled_from([LAST_CHUNK, LAST_CHUNK, b"000;x\r\n\r\n", b"0\r\nX-A: b\r\nY: c\r\n\r\n"])


@dataclass(frozen=True, slots=True)
class ChunkedStream:
    """An event stream, and the chunks in which a server sends it."""

    events: tuple[bytes, ...]
    chunks: tuple[bytes, ...]

    @property
    def payload(self) -> bytes:
        """All events."""
        return b"".join(self.events)

    @property
    def encoded(self) -> bytes:
        """All chunks, the last one and the trailers too."""
        return b"".join(self.chunks)

    @property
    def whole(self) -> set[bytes]:
        """Every beginning of the stream that is whole events."""
        return set(accumulate(self.events, initial=b""))


def chunk(payload: bytes, *, spelling: bytes = b"%x", extension: bytes = b"") -> bytes:
    """Return one chunk."""
    return spelling % len(payload) + extension + b"\r\n" + payload + b"\r\n"


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    """Cut `data`, at each of `cuts` that is in it."""
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in pairwise(edges)]


@st.composite
def chunked_streams(draw: st.DrawFn, kind: st.SearchStrategy[bytes] = EVENTS) -> ChunkedStream:
    """Draw a stream: a chunk for each event as llama-server has it, or cut in other ways."""
    events = draw(st.lists(kind, min_size=1, max_size=6))
    payload, ends = b"".join(events), [*accumulate(map(len, events))]
    anywhere = st.sets(st.sampled_from(ends) | st.integers(1, len(payload)))
    cuts = draw(st.just(ends) | st.lists(st.sampled_from(ends)) | anywhere)
    chunks = [
        chunk(piece, spelling=draw(_SPELLINGS), extension=draw(_EXTENSIONS))
        for piece in split(payload, cuts)
    ]
    return ChunkedStream(tuple(events), (*chunks, draw(_ENDS)))


@st.composite
def pieces_of(draw: st.DrawFn, stream: ChunkedStream) -> list[bytes]:
    """Draw how its bytes arrive: chunk by chunk, some together, or cut anywhere."""
    ends = [*accumulate(map(len, stream.chunks))]
    anywhere = st.sets(st.sampled_from(ends) | st.integers(0, ends[-1]))
    return split(stream.encoded, draw(st.just(ends) | st.lists(st.sampled_from(ends)) | anywhere))


@dataclass(frozen=True, slots=True)
class ReadByH11:
    """What h11 makes of a response's body, and the bytes behind it."""

    payload: bytes
    complete: bool
    refused: bool
    rest: bytes


def read_by_h11(body: bytes, fields: bytes = CHUNKED, *, closed: bool = False) -> ReadByH11:
    """Read a response with that body as h11's client does.

    Args:
        body: As it is framed.
        fields: Those of the head, each with its CRLF.
        closed: Whether the connection ends behind it.
    """
    reader = h11.Connection(h11.CLIENT)
    reader.send(h11.Request(method=b"GET", target=b"/", headers=[(b"Host", b"h")]))
    reader.send(h11.EndOfMessage())
    reader.receive_data(b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n")
    assert isinstance(reader.next_event(), h11.Response)
    payload = b""
    try:
        if body:
            reader.receive_data(body)
        if closed:
            reader.receive_data(b"")
        while isinstance(event := reader.next_event(), h11.Data):
            payload += event.data
    except h11.RemoteProtocolError:
        return ReadByH11(payload, complete=False, refused=True, rest=b"")
    return ReadByH11(
        payload, isinstance(event, h11.EndOfMessage), refused=False, rest=reader.trailing_data[0]
    )
