"""The seam to httpx: its errors become ours, however they come."""

from __future__ import annotations

import httpx
import pytest

from proxy.client.errors import StreamBroken, StreamFailed
from proxy.client.transport import _translated


def broken(error: Exception) -> StreamFailed:
    """Make our error, with the name of httpx's."""
    return StreamBroken(type(error).__name__)


def test_error_of_httpx_is_ours_with_it_as_its_cause() -> None:
    """A single one, as it mostly comes."""
    theirs = httpx.ReadError("gone")
    with pytest.raises(StreamBroken, match="ReadError") as caught, _translated(broken):
        raise theirs
    assert caught.value.__cause__ is theirs


def test_errors_of_httpx_in_a_group_are_one_of_ours() -> None:
    """However deep; the first is the cause."""
    theirs = httpx.ReadError("gone")
    inner = ExceptionGroup("inner", [theirs, httpx.RemoteProtocolError("half")])
    with pytest.raises(StreamBroken, match="ReadError") as caught, _translated(broken):
        raise ExceptionGroup("outer", [inner])
    assert caught.value.__cause__ is theirs


def test_other_error_beside_one_of_httpx_is_not_lost() -> None:
    """It is the graver one: a defect, or a cancellation."""
    with pytest.raises(ExceptionGroup) as caught, _translated(broken):
        raise ExceptionGroup("both", [httpx.ReadError("gone"), LookupError()])
    assert [type(each) for each in caught.value.exceptions] == [LookupError]


def test_other_error_passes_as_itself() -> None:
    """What is not httpx's is not looked at."""
    with pytest.raises(LookupError), _translated(broken):
        raise LookupError
