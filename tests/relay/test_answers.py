"""The three ways of an answer to the client: passed on, filtered, put together."""

from __future__ import annotations

import json

import pytest

from proxy.core.assembly import assembler_for
from proxy.core.errors import UpstreamFailed
from proxy.core.generation import stream_filter
from proxy.core.routes import Dialect
from proxy.core.usage import Usage
from proxy.http1.asgi import Message
from proxy.relay.answers import PassedOn, PutTogether, is_event_stream
from proxy.relay.downstream import Downstream
from proxy.runtime.address import Address
from proxy.runtime.outbound import ControlClient
from proxy.runtime.response_head import ResponseHead

CHAT = "/v1/chat/completions"
HEAD = ResponseHead(200, b"OK", ((b"Content-Type", b"text/event-stream"),))
FIELDS = [(b"Server", b"llama.cpp"), (b"Content-Type", b"text/event-stream")]
PROGRESS = (
    b'data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}]'
    b',"prompt_progress":{"total":2,"cache":0,"processed":1,"time_ms":1}}\n\n'
)
TOKEN = b'data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"Hi"}}]}\n\n'


def reply() -> tuple[Downstream, list[Message]]:
    """Return a reply and the messages that it sends."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    downstream = Downstream(
        send,
        None,  # type: ignore[arg-type]
        dialect=Dialect.OPENAI,
        request_id="r",
        http_version="1.1",
    )
    return downstream, sent


def body_of(sent: list[Message]) -> bytes:
    """Return the body of what was sent."""
    return b"".join(message.get("body", b"") for message in sent)


async def test_passed_on_answer_is_the_same_bytes() -> None:
    """Head, body and end come through, and its end is read for the tokens."""
    downstream, sent = reply()
    answer = PassedOn(downstream)
    await answer.begin(HEAD, FIELDS)
    assert await answer.take(TOKEN)
    last = b'data: {"timings":{"prompt_n":3,"cache_n":1,"predicted_n":2}}\n\ndata: [DONE]\n\n'
    assert await answer.take(last)
    await answer.prepare()
    await answer.finish()
    assert (sent[0]["status"], sent[0]["headers"]) == (200, FIELDS)
    assert body_of(sent) == TOKEN + last
    assert sent[-1]["more_body"] is False
    assert answer.usage() == Usage(4, 2)


async def test_filtered_answer_tells_prefill_from_decode() -> None:
    """Progress that the client did not ask for is neither sent nor taken for a token."""
    downstream, sent = reply()
    answer = PassedOn(downstream, stream_filter(CHAT, {"stream": True}))
    await answer.begin(HEAD, FIELDS)
    assert not await answer.take(PROGRESS)
    assert await answer.take(TOKEN)
    await answer.finish()
    assert body_of(sent) == TOKEN


async def test_answer_put_together_sends_nothing_before_its_end() -> None:
    """Until then it may become an error; of the stream's headers those of a stream go."""
    downstream, sent = reply()
    assembler = assembler_for("/completion", {})
    assert assembler is not None
    answer = PutTogether(downstream, assembler, ControlClient(Address(), None))
    await answer.begin(HEAD, FIELDS)
    event = {"index": 0, "content": "Hi", "tokens": [1], "stop": False, "id_slot": -1}
    await answer.take(b"data: " + json.dumps(event).encode() + b"\n\n")
    assert sent == []


async def test_answer_put_together_of_a_stream_without_end_is_an_error() -> None:
    """A broken stream is no answer."""
    downstream, sent = reply()
    assembler = assembler_for(CHAT, {})
    assert assembler is not None
    answer = PutTogether(downstream, assembler, ControlClient(Address(), None))
    await answer.begin(HEAD, FIELDS)
    await answer.take(TOKEN)
    with pytest.raises(UpstreamFailed):
        await answer.prepare()
    assert sent == []


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (HEAD, True),
        (ResponseHead(400, b"", ((b"content-type", b"text/event-stream"),)), False),
        (ResponseHead(200, b"", ((b"content-type", b"application/json"),)), False),
        (ResponseHead(200, b"", ()), False),
    ],
    ids=["stream", "error", "json", "nothing"],
)
def test_event_stream_is_told_by_status_and_type(head: ResponseHead, expected: bool) -> None:
    """Anything else is llama-server's own answer, passed on as it is."""
    assert is_event_stream(head) is expected
