"""Tests for the limits on a request."""

from __future__ import annotations

import pytest

from proxy.core.errors import BodyTooLarge
from proxy.core.request_limits import Limits


@pytest.mark.parametrize(
    ("max_body", "longest"),
    [
        pytest.param(0, 0, id="0"),
        pytest.param(9, 9, id="9"),
        pytest.param(None, 2**63 - 1, id="no"),
    ],
)
def test_check_body_refuses_one_byte_over_the_limit(max_body: int | None, longest: int) -> None:
    """A body may be as long as its limit; without one, as a signed 64-bit length can say."""
    limits = Limits(max_body=max_body)
    limits.check_body(longest)
    with pytest.raises(BodyTooLarge):
        limits.check_body(longest + 1)
