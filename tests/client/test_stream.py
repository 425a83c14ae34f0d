"""A stream that has begun: its events, its end, and how it is left; by either path the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing

import proxy
from tests.client.staged_proxy import (
    DONE,
    EVENTS,
    FAST,
    LAST_CHUNK,
    MAIN,
    OFFER,
    REFUSES,
    STREAM_HEAD,
    Arrived,
    Play,
    StagedProxy,
    chunk,
    event,
    staged_proxy,
)
from tests.fakes.scripted_server import scripted_server
from tests.left_behind import Leftovers
from tests.promises.observe import FREE_WITHIN_S
from tests.web.wire import PATIENCE_S

BODY: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
BEGUN = (STREAM_HEAD, event({"n": 1}))
ENDLESS = Play(BEGUN, then="stay")

each_path = pytest.mark.parametrize("path", [FAST, MAIN], ids=["fast", "main"])


@asynccontextmanager
async def playing(
    path: str, play: Play, **options: Any
) -> AsyncIterator[tuple[StagedProxy, proxy.ProxyClient]]:
    """Run a server that plays `play` on one path, by which a client will go, and the client."""
    plays: Mapping[str, Play] = {path: play, **({OFFER: REFUSES} if path == MAIN else {})}
    async with (
        staged_proxy(plays) as staged,
        proxy.open_client(staged.url, **options) as client,
    ):
        yield staged, client


def asked(path: str) -> list[str]:
    """Return what is asked when nothing is asked twice."""
    return [OFFER, path]


# -- what comes ------------------------------------------------------------------------------------


@each_path
async def test_events_are_the_same_however_the_bytes_are_cut(
    path: str, leftovers: Leftovers
) -> None:
    """Byte by byte, in chunks that do not know of events, with comments and both line ends."""
    data = b': queued\n\ndata: {"n":\r\ndata: 1}\r\n\r\nid: 7\ndata: {"n": "\xc3\xa9"}\n\n'
    pieces = [chunk(data[at : at + 1]) for at in range(len(data))]
    play = Play((STREAM_HEAD + b"".join(pieces[:20]), *pieces[20:], DONE, LAST_CHUNK))
    async with playing(path, play) as (_, client), client.stream_chat(BODY) as events:
        assert [each async for each in events] == [{"n": 1}, {"n": "é"}]


@each_path
async def test_iteration_that_has_ended_stays_so(path: str, leftovers: Leftovers) -> None:
    """The end mark is the end, whatever follows it."""
    late = event({"error": {"message": "late"}})
    play = Play((STREAM_HEAD, event({"n": 1}) + DONE + late, late + LAST_CHUNK))
    async with playing(path, play) as (_, client), client.stream_chat(BODY) as events:
        assert [each async for each in events] == [{"n": 1}]
        assert [each async for each in events] == []


async def test_block_is_entered_at_the_first_byte(leftovers: Leftovers) -> None:
    """Also if that is a comment: a request that waits in the queue has begun."""
    play = Play((STREAM_HEAD, chunk(b": queued\n")), then="stay")
    async with playing(FAST, play) as (_, client), client.stream_chat(BODY) as events:
        assert repr(events) == "<ChatStream over the fast path, request r-1>"


# -- what goes wrong -------------------------------------------------------------------------------

TOLD = {"code": 502, "message": "It died.", "type": "upstream_error", "request_id": "r-2"}
WRONG = {
    "closed": (Play(BEGUN), proxy.StreamBroken, "connection broke"),
    "reset": (Play(BEGUN, then="reset"), proxy.StreamBroken, "connection broke"),
    "no chunk": (Play((*BEGUN, b"nonsense\r\n")), proxy.StreamBroken, "connection broke"),
    "ended": (Play((*BEGUN, LAST_CHUNK)), proxy.StreamBroken, "not complete"),
    "half an end mark": (
        Play((*BEGUN, chunk(b"data: [DONE]\n"), LAST_CHUNK)),
        proxy.StreamBroken,
        "not complete",
    ),
    "an error": (Play((*BEGUN, event({"error": TOLD}), LAST_CHUNK)), proxy.StreamAborted, "died"),
    "an error, and an end mark": (
        Play((*BEGUN, event({"error": TOLD}), DONE, LAST_CHUNK)),
        proxy.StreamAborted,
        "died",
    ),
    "no JSON": (Play((*BEGUN, chunk(b"data: {n\n\n"), DONE)), proxy.StreamBroken, "no JSON"),
    "no object": (Play((*BEGUN, event([1]), DONE)), proxy.StreamBroken, "no JSON object"),
    "too large": (Play((*BEGUN, event("x" * 2000), DONE)), proxy.StreamBroken, "larger than 1000"),
}


@each_path
@pytest.mark.parametrize(("play", "error", "says"), WRONG.values(), ids=WRONG)
async def test_stream_that_went_wrong_is_a_typed_error_and_not_asked_for_again(
    path: str, play: Play, error: type[proxy.StreamFailed], says: str, leftovers: Leftovers
) -> None:
    """After the first byte; what came before is handed over, and the error stays the same."""
    async with playing(path, play, max_event_bytes=1000) as (staged, client):
        async with client.stream_chat(BODY) as events:
            assert await anext(events) == {"n": 1}
            with pytest.raises(error, match=says) as first:
                await anext(events)
            with pytest.raises(error) as second:
                await anext(events)
        assert staged.paths == asked(path)
    assert second.value is first.value


@each_path
@pytest.mark.parametrize(
    ("first", "error"),
    [
        (event({"error": TOLD}), proxy.StreamAborted),
        (chunk(b"data: no JSON\n\n"), proxy.StreamBroken),
        (chunk(b"d" * 2000), proxy.StreamBroken),
        (chunk(b":"), proxy.StreamBroken),
    ],
    ids=["error", "no JSON", "too large", "one byte"],
)
async def test_first_byte_settles_the_path_whatever_it_is(
    path: str, first: bytes, error: type[proxy.StreamFailed], leftovers: Leftovers
) -> None:
    """It may be that of an error: from it on nothing is asked for again."""
    play = Play((STREAM_HEAD, first))
    async with playing(path, play, max_event_bytes=1000) as (staged, client):
        async with client.stream_chat(BODY) as events:
            with pytest.raises(error):
                await anext(events)
        assert staged.paths == asked(path)


@each_path
async def test_error_inside_says_all_that_was_told(path: str, leftovers: Leftovers) -> None:
    """The server's words, the status that it would have been, its type and the request's id."""
    play = Play((STREAM_HEAD, event({"error": TOLD}), LAST_CHUNK))
    async with playing(path, play) as (_, client), client.stream_chat(BODY) as events:
        with pytest.raises(proxy.StreamAborted, match=r"^It died\.$") as caught:
            await anext(events)
    found = caught.value
    assert (found.status, found.type, found.request_id) == (502, "upstream_error", "r-2")


@each_path
async def test_events_before_a_broken_one_in_the_same_packet_are_handed_over(
    path: str, leftovers: Leftovers
) -> None:
    """An error is raised in its place, not as soon as it has come."""
    packet = event({"n": 1}) + event({"n": 2}) + event({"error": TOLD})
    async with (
        playing(path, Play((STREAM_HEAD + packet,))) as (_, client),
        client.stream_chat(BODY) as events,
    ):
        assert [await anext(events), await anext(events)] == [{"n": 1}, {"n": 2}]
        with pytest.raises(proxy.StreamAborted):
            await anext(events)


# -- how it ends -----------------------------------------------------------------------------------


@each_path
async def test_end_of_the_reply_is_awaited_after_the_end_mark(
    path: str, leftovers: Leftovers
) -> None:
    """A server whose client closes in between would take it for one that left."""
    play = Play((*BEGUN, DONE, LAST_CHUNK), then="stay")
    async with playing(path, play) as (staged, client), client.stream_chat(BODY) as events:
        assert [each async for each in events] == [{"n": 1}]
        # The body is at its end, so the connection was closed by the client, and is read to there.
        await staged.of(path).left.wait()


@each_path
@pytest.mark.parametrize("then", ["stay", "close", "reset"])
async def test_end_of_the_reply_that_does_not_come_changes_nothing(
    path: str, then: Any, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers
) -> None:
    """The answer was whole; the end is waited for a moment only."""
    monkeypatch.setattr("proxy.client.stream._END_S", 0.02)
    play = Play((*BEGUN, DONE), then=then)
    async with playing(path, play) as (_, client), client.stream_chat(BODY) as events:
        assert [each async for each in events] == [{"n": 1}]
        assert [each async for each in events] == []


async def by_break(events: proxy.ChatStream) -> None:
    """Leave the loop."""
    async for _ in events:
        break


async def unread(_: proxy.ChatStream) -> None:
    """Leave without a look."""


LEAVING = [by_break, unread]


@each_path
@pytest.mark.parametrize("leave", LEAVING, ids=[leave.__name__ for leave in LEAVING])
async def test_server_sees_at_once_that_the_block_was_left(
    path: str, leave: Callable[[proxy.ChatStream], Awaitable[None]], leftovers: Leftovers
) -> None:
    """The connection is closed when the block has been left, so the slot is free."""
    async with playing(path, ENDLESS) as (staged, client):
        async with client.stream_chat(BODY) as events:
            await leave(events)
            assert not staged.of(path).left.is_set()
        await assert_left(staged.of(path))
        assert staged.paths == asked(path)


@each_path
async def test_stream_can_be_closed_before_the_block_is_left(
    path: str, leftovers: Leftovers
) -> None:
    """As soon as the rest is not wanted; leaving the block is then nothing more."""
    async with playing(path, ENDLESS) as (staged, client), client.stream_chat(BODY) as events:
        await events.aclose()
        await assert_left(staged.of(path))
        with pytest.raises(trio.ClosedResourceError):
            await anext(events)


async def assert_left(request: Arrived) -> None:
    """Check that the server sees within a quarter of a second that the client is gone."""
    with trio.fail_after(FREE_WITHIN_S):
        await request.left.wait()


@each_path
async def test_error_of_the_block_leaves_as_itself(path: str, leftovers: Leftovers) -> None:
    """There is no nursery that would put it into a group, and the connection is closed."""
    async with playing(path, ENDLESS) as (staged, client):
        with pytest.raises(LookupError):
            async with client.stream_chat(BODY):
                raise LookupError
        await assert_left(staged.of(path))


@each_path
async def test_stream_that_was_left_cannot_be_read(path: str, leftovers: Leftovers) -> None:
    """As with any resource of Trio's."""
    async with playing(path, ENDLESS) as (_, client):
        async with client.stream_chat(BODY) as events:
            pass
        with pytest.raises(trio.ClosedResourceError):
            await anext(events)


