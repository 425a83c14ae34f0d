"""The body of a request for a prediction."""

from __future__ import annotations

import json

import pytest

from proxy.core.predictions.refusals import InvalidPrediction, MalformedBody, WrongContentType
from proxy.core.predictions.requests import PredictionRequest, read_request
from proxy.core.predictions.webhooks import ALL_EVENTS, WebhookEvent

JSON = "application/json"
EMPTY = PredictionRequest(None, {}, None, ALL_EVENTS)


def read(body: object, path_id: str | None = None) -> PredictionRequest:
    """Read a JSON value."""
    return read_request(json.dumps(body).encode(), JSON, path_id)


def problems(body: object, path_id: str | None = None) -> list[tuple[str, str]]:
    """Return what is wrong with a JSON value: where, and in what words."""
    with pytest.raises(InvalidPrediction) as found:
        read(body, path_id)
    return [("/".join(problem.loc), problem.msg) for problem in found.value.detail]


def reason(body: bytes) -> str:
    """Return why a body is no JSON."""
    with pytest.raises(MalformedBody) as found:
        read_request(body, JSON, None)
    return found.value.message.removeprefix("Failed to parse the request body as JSON: ")


# -- the type and the JSON -------------------------------------------------------------------------


def test_body_that_is_empty_without_a_type_is_an_empty_input() -> None:
    """Which is enough to join a prediction."""
    assert read_request(b"", None, None) == EMPTY


def test_body_without_a_type_is_refused() -> None:
    """It would be lost silently."""
    with pytest.raises(WrongContentType):
        read_request(b"{}", None, None)


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "APPLICATION/JSON", "application/cloudevents+json"],
)
def test_type_of_json_is_taken(content_type: str) -> None:
    """In any case, with parameters, and of any suffix."""
    assert read_request(b"{}", content_type, None) == EMPTY


@pytest.mark.parametrize(
    "content_type", ["text/plain", "", "application/jsonp", "json", "text/json"]
)
def test_type_of_something_else_is_refused(content_type: str) -> None:
    """Also with an empty body."""
    with pytest.raises(WrongContentType):
        read_request(b"", content_type, None)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "Expecting value at line 1 column 1"),
        (b"{}\n x", "Extra data at line 2 column 2"),
        (b"\xff", "invalid UTF-8 at byte 0"),
        (b'{"a":NaN}', "NaN is not a value of JSON"),
        (b'{"a":1e400}', "number out of range"),
        (b"1" * 5000, "number out of range"),
        (b'{"input":{"a":"\\ud800"}}', "lone surrogate in hex escape"),
        (b"[" * 128 + b"]" * 128, "recursion limit exceeded"),
        (b"[" * 200_000, "recursion limit exceeded"),
    ],
    ids=["empty", "more", "latin", "nan", "float", "integer", "half", "nested", "deep"],
)
def test_body_that_is_not_json_is_refused_with_the_reason(body: bytes, why: str) -> None:
    """What is taken can be written again, as JSON and in UTF-8."""
    assert reason(body) == why


def test_body_with_a_character_of_two_escapes_is_taken() -> None:
    """Two halves are a whole."""
    found = read_request(b'{"input":{"a":"\\ud83d\\ude00"}}', JSON, None)
    assert found.input == {"a": "\N{GRINNING FACE}"}


def test_body_with_a_number_is_read_as_it_is() -> None:
    """With a point or without."""
    assert read({"input": {"a": 0.1, "b": 7}}).input == {"a": 0.1, "b": 7}


def test_body_as_deep_as_allowed_is_taken() -> None:
    """127 inside each other: the object, the input and 125 more."""
    found = read_request(b'{"input":{"a":' + b"[" * 125 + b"]" * 125 + b"}}", JSON, None)
    assert found.input


@pytest.mark.parametrize("body", [None, [], "x", 5])
def test_body_that_is_no_object_is_told(body: object) -> None:
    """As everything else that is wrong, by its place."""
    assert problems(body) == [("body", f'{json.dumps(body)} is not of type "object"')]


# -- the id ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "...", "x" * 128])
def test_id_of_letters_is_taken(name: str) -> None:
    """Letters, digits, dots, dashes and underscores."""
    assert read({"id": name}).id == name


@pytest.mark.parametrize(
    "name", ["", "x" * 129, "../x", ".", "..", "a b", "é", "a\n"], ids=lambda name: repr(name)[:9]
)
def test_id_of_anything_else_is_told(name: str) -> None:
    """It is part of paths and of names of tasks."""
    assert [where for where, _ in problems({"id": name})] == ["body/id"]
    assert [where for where, _ in problems({}, name)] == ["path/prediction_id"]


