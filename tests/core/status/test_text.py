"""Text read from a passing stream: each dialect, any cut, chunk framing, what cannot be read."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.status.text import MAX_LINE_BYTES, Piece, TextReader

CHAT = "/v1/chat/completions"


def event(data: dict[str, Any] | str, name: str | None = None) -> bytes:
    """One event as llama-server writes it."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def chat(index: int = 0, **delta: object) -> bytes:
    """A chunk of a chat completion."""
    return event({"choices": [{"finish_reason": None, "index": index, "delta": delta}]})


def chunked(data: bytes) -> bytes:
    """The event as one HTTP chunk."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def read(label: str, *pieces: bytes) -> list[Piece]:
    """Everything that is read of a stream that comes in these pieces."""
    reader = TextReader(label)
    return [found for piece in pieces for found in reader.feed(piece)]


def text(value: str) -> Piece:
    """Said."""
    return Piece("text", value)


def thought(value: str) -> Piece:
    """Thought."""
    return Piece("thought", value)


DIALECTS = {
    CHAT: (
        chat(role="assistant", content=None)
        + chat(reasoning_content="Hm")
        + chat(content="Hé")
        + chat(content="llo 😀")
        + event({"choices": [], "usage": {}})
        + event("[DONE]")
    ),
    "/v1/completions": (
        event({"choices": [], "prompt_progress": {}})
        + event({"choices": [{"text": "Hé", "index": 0}], "__verbose": {"content": "no"}})
        + event({"choices": [{"text": "llo 😀", "index": 0}]})
        + event({"choices": [{"text": "", "index": 0, "finish_reason": "stop"}]})
    ),
    "/completion": (
        event({"content": "Hé", "index": 0, "stop": False})
        + event({"content": "llo 😀", "stop": False})
        + event({"content": "", "stop": True, "prompt": "no"})
    ),
    "/infill": event({"content": "Hé", "index": 0}) + event({"content": "llo 😀"}),
    "/v1/responses": (
        event({"type": "response.created", "response": {"output": []}}, "response.created")
        + event({"type": "response.reasoning_text.delta", "delta": "Hm"}, "x")
        + event({"type": "response.output_text.delta", "delta": "Hé"}, "x")
        + event({"type": "response.output_text.delta", "delta": "llo 😀"}, "x")
        + event({"type": "response.function_call_arguments.delta", "delta": "{"}, "x")
        + event({"type": "response.output_text.done", "text": "Héllo 😀"}, "x")
    ),
    "/v1/messages": (
        event({"type": "message_start", "message": {"usage": {}}}, "message_start")
        + event(
            {
                "type": "content_block_start",
                "index": 0,
                "content_block": {"type": "thinking", "thinking": ""},
            }
        )
        + event(
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "Hm"}}
        )
        + event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hé"}})
        + event({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "llo 😀"}})
        + event(
            {"type": "content_block_delta", "delta": {"type": "signature_delta", "signature": ""}}
        )
        + event({"type": "message_stop"}, "message_stop")
    ),
}
THINKING = {CHAT, "/v1/responses", "/v1/messages"}


@pytest.mark.parametrize("label", DIALECTS)
def test_each_dialects_text_is_read(label: str) -> None:
    """What was thought and what was said, in order, and nothing twice."""
    before = [thought("Hm")] if label in THINKING else []
    assert read(label, DIALECTS[label]) == [*before, text("Hé"), text("llo 😀")]


@pytest.mark.parametrize("label", DIALECTS)
@given(cuts=st.lists(st.integers(min_value=0, max_value=900), max_size=8))
def test_any_cut_gives_the_same_text(label: str, cuts: list[int]) -> None:
    """Bytes may be cut anywhere, within a character too."""
    stream = DIALECTS[label]
    places = sorted({0, *cuts, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert read(label, *pieces) == read(label, stream)


@given(cuts=st.lists(st.integers(min_value=0, max_value=900), max_size=8))
def test_chunk_framing_between_events_is_passed_over(cuts: list[int]) -> None:
    """The lines of HTTP chunks begin otherwise than an event's, however they are cut."""
    events = [chat(content=letter * 40) for letter in "abcd"]
    stream = b"".join(chunked(found) for found in events) + b"0\r\n\r\n"
    places = sorted({0, *cuts, len(stream)})
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert "".join(found.text for found in read(CHAT, *pieces)) == "".join(
        letter * 40 for letter in "abcd"
    )