@each_path
async def test_task_that_reads_a_stream_while_it_is_left_is_woken(
    path: str, leftovers: Leftovers
) -> None:
    """As with any resource of Trio's: it does not wait for what cannot come."""
    woken = trio.Event()

    async def read_on(events: proxy.ChatStream) -> None:
        assert await anext(events) == {"n": 1}
        with pytest.raises(trio.ClosedResourceError):
            await anext(events)
        woken.set()

    async with playing(path, ENDLESS) as (staged, client), trio.open_nursery() as nursery:
        async with client.stream_chat(BODY) as events:
            nursery.start_soon(read_on, events)  # noqa: ASYNC111  # it outlives the block on purpose
            await trio.testing.wait_all_tasks_blocked(0.01)
            assert not woken.is_set()
        with trio.fail_after(PATIENCE_S):
            await woken.wait()
        await assert_left(staged.of(path))


async def test_client_that_is_closed_closes_its_streams(leftovers: Leftovers) -> None:
    """Its block is the outer one: nothing outlives it."""
    async with staged_proxy({FAST: ENDLESS}) as staged:
        async with proxy.open_client(staged.url) as client:
            stream = client.stream_chat(BODY)
            events = await stream.__aenter__()
            assert await anext(events) == {"n": 1}
        await assert_left(staged.of(FAST))
        with pytest.raises(proxy.StreamBroken):
            await anext(events)
        await stream.__aexit__(None, None, None)


