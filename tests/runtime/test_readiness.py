"""Tests of `proxy.runtime.readiness`: time alone, with a clock that jumps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing

from proxy.core.errors import UpstreamFailed
from proxy.runtime.readiness import SignsOfLife, probe, wait_hung, wait_loaded, wait_stalled


class Asked:
    """A control client whose answers are made up; counts the questions."""

    def __init__(self, answer: Callable[[float], int | None]) -> None:
        self._answer = answer
        self.times: list[float] = []

    async def health(self) -> int:
        """Answer, refuse (-1), or never answer (None)."""
        self.times.append(trio.current_time())
        status = self._answer(trio.current_time())
        if status is None:
            await trio.sleep_forever()
            raise AssertionError
        if status == -1:
            raise UpstreamFailed("refused")
        return status


@pytest.mark.parametrize(
    ("answer", "found"), [(200, 200), (503, 503), (-1, None), (None, None)], ids=str
)
async def test_probe_no_answer_in_time_is_none(
    answer: int | None, found: int | None, autojump_clock: trio.testing.MockClock
) -> None:
    """Refused and silent are the same; any status is an answer."""
    assert await probe(Asked(lambda now: answer), 1.0) == found  # type: ignore[arg-type]


async def test_wait_loaded_silent_load_is_asked_ever_more_seldom(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Without a word the gap doubles up to half a second: a load of minutes costs little."""
    signs = SignsOfLife(0.0)
    client = Asked(lambda now: 200 if now >= 60 else 503)
    await wait_loaded(client, signs, 1.0)  # type: ignore[arg-type]
    assert trio.current_time() < 60.5
    assert len(client.times) < 140
    assert client.times[1] == pytest.approx(0.02)


async def test_wait_loaded_log_line_wakes_the_next_probe(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """What is logged may be that the load is done: it is asked at once, after the least gap."""
    signs = SignsOfLife(0.0)
    client = Asked(lambda now: 200 if now >= 59.9 else 503)

    async def log() -> None:
        await trio.sleep(59.9)
        signs.note(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(log)
        await wait_loaded(client, signs, 1.0)  # type: ignore[arg-type]
    assert trio.current_time() == pytest.approx(59.9, abs=0.021)


async def test_wait_loaded_flood_of_lines_is_not_a_flood_of_probes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Two probes are at least 20 ms apart."""
    signs = SignsOfLife(0.0)
    client = Asked(lambda now: 200 if now >= 1 else 503)

    async def flood() -> None:
        while True:
            await trio.sleep(0.001)
            signs.note(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(flood)
        await wait_loaded(client, signs, 1.0)  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()
    assert len(client.times) <= 52


async def test_wait_stalled_returns_after_silence_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each sign starts the time anew."""
    signs = SignsOfLife(0.0)

    async def talk() -> None:
        for _ in range(5):
            await trio.sleep(100)
            signs.note(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(talk)
        await wait_stalled(signs, 120.0)
    assert trio.current_time() == 620.0


async def test_wait_hung_returns_after_misses_in_a_row(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Three probes of ten seconds, five seconds apart."""
    signs = SignsOfLife(0.0)
    client = Asked(lambda now: None)
    await wait_hung(client, signs, interval_s=5, timeout_s=10, misses=3)  # type: ignore[arg-type]
    assert trio.current_time() == 45.0


async def test_wait_hung_any_answer_starts_the_count_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Also 503: what answers is not hung."""
    signs = SignsOfLife(0.0)
    client = Asked(lambda now: 503 if len(client.times) == 3 else -1)
    await wait_hung(client, signs, interval_s=5, timeout_s=10, misses=3)  # type: ignore[arg-type]
    assert len(client.times) == 6


async def test_wait_hung_server_that_sends_is_not_hung(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """When all of its HTTP threads stream, none is left for the probe."""
    signs = SignsOfLife(0.0)
    client = Asked(lambda now: None)

    async def stream() -> None:
        for _ in range(300):
            await trio.sleep(1)
            signs.note(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream)
        await wait_hung(client, signs, interval_s=5, timeout_s=10, misses=3)  # type: ignore[arg-type]
    assert trio.current_time() > 300
