"""What a request for a prediction is refused with, in Cog's words and shapes.

Owns the bodies: plain text for what is no JSON, `{"detail": [...]}` for what has the wrong shape,
`{"error", "status"}` for what cannot run now. None of them has a request id, which is in a header
anyway. It must never decide what is refused.

Source: coglet 0.23.1, as it answers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from proxy.core.errors import HttpError, Origin
from proxy.core.predictions.shapes import to_json

_MISSING = "value_error.missing"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong in a request.

    Attributes:
        loc: Where it is: `body` and the names on the way; of an element `name/0`.
        msg: What is wrong with it.
        type: Cog's word for the kind of problem.
    """

    loc: tuple[str, ...]
    msg: str
    type: str = "value_error"

    @classmethod
    def missing(cls, *loc: str) -> Problem:
        """Return the problem of a member that has to be there."""
        return cls(loc, "Field required", _MISSING)


class MalformedBody(HttpError):
    """The body is not JSON.

    Args:
        reason: What is wrong, and where.
    """

    status = 400
    type = "invalid_request_error"
    origin = Origin.CLIENT

    def __init__(self, reason: str) -> None:
        super().__init__(f"Failed to parse the request body as JSON: {reason}")

    def as_body(self, request_id: str | None = None) -> bytes:  # noqa: ARG002
        """Return the message alone."""
        return self.message.encode()

    def as_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of plain text."""
        return [(b"Content-Type", b"text/plain; charset=utf-8")]


class WrongContentType(MalformedBody):
    """The body says that it is something else than JSON, or says nothing."""

    status = 415

    def __init__(self) -> None:
        HttpError.__init__(self, "Expected request with `Content-Type: application/json`")


class _InJson(HttpError):
    """What Cog tells as an object of its own."""

    def as_headers(self) -> list[tuple[bytes, bytes]]:
        """Return the usual headers, with Cog's name for JSON: it has no charset (RFC 8259)."""
        _, *others = super().as_headers()
        return [(b"Content-Type", b"application/json"), *others]


class InvalidPrediction(_InJson):
    """The body is JSON, but not a request for a prediction that can be made.

    Args:
        detail: Everything that is wrong, in the order in which it is told; at least one.
    """

    status = 422
    type = "invalid_request_error"
    origin = Origin.CLIENT

    def __init__(self, detail: Iterable[Problem]) -> None:
        super().__init__("The request for a prediction is not valid.")
        self.detail = tuple(detail)

    def as_body(self, request_id: str | None = None) -> bytes:  # noqa: ARG002
        """Return the list of what is wrong."""
        told = [{"loc": list(each.loc), "msg": each.msg, "type": each.type} for each in self.detail]
        return to_json({"detail": told})


class _NotRun(_InJson):
    """The request is valid, and nothing is run for it."""

    def as_body(self, request_id: str | None = None) -> bytes:  # noqa: ARG002
        """Return the message and the status of what never ran."""
        return to_json({"error": self.message, "status": "failed"})


class AtCapacity(_NotRun):
    """Every permit is taken and the queue is full.

    Args:
        retry_after_s: After how many whole seconds it may be worth to ask again.
    """

    status = 409
    type = "rate_limit_error"

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("At capacity - all prediction slots busy", retry_after_s=retry_after_s)


class IdInUse(_NotRun):
    """A `POST` names an id that a prediction has already."""

    status = 409
    type = "invalid_request_error"
    origin = Origin.CLIENT

    def __init__(self) -> None:
        super().__init__(
            "A prediction with this id exists. Use PUT /predictions/{id} to join it, or another id."
        )


class NotSetUp(_NotRun):
    """The model is not loaded: not yet, not again, or it cannot be."""

    status = 503
    type = "unavailable_error"

    def __init__(self) -> None:
        super().__init__(
            "Setup has not finished yet. Wait until it has finished, or GET /health-check for"
            " status."
        )


class TooManySubscribers(_InJson):
    """As many streams of one prediction are open as there may be."""

    status = 429
    type = "rate_limit_error"

    def __init__(self) -> None:
        super().__init__("Too many stream subscribers")

    def as_body(self, request_id: str | None = None) -> bytes:  # noqa: ARG002
        """Return the message."""
        return to_json({"error": self.message})


class NothingToCancel(_InJson):
    """No prediction with this id is running."""

    status = 404
    type = "not_found_error"
    origin = Origin.CLIENT

    def __init__(self) -> None:
        super().__init__("No such prediction is running.")

    def as_body(self, request_id: str | None = None) -> bytes:  # noqa: ARG002
        """Return the empty object."""
        return b"{}"
