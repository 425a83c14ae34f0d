"""What client tests look at beside the client: why exchanges ended; and what they clear away."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator

import pytest

from proxy import EndCause

Causes = Callable[[], list[EndCause]]


@pytest.fixture
def causes(caplog: pytest.LogCaptureFixture) -> Causes:
    """Return the end causes of the exchanges that generated something, in this process so far."""
    caplog.set_level(logging.INFO, "proxy.exchange")

    def found() -> list[EndCause]:
        ended = [record.__dict__ for record in caplog.records if record.name == "proxy.exchange"]
        return [EndCause(each["cause"]) for each in ended if each["method"] == "POST"]

    return found


@pytest.fixture
def own_garbage() -> Iterator[None]:
    """Collects what a client package leaves behind here, and not within somebody else's test."""
    yield
    gc.collect()
