"""What all assemblers have in common."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.assembly import AnsweredError, Assembler, assembler_for
from proxy.core.assembly.chat import ChatAssembler
from proxy.core.assembly.completion import CompletionAssembler
from proxy.core.assembly.completions import CompletionsAssembler
from proxy.core.assembly.messages import MessagesAssembler
from proxy.core.assembly.responses import ResponsesAssembler
from proxy.core.assembly.seam import Answer, Raw, encode
from proxy.core.errors import UpstreamFailed

OVERFLOW = {
    "code": 400,
    "message": "too long",
    "type": "exceed_context_size_error",
    "n_prompt_tokens": 9,
    "n_ctx": 4,
}
PLAIN = f"data: {json.dumps({'error': OVERFLOW})}\n\n".encode()
NAMED = f"event: error\ndata: {json.dumps(OVERFLOW)}\n\n".encode()


def every() -> list[tuple[Assembler, bytes]]:
    """Return one assembler of each kind, with an error as its route tells it."""
    return [
        (ChatAssembler(), PLAIN),
        (CompletionAssembler({}), PLAIN),
        (CompletionsAssembler({}), PLAIN),
        (ResponsesAssembler(), PLAIN),
        (MessagesAssembler({}), NAMED),
    ]


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        ("/chat/completions", ChatAssembler),
        ("/v1/chat/completions", ChatAssembler),
        ("/completion", CompletionAssembler),
        ("/completions", CompletionAssembler),
        ("/infill", CompletionAssembler),
        ("/v1/completions", CompletionsAssembler),
        ("/responses", ResponsesAssembler),
        ("/v1/responses", ResponsesAssembler),
        ("/v1/messages", MessagesAssembler),
    ],
)
def test_assembler_is_the_one_of_the_route(label: str, kind: type[Assembler]) -> None:
    """Each route that generates has one."""
    assert type(assembler_for(label, {})) is kind


@pytest.mark.parametrize("fields", [{"stream": True}, {"logprobs": True}])
def test_assembler_is_none_where_nothing_is_to_be_assembled(fields: dict[str, object]) -> None:
    """The client asked for a stream, or a stream cannot carry the answer."""
    assert assembler_for("/v1/chat/completions", fields) is None


@pytest.mark.parametrize(("assembler", "stream"), every())
def test_error_in_the_stream_is_raised_as_llama_server_told_it(
    assembler: Assembler, stream: bytes
) -> None:
    """Status and body are those of an answer in one piece, with members of its own."""
    with pytest.raises(AnsweredError) as caught:
        assembler.feed(stream)
    assert caught.value.status == 400
    assert json.loads(caught.value.as_body("r1")) == {"error": OVERFLOW}


@pytest.mark.parametrize("code", [200, 600, "400", None])
def test_error_without_a_status_of_its_own_has_500(code: object) -> None:
    """A status line needs one that says error."""
    assert AnsweredError({"code": code}).status == 500


@pytest.mark.parametrize(("assembler", "stream"), every())
def test_stream_that_ends_early_is_no_answer(assembler: Assembler, stream: bytes) -> None:
    """Half an answer is never told for a whole one."""
    with pytest.raises(UpstreamFailed, match="before the end"):
        assembler.finish()


@pytest.mark.parametrize("data", ["x", "[]", "3", "{}", '{"choices":[{}]}', '{"choices":3}'])
@pytest.mark.parametrize(
    ("assembler", "stream"), [pair for pair in every() if type(pair[0]) is not ChatAssembler]
)
def test_event_that_is_not_llama_servers_is_refused(
    assembler: Assembler, stream: bytes, data: str
) -> None:
    """Something that is not llama-server answers in its place."""
    with pytest.raises(UpstreamFailed, match="not understood"):
        assembler.feed(f"data: {data}\n\n".encode())


@pytest.mark.parametrize(("assembler", "stream"), every())
def test_event_of_nothing_is_passed_over(assembler: Assembler, stream: bytes) -> None:
    """llama-server begins a second prompt with it, where it tells no progress."""
    assembler.feed(b"data: null\n\n")


@pytest.mark.parametrize(
    ("assembler", "prefill", "first"),
    [
        (
            CompletionAssembler({}),
            b'data: {"index":0,"stop":false,"prompt_progress":{"total":4}}\n\n',
            b'data: {"index":0,"stop":false,"content":",\\"prompt_progress\\":{"}\n\n',
        ),
        (
            ResponsesAssembler(),
            b"event: response.created\ndata: {}\n\nevent: response.in_progress\ndata: {}\n\n",
            b"event: response.output_item.added\ndata: {}\n\n",
        ),
        (MessagesAssembler({}), b":\n\n", b'data: {"type":"ping"}\n\n'),
    ],
)
def test_assembler_tells_prefill_from_decode(
    assembler: Assembler, prefill: bytes, first: bytes
) -> None:
    """What comes before the first token is not decode, and a token that looks like it is."""
    seen = []
    for data in (prefill, first):
        assembler.feed(data)
        seen.append(assembler.decoding)
    assert seen == [False, True]


def test_event_over_the_limit_is_refused() -> None:
    """An event that never ends takes no memory without end."""
    with pytest.raises(UpstreamFailed, match="larger than"):
        ResponsesAssembler().feed(b"x" * (16 * 2**20 + 1))


@pytest.mark.parametrize(
    ("assembler", "event"),
    [
        (ChatAssembler(99), {"choices": [{"index": 0, "delta": {"content": "x" * 10}}]}),
        (ChatAssembler(99), {"choices": [{"index": 0, "delta": {"reasoning_content": "x" * 10}}]}),
        (
            ChatAssembler(99),
            {
                "choices": [
                    {
                        "index": 0,
                        "delta": {"tool_calls": [{"index": 0, "function": {"arguments": "12345"}}]},
                    }
                ]
            },
        ),
        (CompletionAssembler({}, 99), {"index": 0, "content": "x" * 10, "stop": False}),
        (
            CompletionAssembler({"n_probs": 1}, 99),
            {"index": 0, "content": "", "stop": False, "completion_probabilities": [{"id": 1}]},
        ),
        (
            CompletionsAssembler({}, 99),
            {"choices": [{"index": 0, "text": "x" * 10, "finish_reason": None}]},
        ),
        (
            MessagesAssembler({}, max_answer_bytes=99),
            {
                "type": "content_block_delta",
                "index": 0,
                "delta": {"type": "text_delta", "text": "x" * 10},
            },
        ),
        (ResponsesAssembler(99), {"response": {"output": ["x" * 10]}}),
    ],
)
def test_answer_over_the_limit_is_refused(assembler: Assembler, event: dict[str, Any]) -> None:
    """What is kept of one answer is bounded (P4)."""
    stream = f"data: {json.dumps(event)}\n\n".encode() * 20
    with pytest.raises(UpstreamFailed, match="64 MiB; ask for it as a stream"):
        assembler.feed(stream)


def test_answer_has_the_headers_of_llama_servers() -> None:
    """A JSON text of known length."""
    assert Answer(200, b"{}").headers == [
        (b"Content-Type", b"application/json; charset=utf-8"),
        (b"Content-Length", b"2"),
    ]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(json_values)
def test_encode_is_read_as_what_was_written(value: object) -> None:
    """Of every value JSON has; not a digit of a number is lost."""
    assert json.loads(encode(value)) == value


def test_encode_writes_no_spaces_no_escapes_and_raw_text_as_it_is() -> None:
    """As llama-server does."""
    assert encode({"a": [1, Raw(b'{"b":2}')], "é": "ü"}) == '{"a":[1,{"b":2}],"é":"ü"}'.encode()
