"""Media in a request's body must be in the body."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import InvalidRequest
from proxy.core.media import refuse_foreign_media

URL = "http://169.254.169.254/latest/meta-data"
DATA = "data:image/png;base64,iVBORw0KGgo="


def chat(part: object) -> object:
    """Return a chat request with one part."""
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "see"}, part]}]}


Make = Callable[[str], object]

# Shape by shape: what makes the body of a URL, and the field that the message must name.
SHAPES = [
    pytest.param(
        lambda url: chat({"type": "image_url", "image_url": {"url": url}}),
        "messages[0].content[1].image_url.url",
        id="chat, object",
    ),
    pytest.param(
        lambda url: chat({"type": "image_url", "image_url": url}),
        "messages[0].content[1].image_url",
        id="chat, string",
    ),
    pytest.param(
        lambda url: chat({"type": "input_audio", "input_audio": {"url": url}}),
        "messages[0].content[1].input_audio.url",
        id="chat, audio",
    ),
    pytest.param(
        lambda url: chat({"type": "input_video", "input_video": {"url": url}}),
        "messages[0].content[1].input_video.url",
        id="chat, video",
    ),
    pytest.param(
        lambda url: chat({"type": "anything", "video_url": {"url": url}}),
        "messages[0].content[1].video_url.url",
        id="chat, whatever its type says",
    ),
    pytest.param(
        lambda url: {"messages": [{"content": {"image_url": url}}]},
        "messages[0].content.image_url",
        id="chat, content not in a list",
    ),
    pytest.param(
        lambda url: {"input": [{"role": "user", "content": [{"image_url": url}]}]},
        "input[0].content[0].image_url",
        id="responses, message",
    ),
    pytest.param(
        lambda url: {"input": [{"type": "input_image", "image_url": url}]},
        "input[0].image_url",
        id="responses, item",
    ),
    pytest.param(
        lambda url: {"input": [{"type": "input_file", "file_url": url}]},
        "input[0].file_url",
        id="responses, file",
    ),
    pytest.param(
        lambda url: {"input": [{"type": "function_call_output", "output": [{"image_url": url}]}]},
        "input[0].output[0].image_url",
        id="responses, output of a call",
    ),
    pytest.param(
        lambda url: {"input": [{"output": {"type": "computer_screenshot", "image_url": url}}]},
        "input[0].output.image_url",
        id="responses, screenshot",
    ),
    pytest.param(
        lambda url: chat({"type": "image", "source": {"type": "url", "url": url}}),
        "messages[0].content[1].source.url",
        id="messages",
    ),
    pytest.param(
        lambda url: chat({"type": "tool_result", "content": [{"source": {"url": url}}]}),
        "messages[0].content[1].content[0].source.url",
        id="messages, tool result",
    ),
    pytest.param(
        lambda url: {"system": [{"type": "image", "source": {"url": url}}]},
        "system[0].source.url",
        id="messages, system",
    ),
]
# The same where base64 is expected.
DATA_SHAPES = [
    pytest.param(
        lambda data: chat({"type": "input_audio", "input_audio": {"data": data}}),
        "messages[0].content[1].input_audio.data",
        id="audio data",
    ),
    pytest.param(
        lambda data: {"prompt": {"prompt_string": "p", "multimodal_data": ["iVBO", data]}},
        "prompt.multimodal_data[1]",
        id="completion",
    ),
    pytest.param(
        lambda data: {"prompt": [{"prompt_string": "p", "multimodal_data": [data]}]},
        "prompt[0].multimodal_data[0]",
        id="completion, several",
    ),
    pytest.param(
        lambda data: {"content": [{"prompt_string": "p", "multimodal_data": [data]}]},
        "content[0].multimodal_data[0]",
        id="embeddings",
    ),
]

FOREIGN = [
    URL,
    "https://example.org/a.png",
    "HTTP://EXAMPLE.ORG/",
    " http://example.org/",
    "\n\t\0http://example.org/",
    "file:///etc/passwd",
    "File:relative.png",
    "ftp://example.org/",
    "gopher:x",
]


@pytest.mark.parametrize(("make", "field"), [*SHAPES, *DATA_SHAPES])
@pytest.mark.parametrize("url", FOREIGN)
def test_foreign_url_is_refused_by_its_field(make: Make, field: str, url: str) -> None:
    """Whatever the shape and the scheme, the client is told where it is, and not what it is."""
    with pytest.raises(InvalidRequest, match="^" + re.escape(field) + " must be a data: URL"):
        refuse_foreign_media(make(url))


@pytest.mark.parametrize(("make", "field"), [*SHAPES, *DATA_SHAPES])
@pytest.mark.parametrize("url", [DATA, "DATA:image/png;base64,iVBO", " data:,x"])
def test_data_url_passes(make: Make, field: str, url: str) -> None:
    """What is in the body needs no fetching."""
    refuse_foreign_media(make(url))


@pytest.mark.parametrize(("make", "field"), SHAPES)
@pytest.mark.parametrize("url", ["", "httpfoo", "//example.org", "iVBORw0KGgo=", "dat", "data"])
def test_url_field_with_anything_else_is_refused(make: Make, field: str, url: str) -> None:
    """In a URL's place only `data:` is taken: llama-server fetches all that begins with http."""
    with pytest.raises(InvalidRequest):
        refuse_foreign_media(make(url))


