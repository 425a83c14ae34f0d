"""What the clients of predictions do in a churn: an endless plan, the same for the same seed.

Owns every choice that is left to chance. Moments are told in events that somebody has read, and not
in seconds: so nobody sleeps.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class Mode(StrEnum):
    """How a prediction is made."""

    BLOCKING = "blocking"
    STREAM = "stream"
    ASYNC = "async"


class Habit(StrEnum):
    """What a follower does with its stream."""

    STAYS = "stays to the end"
    LEAVES = "leaves"
    LAGS = "stops reading until all is over"
    RESUMES = "breaks off and comes back"


@dataclass(frozen=True, slots=True)
class Follower:
    """One who reads a prediction's events.

    Attributes:
        habit: What it does.
        comes_after: Comes when anybody has read so many events, or has read all.
        reads: How many events it reads before it does what its habit says.
        comebacks: How often it breaks off and comes back.
        resets: Whether it leaves by RST, and not by FIN.
    """

    habit: Habit
    comes_after: int
    reads: int
    comebacks: int
    resets: bool


@dataclass(frozen=True, slots=True)
class Making:
    """One prediction and all who have to do with it.

    Attributes:
        number: From 0.
        mode: How it is made.
        tokens: How many tokens it takes, if it comes to its end.
        maker: What its maker does; with a stream it is its first follower. One that waits for the
            answer leaves, or stays.
        followers: Those who join.
        cancelled_after: It is cancelled when anybody has read so many events; None: it is not.
    """

    number: int
    mode: Mode
    tokens: int
    maker: Follower
    followers: tuple[Follower, ...]
    cancelled_after: int | None

    @property
    def name(self) -> str:
        """Its id."""
        return f"churn-{self.number}"

    @property
    def may_be_canceled(self) -> bool:
        """Whether anybody does what ends it before its time."""
        stays = self.maker.habit is Habit.STAYS
        return self.cancelled_after is not None or not (stays or self.mode is Mode.ASYNC)

    @property
    def is_abandoned(self) -> bool:
        """Whether the only one whom it is for leaves long before it could come to its end."""
        leaves = self.mode is Mode.STREAM and self.maker.habit is Habit.LEAVES
        return leaves and not self.followers and self.tokens == _LONG_TOKENS


_MODES = {Mode.BLOCKING: 30, Mode.STREAM: 45, Mode.ASYNC: 25}
_HABITS = {Habit.STAYS: 40, Habit.LEAVES: 20, Habit.LAGS: 15, Habit.RESUMES: 25}
_CANCELLED = 0.1
_TOKENS = 150
# Enough to fill what the kernel takes for one that does not read, and the history after that. Rare,
# so that hundreds of predictions take seconds.
_LONG = 0.03
_LONG_TOKENS = 5_000
_RESETS = 0.5
# What chance alone seldom brings about.
_ABANDONED = 0.02
_LAGGING = 0.01


def makings(seed: int) -> Iterator[Making]:
    """Yield what is made, without end."""
    chance = Random(seed)
    number = 0
    while True:
        yield _making(chance, number)
        number += 1


def _making(chance: Random, number: int) -> Making:
    staged = chance.random()
    if staged < _ABANDONED:
        return Making(number, Mode.STREAM, _LONG_TOKENS, _at_once(chance, Habit.LEAVES), (), None)
    if staged < _ABANDONED + _LAGGING:
        maker, lags = _at_once(chance, Habit.STAYS), _at_once(chance, Habit.LAGS)
        return Making(number, Mode.ASYNC, _LONG_TOKENS, maker, (lags,), None)
    (mode,) = chance.choices(list(_MODES), weights=list(_MODES.values()))
    is_long = chance.random() < _LONG
    count = chance.choice((0, 1, 2, 3, 5))
    # Who is first to read cannot wait for somebody who has read.
    followers = tuple(
        _follower(chance, comes_first=index == 0 and mode is not Mode.STREAM)
        for index in range(count)
    )
    watched = mode is Mode.STREAM or count > 0
    maker = _follower(chance, comes_first=not watched)
    return Making(
        number=number,
        mode=mode,
        tokens=_LONG_TOKENS if is_long else chance.randrange(1, _TOKENS),
        maker=maker,
        followers=followers,
        cancelled_after=_moment(chance) * watched if chance.random() < _CANCELLED else None,
    )


def _at_once(chance: Random, habit: Habit) -> Follower:
    """Return one that comes at once and does what its habit says soon."""
    resets = chance.random() < _RESETS
    return Follower(habit, comes_after=0, reads=chance.randrange(20), comebacks=1, resets=resets)


def _follower(chance: Random, *, comes_first: bool) -> Follower:
    (habit,) = chance.choices(list(_HABITS), weights=list(_HABITS.values()))
    return Follower(
        habit=habit,
        comes_after=0 if comes_first else _moment(chance),
        reads=_moment(chance),
        comebacks=chance.randrange(1, 4),
        resets=chance.random() < _RESETS,
    )


def _moment(chance: Random) -> int:
    """Return a number of events: none, a few, some, or more than most predictions have."""
    return chance.choice((0, chance.randrange(3), chance.randrange(_TOKENS), 2 * _TOKENS))
