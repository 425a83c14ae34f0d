"""Which streams `streamChat` takes for whole, and what it says of the others: once, and typed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.chat import begin, chat, first_event, hasten, outcome
from tests.browser.chromium import Page
from tests.browser.streams import DONE, ONE, PATHS, TWO, asked_for, data, use
from tests.fakes.scripted_site import (
    End,
    ScriptedSite,
    stream,
)

ERROR = {"code": 502, "message": "It crashed.", "type": "upstream_error", "request_id": "r2"}


REST = pytest.mark.parametrize(
    "rest", [b"", b"data: [DONE]\n", b"data: [DO"], ids=["between", "unfinished", "in the middle"]
)


@pytest.mark.parametrize("path", PATHS)
@REST
async def test_connection_that_is_lost_is_an_error_and_nothing_is_repeated(
    opened: Page, site: ScriptedSite, path: str, rest: bytes
) -> None:
    """Between two events, or in one.

    A browser drops what it has not handed over when the connection breaks: so it breaks then.
    """
    use(site, path, stream(data(ONE) + rest, end=End.STAYS_OPEN, fields=("X-Request-Id: r1",)))
    await begin(opened)
    await first_event(opened)
    site.visit(path).cut()
    found = await outcome(opened)
    assert not found.unlike(path=path, type="network_error", code=None, requestId="r1")
    assert (found.events, site.names) == ([ONE], asked_for(path))


@pytest.mark.parametrize("path", PATHS)
@REST
async def test_stream_that_ends_without_done_is_an_error_and_is_not_repeated(
    opened: Page, site: ScriptedSite, path: str, rest: bytes
) -> None:
    """A proper end without `[DONE]` is none; nor is half of it."""
    use(site, path, stream(data(ONE) + rest, fields=("X-Request-Id: r1",)))
    found = await chat(opened)
    assert not found.unlike(path=path, type="incomplete_stream", code=None, requestId="r1")
    assert (found.events, site.names) == ([ONE], asked_for(path))


@pytest.mark.parametrize("path", PATHS)
async def test_comment_is_a_first_byte(opened: Page, site: ScriptedSite, path: str) -> None:
    """Whoever waits in the queue has been heard: the request is not sent again."""
    use(site, path, stream(b": queued, position 1\n\n"))
    assert not (await chat(opened)).unlike(path=path, type="incomplete_stream")
    assert site.names == asked_for(path)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("before", [[], [ONE]], ids=["first", "later"])
async def test_error_event_is_a_typed_error_and_is_not_repeated(
    opened: Page, site: ScriptedSite, path: str, before: list[Any]
) -> None:
    """The server's words, and what came before them."""
    use(site, path, stream(*map(data, before), data({"error": ERROR})))
    found = await chat(opened)
    assert not found.unlike(
        path=path, type="upstream_error", code=502, requestId="r2", message="It crashed."
    )
    assert (found.events, site.names) == (before, asked_for(path))


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        ({}, {"type": "server_error", "code": None, "requestId": "r1"}),
        ("It broke.", {"type": "server_error", "message": "It broke."}),
        ({"code": "overloaded"}, {"type": "server_error", "code": "overloaded"}),
        ({"type": 5, "message": 5, "code": None}, {"type": "server_error", "code": None}),
        ({"type": "t", "request_id": None}, {"type": "t", "requestId": "r1"}),
    ],
    ids=str,
)
async def test_error_event_that_says_less_is_an_error_too(
    opened: Page, site: ScriptedSite, path: str, error: object, wanted: dict[str, object]
) -> None:
    """Another server's, for example."""
    use(site, path, stream(data({"error": error}), DONE, fields=("X-Request-Id: r1",)))
    assert not (await chat(opened)).unlike(path=path, **wanted)


@pytest.mark.parametrize("path", PATHS)
async def test_event_that_is_no_json_is_an_error_and_ends_the_stream(
    opened: Page, site: ScriptedSite, path: str
) -> None:
    """It is not passed over: nobody knows what it was."""
    use(site, path, stream(data(ONE) + b"data: {\n\n" + data(TWO), end=End.STAYS_OPEN))
    found = await chat(opened)
    assert not found.unlike(path=path, type="invalid_response")
    assert (found.events, site.names) == ([ONE], asked_for(path))
    await site.visit(path).wait_left()


async def test_event_whose_error_is_null_is_none(opened: Page, site: ScriptedSite) -> None:
    """Some servers always have the member."""
    site.fast = stream(data({"error": None}), DONE)
    assert (await chat(opened)).events == [{"error": None}]


async def test_events_are_handed_over_whole_however_their_bytes_come(
    opened: Page, site: ScriptedSite
) -> None:
    """Byte by byte, in one piece, with other line ends, comments, ids and types."""
    text = (
        b": hi\r\n\r\nevent: e\r\nid: 7\r\n" + data(ONE).replace(b"\n", b"\r\n") + data(TWO) + DONE
    )
    for pieces in ([text], [bytes([byte]) for byte in text]):
        site.fast = stream(*pieces)
        assert (await chat(opened)).events == [ONE, TWO]


async def test_what_comes_after_done_is_not_handed_over(opened: Page, site: ScriptedSite) -> None:
    """Nor is an error any more: the stream was whole."""
    site.fast = stream(data(ONE) + DONE + data(TWO), data({"error": ERROR}))
    found = await chat(opened)
    assert (found.events, found.error) == ([ONE], None)


async def test_connection_that_is_lost_after_done_is_no_error(
    opened: Page, site: ScriptedSite
) -> None:
    """Nothing of the stream was lost."""
    site.fast = stream(data(ONE) + DONE, end=End.STAYS_OPEN)
    await begin(opened)
    await first_event(opened)
    site.visit("fast").cut()
    found = await outcome(opened)
    assert (found.events, found.error) == ([ONE], None)


async def test_end_of_the_answer_is_waited_for(opened: Page, site: ScriptedSite) -> None:
    """Then the server knows that it was taken whole, and the connection can be used again."""
    site.fast = stream(data(ONE) + DONE, end=End.STAYS_OPEN)
    await begin(opened)
    await first_event(opened)
    assert not await opened.run(
        """
        const later = new Promise((resolve) => setTimeout(resolve, 50));
        return Promise.race([later, chat.ended]);
        """
    )
    visit = site.visit("fast")
    assert not visit.left.is_set()
    await visit.chunk(b"")
    assert (await outcome(opened)).result is not None


async def test_server_that_does_not_end_after_done_is_left(
    opened: Page, site: ScriptedSite
) -> None:
    """A second later: the stream is whole without."""
    site.fast = stream(data(ONE), end=End.STAYS_OPEN)
    await begin(opened)
    await first_event(opened)
    await hasten(opened)
    visit = site.visit("fast")
    await visit.chunk(DONE)
    assert (await outcome(opened)).result is not None
    await visit.wait_left()