@pytest.mark.parametrize("size", [0xDA, 0xAD, 0xDA7A])
def test_chunk_size_that_looks_like_a_word_is_no_data(size: int) -> None:
    """A chunk's size is of hexadecimal digits, and no field's name is."""
    assert read(CHAT, b"%x\r\n" % size + chat(content="a") + b"\r\n") == [text("a")]


@given(start=st.integers(min_value=0, max_value=len(DIALECTS[CHAT])))
def test_stream_from_its_middle_gives_the_rest_of_its_text(start: int) -> None:
    """A viewer that comes late misses what has passed, and nothing after that."""
    whole = "".join(found.text for found in read(CHAT, DIALECTS[CHAT]))
    rest = "".join(found.text for found in read(CHAT, DIALECTS[CHAT][start:]))
    assert whole.endswith(rest)


def test_quoted_event_in_a_text_that_is_cut_is_no_event() -> None:
    """What the model says of events has backslashes where it is one line of an event's data."""
    stream = chat(content='data: {"choices":[{"delta":{"content":"lie"}}]}\n\n')
    start = stream.index(b"data:", 6)
    assert read(CHAT, stream[start:], chat(content="b")) == [text("b")]


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        pytest.param(b"a\xffb", "a\ufffdb", id="invalid byte"),
        pytest.param(b"\xf0\x9f\x98", "\ufffd", id="half a character"),
        pytest.param(rb"\ud83d", "\ufffd", id="half a pair"),
        pytest.param(rb"\ud83d\ude00", "😀", id="pair"),
        pytest.param(rb"x\ude00\ud83dy", "x\ufffd\ufffdy", id="pair the wrong way round"),
    ],
)
def test_text_is_always_good_for_utf_8(raw: bytes, shown: str) -> None:
    """What has no character becomes U+FFFD."""
    data = b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % raw
    assert read(CHAT, data) == [text(shown)]


@pytest.mark.parametrize(
    "data",
    [
        b"data: {",
        b"data: 7",
        b"data: []",
        b"data: null",
        b"data:",
        b'data: {"choices":7}',
        b'data: {"choices":{}}',
        b'data: {"choices":"x"}',
        b'data: {"choices":[{"delta":null}]}',
        b'data: {"choices":[{"delta":{"content":7,"reasoning_content":{"a":1}}}]}',
        b"data: " + b"[" * 100_000,
        b'data: {"choices":[],"x":' + b"9" * 5000 + b"}",
        b'{"choices":[{"delta":{"content":"no data line"}}]}',
        b': {"choices":[{"delta":{"content":"comment"}}]}',
    ],
)
def test_line_that_cannot_be_read_is_skipped(data: bytes) -> None:
    """Whoever watches does not disturb; the next event is read."""
    assert read(CHAT, data + b"\n\n" + chat(content="b")) == [text("b")]


@pytest.mark.parametrize("label", [*DIALECTS, "", "other"])
@given(data=st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(label: str, data: bytes) -> None:
    """Whatever comes, a list comes back."""
    assert isinstance(read(label, b"data: " + data + b"\n", data), list)


def test_of_several_choices_the_first_is_read() -> None:
    """Texts that go on beside each other would be one that nobody wrote."""
    assert read(CHAT, chat(content="a") + chat(index=1, content="b")) == [text("a")]
    native = event({"content": "a", "index": 0}) + event({"content": "b", "index": 1})
    assert read("/completion", native) == [text("a")]
    chunks = [event({"choices": [{"text": f"{index}", "index": index}]}) for index in (0, 1)]
    assert read("/v1/completions", *chunks) == [text("0")]


def test_route_that_does_not_generate_has_no_text() -> None:
    """What passes there is no stream of tokens."""
    assert read("other", DIALECTS[CHAT]) == []


def test_line_that_is_too_long_is_skipped_and_not_kept() -> None:
    """Memory is bounded; the event after it is read."""
    reader = TextReader(CHAT)
    reader.feed(b"data: ")
    for _ in range(2 * MAX_LINE_BYTES // 4096):
        reader.feed(b"x" * 4096)
        assert len(reader._held) <= MAX_LINE_BYTES
    assert reader.feed(b"\n\n" + chat(content="b")) == [text("b")]
