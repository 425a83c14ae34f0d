"""What clients are told when a prediction is refused: Cog's bodies."""

from __future__ import annotations

import json

import pytest

from proxy.core.errors import HttpError
from proxy.core.predictions.refusals import (
    AtCapacity,
    IdInUse,
    InvalidPrediction,
    MalformedBody,
    NothingToCancel,
    NotSetUp,
    Problem,
    TooManySubscribers,
    WrongContentType,
)

TEXT = [(b"Content-Type", b"text/plain; charset=utf-8")]
PROBLEM = Problem(("body", "input", "prompt"), "5 is not wanted")


def test_malformed_body_is_told_as_text() -> None:
    """Cog's first words, then the reason."""
    error = MalformedBody("it ends early")
    assert error.as_body("r1") == b"Failed to parse the request body as JSON: it ends early"
    assert error.as_headers() == TEXT


def test_wrong_content_type_is_told_as_text() -> None:
    """In Cog's words."""
    error = WrongContentType()
    assert error.as_body("r1") == b"Expected request with `Content-Type: application/json`"
    assert error.as_headers() == TEXT


def test_invalid_prediction_lists_what_is_wrong() -> None:
    """Compact, with the keys in the order of the alphabet, and no request id."""
    error = InvalidPrediction([PROBLEM, Problem.missing("body", "input", "prompt")])
    assert error.as_body("r1") == (
        b'{"detail":[{"loc":["body","input","prompt"],"msg":"5 is not wanted","type":"value_error"}'
        b',{"loc":["body","input","prompt"],"msg":"Field required","type":"value_error.missing"}]}'
    )


def test_at_capacity_is_cogs_text() -> None:
    """Software that knows Cog looks for it."""
    assert AtCapacity(3).as_body() == (
        b'{"error":"At capacity - all prediction slots busy","status":"failed"}'
    )


def test_at_capacity_says_when_to_ask_again() -> None:
    """Which Cog does not."""
    assert (b"Retry-After", b"3") in AtCapacity(3).as_headers()


def test_not_set_up_is_cogs_text() -> None:
    """Software that knows Cog waits then."""
    assert NotSetUp().as_body() == (
        b'{"error":"Setup has not finished yet. Wait until it has finished, or GET /health-check'
        b' for status.","status":"failed"}'
    )


def test_id_in_use_has_the_shape_of_the_other_409() -> None:
    """A client reads both alike."""
    assert json.loads(IdInUse().as_body()).keys() == {"error", "status"}


def test_too_many_subscribers_is_cogs_text() -> None:
    """Without a status: the prediction goes on."""
    assert TooManySubscribers().as_body() == b'{"error":"Too many stream subscribers"}'


def test_nothing_to_cancel_is_an_empty_object() -> None:
    """As Cog answers it."""
    assert NothingToCancel().as_body() == b"{}"


@pytest.mark.parametrize(
    "error",
    [NothingToCancel(), IdInUse(), InvalidPrediction([PROBLEM]), TooManySubscribers(), NotSetUp()],
    ids=lambda error: type(error).__name__,
)
def test_refusal_in_json_has_cogs_content_type(error: HttpError) -> None:
    """Without a charset, which clients that compare the whole value do not expect."""
    assert error.as_headers() == [(b"Content-Type", b"application/json")]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (MalformedBody("x"), 400),
        (NothingToCancel(), 404),
        (AtCapacity(1), 409),
        (IdInUse(), 409),
        (WrongContentType(), 415),
        (InvalidPrediction([PROBLEM]), 422),
        (TooManySubscribers(), 429),
        (NotSetUp(), 503),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, HttpError) else str(value),
)
def test_refusal_has_cogs_status(error: HttpError, status: int) -> None:
    """The status that Cog answers in the same case."""
    assert error.status == status