def test_id_that_is_null_is_absent() -> None:
    """One is made then."""
    assert read({"id": None}).id is None


def test_id_that_is_no_text_is_told() -> None:
    """Cog says it as text."""
    assert problems({"id": 5}) == [("body/id", '5 is not of type "string"')]


@pytest.mark.parametrize("body", [{}, {"id": None}, {"id": "a"}])
def test_id_in_the_path_is_taken(body: object) -> None:
    """The body may repeat it."""
    assert read(body, "a").id == "a"


def test_id_that_differs_from_the_paths_is_told() -> None:
    """In Cog's words."""
    words = "prediction ID must match the ID supplied in the URL"
    assert problems({"id": "b"}, "a") == [("body/id", words)]


# -- the other members -----------------------------------------------------------------------------


@pytest.mark.parametrize("body", [{}, {"input": None}, {"input": {}}, {"unknown": 1}])
def test_input_that_is_absent_is_empty(body: object) -> None:
    """Null is absent, and members that nobody knows are ignored."""
    assert read(body) == EMPTY


def test_input_is_taken_unchecked() -> None:
    """Whether it can be answered is for who needs an answer."""
    assert read({"input": {"prompt": 5}}).input == {"prompt": 5}


def test_input_that_is_no_object_is_told() -> None:
    """In Cog's words, at Cog's place."""
    assert problems({"input": [1]}) == [("body/input/__root__", '[1] is not of type "object"')]


def test_context_is_ignored() -> None:
    """Cog knows it and hands it to its model."""
    assert read({"context": {"a": 5}}) == EMPTY


@pytest.mark.parametrize("value", [5, None])
def test_context_that_is_no_object_is_told(value: object) -> None:
    """Null neither."""
    assert [where for where, _ in problems({"context": value})] == ["body/context"]


def test_webhook_that_is_a_url_is_taken() -> None:
    """In parts, checked."""
    found = read({"webhook": "https://example.com/hook"}).webhook
    assert found is not None
    assert (found.host, found.target) == ("example.com", "/hook")


@pytest.mark.parametrize("value", ["not a url", "", "ftp://x/y", "http://", 5])
def test_webhook_that_is_no_url_is_told(value: object) -> None:
    """Cog takes it, and nothing ever arrives."""
    assert [where for where, _ in problems({"webhook": value})] == ["body/webhook"]


def test_webhook_to_this_machine_is_told() -> None:
    """Through it a client could reach what only this machine can reach."""
    assert [where for where, _ in problems({"webhook": "http://127.0.0.1/"})] == ["body/webhook"]


def test_webhook_to_this_machine_is_taken_where_it_is_allowed() -> None:
    """For receivers beside the proxy."""
    body = b'{"webhook":"http://127.0.0.1/"}'
    found = read_request(body, JSON, None, allow_private_webhooks=True)
    assert found.webhook is not None


def test_webhook_that_is_null_is_absent() -> None:
    """As with Cog."""
    assert read({"webhook": None}).webhook is None


def test_filter_names_events() -> None:
    """Each once."""
    found = read({"webhook_events_filter": ["logs", "start", "start"]})
    assert found.webhook_events_filter == {WebhookEvent.START, WebhookEvent.LOGS}


def test_filter_that_is_empty_asks_for_none() -> None:
    """It is not the same as no filter."""
    assert read({"webhook_events_filter": []}).webhook_events_filter == frozenset()


@pytest.mark.parametrize("value", [None, "start", {}])
def test_filter_that_is_no_list_is_told(value: object) -> None:
    """Null neither, as with Cog."""
    assert problems({"webhook_events_filter": value}) == [
        ("body/webhook_events_filter", f'{json.dumps(value)} is not of type "array"')
    ]


def test_filter_with_an_unknown_event_is_told() -> None:
    """With its place in the list."""
    (found,) = problems({"webhook_events_filter": ["start", "Start"]})
    assert found[0] == "body/webhook_events_filter/1"
    assert "expected one of `start`, `output`, `logs`, `completed`" in found[1]


def test_everything_that_is_wrong_is_told_at_once() -> None:
    """In the order of the id, the input, and where to report."""
    body = {"webhook": 5, "id": 5, "webhook_events_filter": 5, "input": 5, "context": 5}
    assert [where for where, _ in problems(body)] == [
        "body/id",
        "body/context",
        "body/input/__root__",
        "body/webhook",
        "body/webhook_events_filter",
    ]
