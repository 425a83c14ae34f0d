"""How llama-server's answer becomes the client's: passed on, filtered, or put together.

Owns the three ways an answer takes to the client. Which one it is follows from what the client
asked for and from what llama-server answered; the relay only feeds it. None of them knows of gates,
ends or causes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress

import trio

from proxy.core.assembly import Assembler
from proxy.core.errors import UpstreamFailed
from proxy.core.generation import StreamFilter
from proxy.core.stream_ends import is_whole
from proxy.core.usage import TAIL_BYTES, Usage, find_usage
from proxy.core.whole_events import EventPassage
from proxy.relay.downstream import Downstream
from proxy.runtime.outbound import ControlClient
from proxy.runtime.pump import Flow
from proxy.runtime.response_head import ResponseHead
from proxy.runtime.upstream import UpstreamConnection

Field = tuple[bytes, bytes]

# A whole answer that is no larger goes out in one write with its head.
_LAST_BYTES = 4096
CUT_SHORT = "llama-server ended its stream before the answer was complete."
# llama-server answers such questions beside its slots, at once.
_QUESTION_S = 2.0
# What describes the stream that we asked for and not the answer that the client gets.
_OF_THE_STREAM = frozenset(
    {b"content-type", b"content-length", b"cache-control", b"x-accel-buffering"}
)


class Answer(ABC):
    """One answer on its way to the client.

    Args:
        downstream: The reply.
    """

    def __init__(self, downstream: Downstream) -> None:
        self._downstream = downstream

    @abstractmethod
    async def begin(self, head: ResponseHead, fields: list[Field]) -> None:
        """Take llama-server's head; `fields` are what of its headers is the client's."""

    @abstractmethod
    async def take(self, data: bytes) -> bool:
        """Take bytes of the body; return whether they are of decode and not of prefill."""

    async def prepare(self) -> None:  # noqa: B027  most answers have nothing to prepare
        """Do at the end of the body what may still fail.

        Raises:
            UpstreamFailed: The body ended before the answer did.
        """

    async def deliver(self) -> None:  # noqa: B027  most answers are with the client by then
        """Send what is left of the answer but its end: the client may take its time over it."""

    @abstractmethod
    async def finish(self) -> None:
        """Send the proper end of the answer: nothing of it fails any more but the client."""

    def rest_of(self, upstream: UpstreamConnection) -> Flow | None:  # noqa: ARG002
        """Return what is left of the body as a flow; None where every piece has to be taken."""
        return None

    @abstractmethod
    def usage(self) -> Usage:
        """Return how many tokens the answer took, as far as its end tells."""


class PassedOn(Answer):
    """Every byte is the client's, save those that `stream_filter` takes out.

    Args:
        downstream: The reply.
        stream_filter: Takes out what the client did not ask for; None for nothing.
        end_marks: Of which one has to be in its last bytes; none: any proper end will do.
    """

    def __init__(
        self,
        downstream: Downstream,
        stream_filter: StreamFilter | None = None,
        end_marks: tuple[bytes, ...] = (),
    ) -> None:
        super().__init__(downstream)
        self._filter = stream_filter
        self._end_marks = end_marks

    async def begin(self, head: ResponseHead, fields: list[Field]) -> None:
        """Send the head on, unless our own comments began the stream already."""
        if not self._downstream.started:
            await self._downstream.start(head.status, fields, head.reason)

    async def take(self, data: bytes) -> bool:
        """Send the bytes on."""
        self._downstream.passing.note(data)
        if self._filter is not None:
            data = self._filter.feed(data)
            if self._filter.finished:
                self._filter = None
        if data:
            await self._downstream.write(data)
        return bool(data)

    def rest_of(self, upstream: UpstreamConnection) -> Flow | None:
        """Return the rest of an event stream in which nothing is left to be filtered."""
        body, source, sink = upstream.body, upstream.bare_socket, self._downstream.chunk_socket
        # What has come may have been all: nothing wakes the pump then.
        if self._filter is not None or source is None or sink is None or body.over:
            return None
        client = self._downstream
        return Flow(source, sink, EventPassage(body, client.events, client.sent, client.passing))

    async def prepare(self) -> None:
        """Look whether llama-server said all that it had to say.

        Raises:
            UpstreamFailed: It ended the stream before the answer's end.
        """
        if self._filter is not None and (rest := self._filter.finish()):
            await self._downstream.write(rest)
        if not is_whole(self._downstream.passing.tail(TAIL_BYTES), self._end_marks):
            raise UpstreamFailed(CUT_SHORT)

    async def finish(self) -> None:
        """Send the end on."""
        await self._downstream.finish()

    def usage(self) -> Usage:
        """Read it from the last bytes."""
        return find_usage(self._downstream.passing.tail(TAIL_BYTES))


class PutTogether(Answer):
    """A client that asked for no stream gets the stream's sum.

    Args:
        downstream: The reply.
        assembler: Puts the answer together.
        control: Answers what the stream does not tell.
    """

    def __init__(
        self, downstream: Downstream, assembler: Assembler, control: ControlClient
    ) -> None:
        super().__init__(downstream)
        self._assembler = assembler
        self._control = control
        self._fields: list[Field] = []
        self._status = 200
        self._body = b""

    async def begin(self, head: ResponseHead, fields: list[Field]) -> None:  # noqa: ARG002
        """Keep the headers and send nothing: the answer may still become an error."""
        self._fields = [field for field in fields if field[0].lower() not in _OF_THE_STREAM]

    async def take(self, data: bytes) -> bool:
        """Keep the bytes.

        Raises:
            HttpError: llama-server told an error, or something that is not understood.
        """
        self._downstream.passing.note(data)
        self._downstream.sent.events += data.count(b"\n\n")
        self._assembler.feed(data)
        return self._assembler.decoding

    async def prepare(self) -> None:
        """Put the answer together."""
        for question in self._assembler.questions():
            with trio.move_on_after(_QUESTION_S), suppress(UpstreamFailed):
                question.learn(await self._control.ask(question.path, question.fields))
        answer = self._assembler.finish()
        self._status, self._body = answer.status, answer.body
        self._fields += answer.headers

    async def deliver(self) -> None:
        """Send it but for its last bytes, which fit the socket of a client that took the others."""
        await self._downstream.start(self._status, self._fields)
        await self._downstream.write(self._body[:-_LAST_BYTES])

    async def finish(self) -> None:
        """Send the last bytes."""
        await self._downstream.finish(self._body[-_LAST_BYTES:])

    def usage(self) -> Usage:
        """Read it from the answer's end."""
        return find_usage(self._body[-TAIL_BYTES:])


def is_event_stream(head: ResponseHead) -> bool:
    """Return whether llama-server answers with the stream that it was asked for, readably."""
    fields = {name.lower(): value for name, value in head.headers}
    kind = fields.get(b"content-type", b"")
    readable = b"content-encoding" not in fields
    return head.status == 200 and readable and kind.startswith(b"text/event-stream")
