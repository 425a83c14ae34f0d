"""What llama-server is asked for, and what is taken out of its stream again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.generation import StreamFilter, can_be_streamed, stream_filter, upstream_body

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
NATIVE = "/completion"
RESPONSES = "/v1/responses"
MESSAGES = "/v1/messages"
ROUTES = [CHAT, TEXT, NATIVE, RESPONSES, MESSAGES]
PREFILL = {"messages": [{"role": "user"}, {"role": "assistant", "content": "So"}]}


def sent(label: str, fields: Mapping[str, object]) -> dict[str, object]:
    """Return the members that llama-server is sent for a client's `fields`."""
    body = upstream_body(label, fields, json.dumps(fields).encode())
    found: dict[str, object] = json.loads(body)
    return found


@pytest.mark.parametrize("label", ROUTES)
def test_body_of_a_client_without_stream_asks_for_one(label: str) -> None:
    """With progress, by which llama-server notices a disconnect in prefill."""
    found = sent(label, {"max_tokens": 3})
    assert (found["stream"], found["return_progress"]) == (True, True)


@pytest.mark.parametrize("label", ROUTES)
def test_body_of_a_streaming_client_asks_for_progress_only(label: str) -> None:
    """Nothing else of its stream would be its own."""
    assert sent(label, {"stream": True, "n": 2}) == {
        "stream": True,
        "n": 2,
        "return_progress": True,
    }


def test_body_that_says_it_all_is_sent_itself() -> None:
    """A client that asks for a stream and its progress gets what it asks for."""
    original = b'{"stream": true, "return_progress": true}'
    assert upstream_body(CHAT, json.loads(original), original) is original


@pytest.mark.parametrize(
    "original",
    [
        b"{}",
        b" {\n} \r\n\t",
        b'{"seed":1}\n',
        b'{"stream":false, "stream" : null}',
        '{"prompt":"é\u2028 }"}'.encode(),
        b'\xef\xbb\xbf{"a":{"b":[]}}',
    ],
)
def test_body_stays_as_the_client_wrote_it_up_to_its_end(original: bytes) -> None:
    """What is added comes last, where it wins over a member of the same name."""
    fields = json.loads(original.decode("utf-8-sig"))
    body = upstream_body(RESPONSES, fields, original)
    assert body.startswith(original.rstrip()[:-1])
    assert json.loads(body.decode("utf-8-sig")) == {
        **fields,
        "stream": True,
        "return_progress": True,
    }


def test_body_keeps_every_digit_of_its_numbers() -> None:
    """Integers of any size and fractions of any length are llama-server's to read."""
    numbers = b'{"seed":18446744073709551615,"a":1.000000000000000000001,"b":1E400,"c":-0.0}'
    assert upstream_body(CHAT, json.loads(numbers), numbers).startswith(numbers[:-1] + b",")


def test_body_keeps_the_other_stream_options() -> None:
    """Only whether the usage is told is ours."""
    options = {"include_usage": False, "other": 1}
    found = sent(CHAT, {"stream_options": options})
    assert found["stream_options"] == {"include_usage": True, "other": 1}


@pytest.mark.parametrize("fields", [PREFILL, {"continue_final_message": True}])
def test_body_that_continues_a_message_asks_for_all_of_it(fields: dict[str, object]) -> None:
    """An answer in one piece begins with what it continues."""
    assert sent(CHAT, fields)["echo"] is True


def test_body_of_a_text_completion_asks_for_the_verbose_form() -> None:
    """It tells the stop word and the tokens."""
    assert sent(TEXT, {"prompt": "a"})["verbose"] is True


@pytest.mark.parametrize("label", [TEXT, NATIVE])
def test_body_asks_for_all_the_fields_of_which_the_client_wants_some(label: str) -> None:
    """A last event of none but the wanted ones cannot be told for the last."""
    assert sent(label, {"response_fields": ["content"]})["response_fields"] is None


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        (CHAT, {"stream": "yes"}),
        (CHAT, {"stream": 1}),
        (TEXT, {"return_progress": 1}),
        (NATIVE, {"verbose": []}),
        (CHAT, {"echo": "a"}),
        (CHAT, {"stream_options": {"include_usage": "a"}}),
        (CHAT, {"stream": True, "return_progress": 1}),
        (CHAT, {"logprobs": True}),
        (CHAT, {"n_probs": 2}),
        (CHAT, {"verbose": True}),
        (NATIVE, {"return_tokens": True}),
        (TEXT, {"return_tokens": True}),
        (NATIVE, {"n_indent": 2}),
        (RESPONSES, {"n": 2}),
        (RESPONSES, {"n_cmpl": 2}),
        (RESPONSES, {"logprobs": True}),
        (MESSAGES, PREFILL),
    ],
)
def test_body_of_what_a_stream_cannot_carry_is_sent_itself(
    label: str, fields: dict[str, object]
) -> None:
    """So llama-server answers, or refuses, as it does without us."""
    original = json.dumps(fields).encode()
    assert upstream_body(label, fields, original) is original
    assert not can_be_streamed(label, fields)


