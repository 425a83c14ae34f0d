"""What promise tests share: the listeners, each of which keeps every promise."""

from __future__ import annotations

from typing import cast

import pytest

from tests.promises.listeners import LISTENERS, Listener


@pytest.fixture(params=LISTENERS, ids=[listener.name for listener in LISTENERS])
def listener(request: pytest.FixtureRequest) -> Listener:
    """One of the listeners, in turn."""
    return cast(Listener, request.param)