# -- cancellation ----------------------------------------------------------------------------------

STALLED = {
    "no offer": {OFFER: Play(then="stay")},
    "half an offer": {OFFER: Play((b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",), "stay")},
    "no answer, fast": {FAST: Play(then="stay")},
    "a head, fast": {FAST: Play((STREAM_HEAD,), "stay")},
    "a byte, fast": {FAST: Play((STREAM_HEAD, chunk(b":")), "stay")},
    "an event, fast": {FAST: ENDLESS},
    "an end mark, fast": {FAST: Play((*BEGUN, DONE), "stay")},
    "no answer, main": {OFFER: REFUSES, MAIN: Play(then="stay")},
    "a head, main": {OFFER: REFUSES, MAIN: Play((STREAM_HEAD,), "stay")},
    "half an error, main": {
        OFFER: REFUSES,
        MAIN: Play((b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\n{",), "stay"),
    },
    "an event, main": {OFFER: REFUSES, MAIN: ENDLESS},
}


@pytest.mark.parametrize("plays", STALLED.values(), ids=STALLED)
async def test_cancelled_wherever_it_waits_leaves_nothing(
    plays: dict[str, Play], leftovers: Leftovers
) -> None:
    """The server sees it at once, and nothing else is asked for instead."""
    (stalled,) = [path for path, play in plays.items() if play.then == "stay"]
    async with staged_proxy(plays) as staged, proxy.open_client(staged.url) as client:
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_all, client)
                await staged.wait_arrived(stalled)
                await trio.testing.wait_all_tasks_blocked(0.01)
                scope.cancel()
        assert scope.cancelled_caught
        await assert_left(staged.of(stalled))
        assert staged.paths[-1] == stalled


async def read_all(client: proxy.ProxyClient, body: Mapping[str, object] = BODY) -> None:
    """Read a stream that does not end."""
    async with client.stream_chat(body) as events:
        async for _ in events:
            pass


@each_path
async def test_cancelled_in_the_block_closes_the_connection(
    path: str, leftovers: Leftovers
) -> None:
    """Also when it is not the stream that is waited for: closing is shielded."""
    async with playing(path, ENDLESS) as (staged, client):
        with trio.CancelScope() as scope:
            async with client.stream_chat(BODY):
                scope.cancel()
                await trio.sleep_forever()
        assert scope.cancelled_caught
        await assert_left(staged.of(path))


@each_path
async def test_iteration_that_was_cancelled_is_no_clean_end(
    path: str, leftovers: Leftovers
) -> None:
    """What comes after it is lost with the connection: whoever goes on is told so."""
    async with playing(path, ENDLESS) as (staged, client), client.stream_chat(BODY) as events:
        assert await anext(events) == {"n": 1}
        with trio.move_on_after(0.01):
            await anext(events)
        await assert_left(staged.of(path))
        with pytest.raises(proxy.StreamBroken):
            await anext(events)


async def test_cancelled_while_its_body_is_sent_leaves_nothing(leftovers: Leftovers) -> None:
    """A server that does not read holds up nobody but who waits for it."""
    large = "x" * 16 * 1024 * 1024

    async def read_nothing(_: trio.abc.Stream) -> None:
        await trio.sleep_forever()

    async with (
        scripted_server(read_nothing) as address,
        proxy.open_client(f"http://127.0.0.1:{address.port}", negotiation_timeout_s=0.01) as client,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(read_all, client, {"prompt": large})
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.cancel_scope.cancel()


async def test_cancelled_at_any_step_leaves_nothing(leftovers: Leftovers) -> None:
    """And the client still works: no place in a pool is lost."""
    async with staged_proxy() as staged, proxy.open_client(staged.url) as client:
        for steps in range(60):
            await cancelled_after(steps, client)
        with trio.fail_after(PATIENCE_S):
            async with client.stream_chat(BODY) as events:
                assert [each async for each in events] == EVENTS


async def cancelled_after(steps: int, client: proxy.ProxyClient) -> None:
    """Cancel a stream after so many steps of the scheduler."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read_all, client)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
