"""Tests of `proxy.core.lifecycle`."""

from __future__ import annotations

import itertools

import pytest

from proxy.core.lifecycle import (
    TRANSITIONS,
    EngineEvent,
    EngineState,
    ExitStatus,
    GiveUp,
    IllegalTransition,
    RestartIn,
    RestartPolicy,
    next_state,
)


def least() -> float:
    """Stand for a random number that takes nothing off the delay."""
    return 0.0


def delays(policy: RestartPolicy, times: list[float]) -> list[float]:
    """Return the delays after crashes at `times`."""
    found = []
    for now in times:
        decision = policy.on_exit(now, least)
        assert isinstance(decision, RestartIn)
        found.append(decision.delay_s)
    return found


def test_next_state_legal_move_is_the_tables() -> None:
    """A ready engine whose process exits has crashed."""
    assert next_state(EngineState.READY, EngineEvent.EXITED) is EngineState.CRASHED


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (str(state), str(event))
        for state, event in itertools.product(EngineState, EngineEvent)
        if (state, event) not in TRANSITIONS
    ],
)
def test_next_state_missing_move_is_refused(state: str, event: str) -> None:
    """What the table does not have cannot happen."""
    with pytest.raises(IllegalTransition):
        next_state(EngineState(state), EngineEvent(event))


def test_transitions_every_state_can_be_left_and_reached() -> None:
    """No state is a dead end, and none is out of reach."""
    assert {state for state, _ in TRANSITIONS} == set(EngineState)
    assert set(TRANSITIONS.values()) == set(EngineState)


@pytest.mark.parametrize(
    ("returncode", "words"),
    [
        (0, "exit code 0"),
        (1, "exit code 1"),
        (-9, "signal 9 (SIGKILL)"),
        (-11, "signal 11 (SIGSEGV)"),
        (-250, "signal 250"),
    ],
)
def test_exit_status_describe_names_code_or_signal(returncode: int, words: str) -> None:
    """A person reads whether it exited by itself or was killed, and by what."""
    assert ExitStatus(returncode).describe() == words


def test_restart_policy_crashes_far_apart_double_the_delay_up_to_its_limit() -> None:
    """Half a second, doubling to 30 s, when each crash comes before a minute of health."""
    policy = RestartPolicy()
    assert delays(policy, [100.0 * i for i in range(9)]) == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_restart_policy_jitter_takes_off_at_most_a_quarter() -> None:
    """Engines that crashed together do not all come back together."""
    decision = RestartPolicy().on_exit(0.0, lambda: 0.999999)
    assert isinstance(decision, RestartIn)
    assert decision.delay_s == pytest.approx(0.375)


def test_restart_policy_sixth_crash_in_a_minute_gives_up() -> None:
    """More than five crashes in 60 s are a loop."""
    policy = RestartPolicy()
    delays(policy, [0.0, 1.0, 3.0, 6.0, 12.0])
    assert policy.on_exit(60.0, least) == GiveUp(6, 60.0)


def test_restart_policy_sixth_crash_after_a_minute_restarts() -> None:
    """The window is 60 s, no longer."""
    policy = RestartPolicy()
    delays(policy, [0.0, 1.0, 3.0, 6.0, 12.0])
    assert isinstance(policy.on_exit(60.1, least), RestartIn)


def test_restart_policy_a_minute_of_health_clears_what_was() -> None:
    """After 60 s of being ready the next crash is the first again."""
    policy = RestartPolicy()
    delays(policy, [0.0, 1.0, 2.0, 3.0, 4.0])
    policy.on_ready(5.0)
    assert delays(policy, [65.0]) == [0.5]


def test_restart_policy_less_than_a_minute_of_health_clears_nothing() -> None:
    """An engine that lives for 59 s is not healthy."""
    policy = RestartPolicy()
    policy.on_exit(0.0, least)
    policy.on_ready(1.0)
    assert delays(policy, [60.0]) == [1.0]


def test_restart_policy_not_ready_again_does_not_count_as_health() -> None:
    """The time of a load does not count, however long it takes."""
    policy = RestartPolicy()
    policy.on_ready(0.0)
    policy.on_exit(10.0, least)
    assert delays(policy, [300.0]) == [1.0]


def test_restart_policy_reset_clears_what_was() -> None:
    """Somebody who asks for a restart starts from the beginning."""
    policy = RestartPolicy()
    for now in range(6):
        policy.on_exit(float(now), least)
    policy.reset()
    assert delays(policy, [6.0]) == [0.5]


def test_restart_policy_thousands_of_crashes_do_not_overflow() -> None:
    """The exponent is bounded."""
    policy = RestartPolicy()
    assert delays(policy, [100.0 * i for i in range(3000)])[-1] == 30.0