@pytest.mark.parametrize(("make", "field"), DATA_SHAPES)
@pytest.mark.parametrize("data", ["", "iVBORw0KGgo=", "UklGRiQ/+A=="])
def test_base64_passes_where_it_is_expected(make: Make, field: str, data: str) -> None:
    """Plain base64 is media in the body too."""
    refuse_foreign_media(make(data))


@pytest.mark.parametrize(("make", "field"), DATA_SHAPES)
def test_data_field_that_llama_server_would_fetch_is_refused(make: Make, field: str) -> None:
    """It takes what begins with http for a URL, also without a colon."""
    with pytest.raises(InvalidRequest):
        refuse_foreign_media(make("httpAAAA"))


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        "http://example.org",
        3,
        {},
        {"messages": None},
        {"messages": "http://example.org"},
        {"messages": [None, 1, "http://example.org", {"content": None}, {"content": URL}]},
        {"prompt": URL},
        {"prompt": [URL, 1, [2, 3]]},
        {"input": URL},
        chat({"type": "text", "text": URL}),
        chat({"type": "image_url", "image_url": None}),
        chat({"type": "image_url", "image_url": {"url": None}}),
        chat({"type": "image_url", "image_url": [URL]}),
        chat({"source": {"data": 1}, "multimodal_data": URL}),
        chat({"multimodal_data": [1, None]}),
        chat({"type": "search_result", "source": URL, "content": [{"type": "text", "text": URL}]}),
        chat({"type": "document", "source": {"type": "text", "data": "Note: see " + URL}}),
        {"messages": [{"role": "user", "source": "forum", "content": "hi"}]},
        chat({"type": "tool_use", "input": {"image_url": URL, "source": {"url": URL}}}),
        {"messages": [{"tool_calls": [{"function": {"arguments": f'{{"image_url":"{URL}"}}'}}]}]},
        {"tools": [{"parameters": {"properties": {"image_url": {"url": URL, "default": URL}}}}]},
        {"tools": [{"input_schema": {"source": {"url": URL}}}], "metadata": {"source": URL}},
        {"response_format": {"json_schema": {"image_url": URL}}, "image_url": URL},
    ],
    ids=repr,
)
def test_what_is_no_media_passes(body: object) -> None:
    """Text, tool schemas, tool arguments and malformed bodies are llama-server's to judge."""
    refuse_foreign_media(body)


def test_deep_nesting_is_no_way_around_and_no_crash() -> None:
    """A body may be nested deeper than Python's own stack."""
    body: object = {"image_url": URL}
    for _ in range(5000):
        body = {"content": [body]}
    with pytest.raises(InvalidRequest):
        refuse_foreign_media(body)


JSON = st.recursive(
    st.none() | st.integers() | st.sampled_from([URL, DATA, "text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["messages", "content", "input", "image_url", "url", "source", "data"]),
            inner,
            max_size=3,
        )
    ),
)


def refusal_of(body: object) -> str:
    """Return what a client is told; nothing if the body passes."""
    try:
        refuse_foreign_media(body)
    except InvalidRequest as error:
        return error.message
    return ""


@given(JSON)
def test_any_body_passes_or_is_refused_without_an_echo(body: object) -> None:
    """No JSON value makes it fail in another way, and none is repeated in the message."""
    assert URL not in refusal_of(body)
