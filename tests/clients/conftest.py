"""What client tests look at beside the client: why their exchanges ended."""

from __future__ import annotations

import logging
from collections.abc import Callable

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


@pytest.fixture(autouse=True)
def gcc():
    yield
    import gc
    gc.collect()
