"""What conformance tests share: Cog's own server in several forms, each beside the proxy."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.conformance.oracle.server import Oracle
from tests.conformance.pairs import Pairs
from tests.conformance.sides import Pair

# The most subscribers of a prediction, at both servers and here, and room for all else.
OPEN_FILES = 4096


@contextmanager
def many_open_files() -> Iterator[None]:
    """Let this process and the servers that it starts open enough files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, OPEN_FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pairs]:
    """The pairs of servers; each is started when it is needed."""
    with many_open_files(), Pairs(tmp_path_factory.mktemp) as found:
        yield found


@pytest.fixture
def pair(request: pytest.FixtureRequest, pairs: Pairs) -> Iterator[Pair]:
    """The pair of servers of the test's case."""
    with pairs.use(request.node.callspec.params["case"].pair) as found:
        yield found


@pytest.fixture(scope="module")
def oracle(pairs: Pairs) -> Iterator[Oracle]:
    """Cog with one slot, whose chunks come out as they are made."""
    with pairs.use("one_slot") as found:
        yield found.cog.oracle


@pytest.fixture(scope="module")
def oracle_with_slots(pairs: Pairs) -> Iterator[Oracle]:
    """Cog with four slots, which keeps the chunks of a prediction until its end."""
    with pairs.use("slots") as found:
        yield found.cog.oracle
