"""The module's event-stream parser: it finds what `core.sse` finds, wherever the bytes are cut."""

from __future__ import annotations

import json
from random import Random
from typing import Any

from proxy.core.sse import EventDecoder
from tests.browser.chromium import Page
from tests.fakes.scripted_site import ScriptedSite

# Every cut in two, also with nothing between; every cut in three at neighbouring bytes (the middle
# of a character or a line end comes alone); byte by byte. What is the same is sent back once.
_CUT = """
const { EventParser } = await import("/fastpath.js");
const parse = (...pieces) => {
    const parser = new EventParser();
    return JSON.stringify(pieces.flatMap((piece) => parser.feed(piece)));
};
return streams.map((stream) => {
    const bytes = Uint8Array.from(stream);
    const found = new Set([parse(bytes), parse(...stream.map((byte) => Uint8Array.of(byte)))]);
    for (let cut = 0; cut <= bytes.length; cut += 1) {
        const [start, end] = [bytes.subarray(0, cut), bytes.subarray(cut)];
        found.add(parse(start, new Uint8Array(), end));
        found.add(parse(start, end.subarray(0, 1), end.subarray(1)));
    }
    return [...found];
});
"""

STREAMS = {
    "nothing": b"",
    "one event": b"data: a\n\n",
    "no blank after the colon": b"data:a\n\n",
    "only one blank is removed": b"data:  a\n\n",
    "the first colon divides": b"data: a: b\n\n",
    "data lines are joined": b"data: a\ndata: b\n\n",
    "a name alone has an empty value": b"data\n\n",
    "two empty lines": b"data:\ndata:\n\n",
    "an unfinished event is none": b"data: a\n",
    "an unfinished line is none": b"data: a",
    "a type without data is lost": b"event: e\n\ndata: a\n\n",
    "type": b"event: e\ndata: a\n\n",
    "empty type": b"event: e\nevent:\ndata: a\n\n",
    "comments": b": hello\n\ndata: a\n:\n\n",
    "unknown fields": b"odd: 1\nDATA: x\n data: y\ndata : z\ndata: a\n\n",
    "BOM": b"\xef\xbb\xbfdata: a\n\n",
    "two BOMs": b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    "a BOM later on is a character": b"\n\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbf\n\n",
    "BOM alone": b"\xef\xbb\xbf\n\ndata: a\n\n",
    "CR, LF and CR LF": b"data: a\r\rdata: b\r\n\r\ndata: c\n\ndata: d\r\ndata: e\n\r\n\r",
    "CR LF CR": b"data: a\r\n\rdata: b\r\n\r",
    "other ends are none": b"data: a\x0b\x0cb\x85\xc2\x85\xe2\x80\xa8\xe2\x80\xa9c\n\n",
    "an id lasts": b"id: 1\ndata: a\n\ndata: b\n\n",
    "an id is reset": b"id: 1\nid\ndata: a\n\n",
    "an id without data counts": b"id: 1\n\ndata: a\n\n",
    "no NUL in an id": b"id: 1\nid: a\0b\ndata: a\0b\n\n",
    "retry is ignored": b"retry: 20\ndata: a\n\n",
    "characters of two, three and four bytes": "data: \u00e9\u20ac\U0001f642\n\n".encode(),
    "malformed UTF-8": b"data: \xff\xc3(\xe2\x82(\xf0\x9f\x99(\xed\xa0\x80\xc0\xaf\n\n",
    "a character cut by a line end": b"data: \xe2\x82\ndata: \xf0\x9f\r\n\r\n",
    "a character cut by the end": b"data: a\n\ndata: \xe2\x82",
}

# What the grammar is made of, to be put together by chance.
_PIECES = [
    *(b"data", b"event", b"id", b":", b" ", b"\r", b"\n", b"\r\n", b"\n\n", b"\0", b"a"),
    *(b"\xef\xbb\xbf", b"\xe2\x82\xac", b"\xe2", b"\x82", b"\xf0\x9f\x99\x82", b"\xff"),
    b"data: x\n\n",
]


def expected(stream: bytes) -> list[dict[str, Any]]:
    """Return the events that the proxy's own decoder finds."""
    found = EventDecoder().feed(stream)
    return [{"event": each.event, "data": each.data, "id": each.id} for each in found]


async def parse(page: Page, site: ScriptedSite, *streams: bytes) -> list[list[Any]]:
    """Return, for each stream, what the page finds in it: each different answer once."""
    await page.open(site.url)
    found = await page.run(_CUT, streams=[list(stream) for stream in streams])
    return [[json.loads(answer) for answer in answers] for answers in found]


async def test_streams_of_the_table_give_the_same_events_wherever_they_are_cut(
    page: Page, site: ScriptedSite
) -> None:
    """One answer for every cut, and it is the oracle's; all at once, for a page takes its time."""
    found = await parse(page, site, *STREAMS.values())
    assert dict(zip(STREAMS, found, strict=True)) == {
        name: [expected(stream)] for name, stream in STREAMS.items()
    }


async def test_streams_made_by_chance_give_the_events_that_the_proxy_finds(
    page: Page, site: ScriptedSite
) -> None:
    """What nobody thought of; the same each time."""
    chance = Random(9_2)
    streams = [b"".join(chance.choices(_PIECES, k=24)) for _ in range(500)]
    found = await parse(page, site, *streams)
    for stream, answers in zip(streams, found, strict=True):
        assert answers == [expected(stream)], stream
    assert any(len(expected(stream)) > 2 for stream in streams)


async def test_cr_ends_an_event_at_once(page: Page, site: ScriptedSite) -> None:
    """It does not wait for the byte that might make it a CR LF."""
    ((events,),) = await parse(page, site, b"data: a\r\r")
    assert [event["data"] for event in events] == ["a"]