@pytest.mark.parametrize(
    ("label", "fields"),
    [
        (CHAT, {"n": 2, "stop": ["a"], "logprobs": False, "n_probs": 0, "stream": None}),
        (CHAT, {"messages": [], "stream_options": 3}),
        (TEXT, {"logprobs": 3, "verbose": True, "n": "two"}),
        (NATIVE, {"n_probs": 3, "prompt": ["a", "b"], "n_indent": 0}),
        (RESPONSES, {"verbose": True, "n": 1}),
        (MESSAGES, {"messages": [{"role": "user"}], "n": 2, "logprobs": True}),
        (MESSAGES, {"messages": ["odd"]}),
    ],
)
def test_body_of_what_a_stream_can_carry_is_streamed(label: str, fields: dict[str, object]) -> None:
    """Whatever is not in the list of the others."""
    assert can_be_streamed(label, fields)


def chat(delta: str, rest: str = "") -> bytes:
    """Return one chunk as llama-server writes it."""
    return f'data: {{"choices":[{{"index":0,"delta":{{{delta}}}}}]{rest}}}\n\n'.encode()


PROGRESS = chat(
    '"role":"assistant","content":null',
    ',"prompt_progress":{"total":9,"cache":0,"processed":4,"time_ms":1}',
)
ROLE = chat('"role":"assistant","content":null')
# A model that writes what progress looks like: in a string its quotation marks are escaped.
QUOTED = chat(r'"content":"x,\"prompt_progress\":{\"total\":1}"')
PING = b":\n\n"
END = b"data: [DONE]\n\n"
DECODE = ROLE + QUOTED + PING + QUOTED + END

CREATED = b'event: response.created\ndata: {"type":"response.created","response":{"id":"r"}}\n\n'
IN_PROGRESS = (
    b"event: response.in_progress\n"
    b'data: {"type":"response.in_progress","response":{"id":"r"}%b}\n\n'
)
TOLD = b',"prompt_progress":{"total":9,"cache":0,"processed":4,"time_ms":1}'
TIMED = b',"timings":{"cache_n":0}' + TOLD
DELTA = b'event: response.output_text.delta\ndata: {"delta":"a"}\n\n'

# stream, what the client gets, of several prompts or choices, of the responses route
STREAMS = {
    "chat": (PROGRESS * 3 + DECODE, DECODE, False, False),
    "ping in prefill": (PROGRESS + PING + PROGRESS + DECODE, PING + DECODE, False, False),
    "no progress": (DECODE, DECODE, False, False),
    "error": (b'data: {"error":{}}\n\n', b'data: {"error":{}}\n\n', False, False),
    "nothing": (b"", b"", False, False),
    "cut in prefill": (PROGRESS + b'data: {"ch', b'data: {"ch', False, False),
    "several": (
        PROGRESS + ROLE + PROGRESS + QUOTED + PROGRESS + DECODE,
        ROLE + QUOTED + DECODE,
        True,
        False,
    ),
    "responses": (
        CREATED + IN_PROGRESS % TOLD + IN_PROGRESS % TOLD + DELTA,
        CREATED + IN_PROGRESS % b"" + DELTA,
        False,
        True,
    ),
    "responses with timings": (
        CREATED + IN_PROGRESS % TIMED + IN_PROGRESS % TIMED + DELTA,
        CREATED + IN_PROGRESS % b"" + DELTA,
        False,
        True,
    ),
    "responses with a ping": (
        CREATED + PING + IN_PROGRESS % TOLD + DELTA,
        CREATED + PING + IN_PROGRESS % b"" + DELTA,
        False,
        True,
    ),
    "responses without progress": (
        CREATED + IN_PROGRESS % b"" + DELTA,
        CREATED + IN_PROGRESS % b"" + DELTA,
        False,
        True,
    ),
    "large event": (PROGRESS + chat('"content":"%s"' % ("x" * 20000)) + END, None, False, False),
    "large event of several": (
        PROGRESS + chat('"content":"%s"' % ("x" * 20000)) + PROGRESS + END,
        chat('"content":"%s"' % ("x" * 20000)) + END,
        True,
        False,
    ),
}


