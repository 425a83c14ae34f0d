"""What conformance tests share: Cog's own server, once per session, in two forms."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.oracle.server import Oracle, running_oracle


@pytest.fixture(scope="session")
def oracle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """Cog with one slot, whose chunks come out as they are made."""
    with running_oracle(tmp_path_factory.mktemp("oracle")) as found:
        yield found


@pytest.fixture(scope="session")
def oracle_with_slots(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Oracle]:
    """Cog with four slots, which keeps the chunks of a prediction until its end."""
    with running_oracle(tmp_path_factory.mktemp("slots"), slots=4) as found:
        yield found
