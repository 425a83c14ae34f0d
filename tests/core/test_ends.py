"""What a client is told for each end cause, and which cause an error stands for."""

from __future__ import annotations

import pytest

from proxy.core import errors
from proxy.core.causes import EndCause
from proxy.core.ends import cause_of, reply_for

SILENT = (EndCause.FINISHED, EndCause.CLIENT_DISCONNECTED, EndCause.CLIENT_TOO_SLOW)
STATUS = {
    EndCause.UPSTREAM_ERROR: 502,
    EndCause.UPSTREAM_CRASHED: 502,
    EndCause.TOKEN_EXPIRED: 401,
    EndCause.TOKEN_REVOKED: 401,
    EndCause.SUPERSEDED: 503,
    EndCause.DEADLINE_EXCEEDED: 504,
    EndCause.QUEUE_TIMEOUT: 503,
    EndCause.CANCELLED_BY_ADMIN: 503,
    EndCause.CANCELLED_BY_CLIENT: 503,
    EndCause.SHUTTING_DOWN: 503,
    EndCause.INTERNAL_ERROR: 500,
}


def reply(cause: EndCause) -> errors.HttpError:
    """Return the reply of a cause that has one."""
    found = reply_for(cause)
    assert found is not None
    return found


@pytest.mark.parametrize("cause", SILENT)
def test_reply_for_client_that_is_gone_or_served_is_none(cause: EndCause) -> None:
    """There is nobody to tell, or nothing left to say."""
    assert reply_for(cause) is None


@pytest.mark.parametrize(("cause", "status"), STATUS.items(), ids=STATUS.keys())
def test_reply_for_every_other_cause_has_its_status_and_a_sentence(
    cause: EndCause, status: int
) -> None:
    """Each has the status that its nature asks for."""
    found = reply(cause)
    assert found.status == status
    assert found.message.endswith(".")


def test_replies_cover_every_cause() -> None:
    """A cause without a reply would be a defect at the worst moment."""
    assert {*SILENT, *STATUS} == set(EndCause)


def test_replies_of_different_causes_differ() -> None:
    """A client can tell from its sentence why its request ended."""
    assert len({reply(cause).message for cause in STATUS}) == len(STATUS)


def test_reply_for_queue_timeout_says_when_to_come_again() -> None:
    """It is the one end after which waiting helps."""
    retries = {cause for cause in STATUS if reply(cause).retry_after_s is not None}
    assert retries == {EndCause.QUEUE_TIMEOUT}


def test_reply_for_crash_is_told_apart_from_a_broken_connection() -> None:
    """Both are 502, but whoever catches them sees which it was."""
    assert isinstance(reply(EndCause.UPSTREAM_CRASHED), errors.UpstreamCrashed)
    assert not isinstance(reply(EndCause.UPSTREAM_ERROR), errors.UpstreamCrashed)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (errors.UpstreamCrashed("x"), EndCause.UPSTREAM_CRASHED),
        (errors.UpstreamFailed("x"), EndCause.UPSTREAM_ERROR),
        (errors.DeadlineExceeded("x"), EndCause.DEADLINE_EXCEEDED),
        (errors.InvalidRequest("x"), EndCause.FINISHED),
        (errors.QueueFull("x"), EndCause.FINISHED),
        (errors.RelayedError(400, "t", "x"), EndCause.FINISHED),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_cause_of_error(error: errors.HttpError, cause: EndCause) -> None:
    """An error that is a complete answer to the client's request finishes the exchange."""
    assert cause_of(error) is cause