def filtered(pieces: list[bytes], *, several: bool, responses: bool) -> bytes:
    """Return what a client gets of a stream that comes in `pieces`."""
    taken_out = StreamFilter(several=several, responses=responses)
    passed = b"".join(taken_out.feed(piece) for piece in pieces)
    return passed + taken_out.finish()


@pytest.mark.parametrize("name", STREAMS)
@given(data=st.data())
def test_filter_takes_out_the_progress_however_the_stream_is_cut(
    name: str, data: st.DataObject
) -> None:
    """All else is passed on byte for byte."""
    stream, expected, several, responses = STREAMS[name]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    edges = [0, *cuts, len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(edges)]
    wanted = stream.replace(PROGRESS, b"") if expected is None else expected
    assert filtered(pieces, several=several, responses=responses) == wanted


@pytest.mark.parametrize("name", STREAMS)
def test_filter_does_the_same_byte_by_byte(name: str) -> None:
    """The smallest pieces there are."""
    stream, expected, several, responses = STREAMS[name]
    wanted = stream.replace(PROGRESS, b"") if expected is None else expected
    pieces = [stream[i : i + 1] for i in range(len(stream))]
    assert filtered(pieces, several=several, responses=responses) == wanted


def test_filter_stands_aside_at_the_first_event_of_decode() -> None:
    """From there on what it is given is what it returns."""
    taken_out = StreamFilter()
    finished = []
    for given_to_it, passed in ((PROGRESS + PING, PING), (ROLE, ROLE)):
        assert taken_out.feed(given_to_it) == passed
        finished.append(taken_out.finished)
    assert finished == [False, True]
    assert taken_out.feed(END) is END


def test_filter_holds_little_of_an_event_that_never_ends() -> None:
    """An event of progress is small, so what is large is passed on before its end."""
    taken_out = StreamFilter(several=True)
    passed = b"".join(taken_out.feed(b"x" * 1000) for _ in range(100))
    assert len(passed) > 80_000


@pytest.mark.parametrize("fields", [{}, {"stream": False}, {"stream": None}])
def test_filter_is_for_streaming_clients_only(fields: dict[str, object]) -> None:
    """Another's answer is put together."""
    assert stream_filter(CHAT, fields) is None


@pytest.mark.parametrize(
    ("label", "stream"),
    [
        (CHAT, PROGRESS * 2 + DECODE),
        (RESPONSES, CREATED + IN_PROGRESS % TOLD + IN_PROGRESS % TOLD + DELTA),
    ],
)
def test_filter_keeps_the_progress_that_a_client_asked_for(label: str, stream: bytes) -> None:
    """It is only told from decode, also where there are several choices."""
    told = stream_filter(label, {"stream": True, "return_progress": True, "n": 2})
    assert told is not None
    prefill = stream.index(IN_PROGRESS % TOLD if label == RESPONSES else ROLE)
    phases = []
    for piece in (stream[:prefill], stream[prefill:]):
        assert told.feed(piece) == piece
        phases.append((told.decoding, told.finished))
    assert phases == [(False, False), (True, True)]


@pytest.mark.parametrize(
    ("label", "fields", "stays"),
    [
        (NATIVE, {"prompt": ["a", "b"]}, True),
        (CHAT, {"n": 2}, True),
        (TEXT, {"n_cmpl": 2, "prompt": "a"}, True),
        (NATIVE, {"prompt": "a", "n": 1}, False),
        (CHAT, {"prompt": ["a", "b"]}, False),
    ],
)
def test_filter_stays_while_another_choice_may_be_in_prefill(
    label: str, fields: dict[str, object], stays: bool
) -> None:
    """The first event of decode is the end of prefill for one prompt and one choice only."""
    taken_out = stream_filter(label, {**fields, "stream": True})
    assert taken_out is not None
    taken_out.feed(ROLE)
    assert taken_out.decoding
    assert taken_out.finished is not stays
