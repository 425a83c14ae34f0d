"""How an error looks inside a stream."""

from __future__ import annotations

import json

import pytest

from proxy.core.dialects import error_event
from proxy.core.errors import HttpError, UpstreamCrashed
from proxy.core.routes import Dialect
from proxy.core.sse import Event, EventDecoder

CRASHED = UpstreamCrashed("llama-server died of signal 9 (SIGKILL).")
IN_LLAMA_SERVERS_SHAPE = {
    "code": 502,
    "message": CRASHED.message,
    "type": "upstream_error",
    "request_id": "r1",
}


def read(dialect: Dialect, error: HttpError = CRASHED, request_id: str | None = "r1") -> Event:
    """Return the one event that a client reads."""
    (event,) = EventDecoder().feed(error_event(dialect, error, request_id))
    return event


def test_error_event_openai_is_an_unnamed_event_with_an_error() -> None:
    """OpenAI's clients and llama-server's look for `error` in the data."""
    event = read(Dialect.OPENAI)
    assert event.event == "message"
    assert json.loads(event.data) == {"error": IN_LLAMA_SERVERS_SHAPE}


def test_error_event_anthropic_is_their_error_event() -> None:
    """Anthropic's event is named, and its error has a type and a message alone."""
    event = read(Dialect.ANTHROPIC)
    assert event.event == "error"
    assert json.loads(event.data) == {
        "type": "error",
        "error": {"type": "upstream_error", "message": CRASHED.message},
        "request_id": "r1",
    }


def test_error_event_responses_is_openais_event_and_an_error_too() -> None:
    """The flat fields are the API's; `error` is what makes the openai package raise."""
    event = read(Dialect.RESPONSES)
    assert event.event == "error"
    assert json.loads(event.data) == {
        "type": "error",
        "code": "upstream_error",
        "message": CRASHED.message,
        "param": None,
        "sequence_number": 0,
        "error": IN_LLAMA_SERVERS_SHAPE,
    }


@pytest.mark.parametrize("dialect", Dialect)
def test_error_event_without_request_id_has_no_such_field(dialect: Dialect) -> None:
    """An absent id is left out, not null."""
    assert "request_id" not in read(dialect, request_id=None).data


@pytest.mark.parametrize("dialect", Dialect)
def test_error_event_never_says_done_nor_is_cut_by_a_message(dialect: Dialect) -> None:
    """A message with line ends stays in one event, and nothing claims a complete answer."""
    error = UpstreamCrashed("one\r\n\r\ndata: two\u2028")
    raw = error_event(dialect, error, "r1")
    assert b"[DONE]" not in raw
    assert raw.endswith(b"\n\n")
    assert error.message in json.dumps(
        json.loads(read(dialect, error).data), ensure_ascii=False
    ).replace("\\r\\n", "\r\n")
