"""A text completion in OpenAI's form out of its chunks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.assembly.completions import CompletionsAssembler
from proxy.core.errors import UpstreamFailed

USAGE = {"completion_tokens": 2}
DONE = b"data: [DONE]\n\n"
NATIVE = {"index": 0, "content": "", "tokens": [7], "stop": False, "tokens_predicted": 2}
LAST = {**NATIVE, "tokens": [], "stop": True, "generation_settings": {"stream": True}}


def chunk(
    text: str,
    finish_reason: str | None = None,
    *,
    index: int = 0,
    logprobs: object = None,
    **rest: object,
) -> bytes:
    """Return one chunk as llama-server writes it."""
    choice = {"text": text, "index": index, "logprobs": logprobs, "finish_reason": finish_reason}
    head = {"created": 5, "model": "m", "system_fingerprint": "b", "object": "text_completion"}
    return f"data: {json.dumps({'choices': [choice], **head, **rest})}\n\n".encode()


def ended(index: int = 0, **rest: object) -> bytes:
    """Return the last chunk of a choice."""
    last: dict[str, Any] = {"usage": USAGE, "id": f"c{index}", **rest, "timings": {}}
    return chunk("", "stop", index=index, **last)


def assembled(*events: bytes, **fields: object) -> Any:
    """Return the answer that `events` become, for a request of `fields`."""
    assembler = CompletionsAssembler(fields)
    for found in events:
        assembler.feed(found)
    return json.loads(assembler.finish().body)


def test_text_completion_is_its_last_chunk_with_the_text_of_all() -> None:
    """llama-server's own form within, which the client did not ask for, is left out."""
    progress = chunk("", prompt_progress={"total": 1})
    native: dict[str, Any] = {"__verbose": NATIVE}
    answer = assembled(
        progress, chunk("a", **native), chunk("b", **native), ended(__verbose=LAST), DONE
    )
    assert list(answer.items()) == [
        ("choices", [{"text": "ab", "index": 0, "logprobs": None, "finish_reason": "stop"}]),
        ("created", 5),
        ("model", "m"),
        ("system_fingerprint", "b"),
        ("object", "text_completion"),
        ("usage", USAGE),
        ("id", "c0"),
        ("timings", {}),
    ]


def test_text_completion_of_a_llama_server_without_the_verbose_form_is_whole() -> None:
    """An older one does not know that it can be asked for."""
    answer = assembled(chunk("a"), chunk("b"), ended(), DONE)
    assert answer["choices"][0]["text"] == "ab"


def test_text_completion_has_the_verbose_form_for_a_client_that_asked_for_it() -> None:
    """As it is in an answer in one piece, before the timings."""
    answer = assembled(chunk("a", __verbose=NATIVE), ended(__verbose=LAST), DONE, verbose=True)
    assert list(answer)[-2:] == ["__verbose", "timings"]
    assert answer["__verbose"]["content"] == "a"
    assert answer["__verbose"]["generation_settings"]["stream"] is False


def test_text_completion_has_the_probabilities_of_all_its_tokens() -> None:
    """Each chunk tells those of one."""
    told = [chunk("a", logprobs={"content": [{"id": i}]}) for i in (1, 2)]
    answer = assembled(*told, ended(), DONE, logprobs=1)
    assert answer["choices"][0]["logprobs"] == {"content": [{"id": 1}, {"id": 2}]}


def test_text_completion_of_several_choices_has_them_in_order_and_the_rest_of_the_first() -> None:
    """Their chunks are mixed."""
    answer = assembled(chunk("b", index=1), ended(1), chunk("a"), ended(0), DONE)
    assert [(choice["index"], choice["text"]) for choice in answer["choices"]] == [
        (0, "a"),
        (1, "b"),
    ]
    assert answer["id"] == "c0"


def test_text_completion_without_its_terminator_is_no_answer() -> None:
    """Another choice may have been to come."""
    with pytest.raises(UpstreamFailed):
        assembled(chunk("a"), ended())
