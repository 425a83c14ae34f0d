"""One request as an ASGI application sees it, without a socket."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from proxy.core.errors import BodyTooLarge, HttpError, RequestTimeout
from proxy.core.framing import Limits, RequestFramer, RequestHead
from proxy.http1.asgi import Message
from proxy.http1.request_cycle import RequestCycle

POST = b"POST /a%2Fb?c=d HTTP/1.1\r\nHost: localhost\r\n"
START: Message = {"type": "http.response.start", "status": 200, "headers": []}


class Line:
    """A connection: what the client sends next, what it has received.

    Args:
        to_come: Pieces that arrive when the body is read; an exception is raised instead.
    """

    def __init__(self, *to_come: bytes | HttpError) -> None:
        self.gone = trio.Event()
        self.may_keep = True
        self.framer = RequestFramer(Limits(max_body=100))
        self.written: list[bytes] = []
        self.reads = 0
        self._to_come = list(to_come)

    async def read_body(self) -> None:
        """Let the next piece arrive, or the client leave."""
        self.reads += 1
        await trio.lowlevel.checkpoint()
        if not self._to_come:
            self.gone.set()
            return
        found = self._to_come.pop(0)
        if isinstance(found, HttpError):
            raise found
        self.framer.receive_data(found)

    async def write(self, data: bytes) -> None:
        """Take what is written."""
        self.written.append(data)

    def begin(self, data: bytes) -> RequestCycle:
        """Begin a request."""
        self.framer.receive_data(data)
        head = self.framer.next_event()
        assert isinstance(head, RequestHead)
        return RequestCycle(self, self.framer, head)


def piece(body: bytes, *, more: bool) -> Message:
    """Return a message of a body."""
    return {"type": "http.request", "body": body, "more_body": more}


def answer(body: bytes = b"") -> Message:
    """Return the last message of a response."""
    return {"type": "http.response.body", "body": body, "more_body": False}


async def test_scope_has_what_the_head_said() -> None:
    """The target in both forms, header spelling, the version."""
    cycle = Line().begin(POST + b"X-SpelleD: 1\r\n\r\n")
    scope = cycle.scope({"k": "v"}, scheme="https", client=("c", 1), server=("s", 2))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b", b"/a%2Fb", b"c=d")
    assert (scope["method"], scope["http_version"], scope["scheme"]) == ("POST", "1.1", "https")
    assert (b"X-SpelleD", b"1") in scope["headers"]
    assert (scope["client"], scope["server"], scope["state"]) == (("c", 1), ("s", 2), {"k": "v"})


async def test_receive_of_a_request_without_body_is_one_empty_end() -> None:
    """Nothing is read for it."""
    line = Line()
    cycle = line.begin(POST + b"\r\n")
    assert await cycle.receive() == piece(b"", more=False)
    assert (cycle.body_ended, line.reads) == (True, 0)


async def test_receive_gives_what_came_with_the_head_first() -> None:
    """Then it reads, as often as it is asked."""
    line = Line(b"cd", b"e")
    cycle = line.begin(POST + b"Content-Length: 5\r\n\r\nab")
    assert await cycle.receive() == piece(b"ab", more=True)
    assert line.reads == 0
    assert await cycle.receive() == piece(b"cd", more=True)
    assert await cycle.receive() == piece(b"e", more=False)
    assert line.reads == 2


async def test_receive_after_the_body_waits_for_the_client_to_leave() -> None:
    """ASGI's way to tell of a disconnect; every time it is asked."""
    line = Line()
    cycle = line.begin(POST + b"\r\n")
    await cycle.receive()
    told = list[Message]()

    async def wait() -> None:
        told.append(await cycle.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert told == []
        line.gone.set()
    assert told == [{"type": "http.disconnect"}] * 2


async def test_receive_in_a_body_whose_client_left_says_so() -> None:
    """Half a body has no end."""
    line = Line()
    cycle = line.begin(POST + b"Content-Length: 5\r\n\r\n")
    assert await cycle.receive() == {"type": "http.disconnect"}
    assert not cycle.body_ended


async def test_receive_gives_what_was_good_before_a_fault_and_then_raises_it_every_time() -> None:
    """The application is not left to wait for a body that never ends."""
    cycle = Line().begin(POST + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\nff\r\n")
    assert await cycle.receive() == piece(b"ab", more=True)
    for _ in range(2):
        with pytest.raises(BodyTooLarge):
            await cycle.receive()


async def test_receive_of_a_body_that_is_too_slow_raises() -> None:
    """The connection's word."""
    cycle = Line(RequestTimeout("late")).begin(POST + b"Content-Length: 5\r\n\r\n")
    with pytest.raises(RequestTimeout):
        await cycle.receive()


async def test_wait_body_ended_returns_with_the_last_byte() -> None:
    """Who reads ahead does not take a byte of the body."""
    cycle = Line(b"ab").begin(POST + b"Content-Length: 2\r\n\r\n")
    with trio.move_on_after(0) as early:
        await cycle.wait_body_ended()
    assert early.cancelled_caught
    await cycle.receive()
    await cycle.wait_body_ended()


# -- 100-continue ----------------------------------------------------------------------------------

EXPECTS = POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"


async def test_expected_continue_is_sent_when_the_body_is_wanted() -> None:
    """Once, and not before."""
    line = Line(b"a", b"b")
    cycle = line.begin(EXPECTS)
    assert line.written == []
    await cycle.receive()
    await cycle.receive()
    assert line.written == [b"HTTP/1.1 100 Continue\r\n\r\n"]


async def test_expected_continue_is_not_sent_after_an_answer() -> None:
    """A client that was refused does not send its body."""
    line = Line(b"ab")
    cycle = line.begin(EXPECTS)
    await cycle.send(START)
    await cycle.send(answer())
    await cycle.receive()
    assert not any(b"100 Continue" in data for data in line.written)


async def test_expected_continue_is_not_sent_for_a_body_that_is_here() -> None:
    """RFC 9110 section 10.1.1."""
    line = Line()
    assert await line.begin(EXPECTS + b"ab").receive() == piece(b"ab", more=False)
    assert line.written == []


# -- the response ----------------------------------------------------------------------------------


async def test_send_writes_the_head_with_the_first_bytes_and_the_end_with_the_last() -> None:
    """A system call less for each; what is between goes out as it comes."""
    line = Line()
    cycle = line.begin(POST + b"\r\n")
    await cycle.send(START)
    assert (line.written, cycle.sends_chunks) == ([], False)
    await cycle.send({"type": "http.response.body", "body": b"ab", "more_body": True})
    assert cycle.sends_chunks
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": True})
    before = cycle.complete
    await cycle.send(answer(b"c"))
    first, *rest = line.written
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert first.endswith(b"\r\n\r\n2\r\nab\r\n")
    assert rest == [b"1\r\nc\r\n0\r\n\r\n"]
    assert (before, cycle.complete, cycle.keeps_alive) == (False, True, True)


async def test_send_of_an_empty_piece_writes_the_head_alone() -> None:
    """For an application whose first bytes may take long."""
    line = Line()
    cycle = line.begin(POST + b"\r\n")
    await cycle.send(START)
    await cycle.send({"type": "http.response.body", "body": b"", "more_body": True})
    (head,) = line.written
    assert head.endswith(b"\r\n\r\n")
    assert cycle.sends_chunks


async def test_send_of_a_body_before_its_head_is_a_defect() -> None:
    """Of the application's."""
    with pytest.raises(RuntimeError, match="head"):
        await Line().begin(POST + b"\r\n").send(answer())


@pytest.mark.parametrize(
    ("head", "may_keep", "keeps"),
    [
        (b"\r\n", True, True),
        (b"\r\n", False, False),
        (b"Connection: close\r\n\r\n", True, False),
        (b"Content-Length: 2\r\n\r\n", True, False),
        (b"Content-Length: 2\r\n\r\nab", True, True),
    ],
    ids=["plain", "draining", "client closes", "body to come", "body here"],
)
async def test_connection_is_kept_where_everybody_wants_it(
    head: bytes, may_keep: bool, keeps: bool
) -> None:
    """Otherwise the response says that it is the last one."""
    line = Line()
    line.may_keep = may_keep
    cycle = line.begin(POST + head)
    await cycle.send(START)
    await cycle.send(answer())
    assert cycle.keeps_alive == keeps
    assert (b"connection: close" in line.written[0].lower()) != keeps


async def test_request_that_was_not_answered_keeps_nothing() -> None:
    """There is no response at all."""
    assert not Line().begin(POST + b"\r\n").keeps_alive
