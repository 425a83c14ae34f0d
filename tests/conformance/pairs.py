"""The pairs of servers that cases need, started when the first case asks for one.

A pair is kept for the session, unless its cases leave it broken or one has failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.conformance.oracle.server import SETTING_UP, SETUP_FAILED, running_oracle
from tests.conformance.ours.server import running_ours
from tests.conformance.sides import CogSide, OurSide, Pair

# What receivers of webhooks know both sides by.
WEBHOOK_TOKEN = "shared"


@dataclass(frozen=True, slots=True)
class Setting:
    """How the two servers of a pair are started.

    Attributes:
        cog: Arguments of `running_oracle`.
        ours: Those of `running_ours`.
        engine: Options of the fake llama-server.
        breaks: Whether its cases leave it broken, so that each needs its own.
    """

    cog: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    engine: tuple[str, ...] = ("--fake-slots", "1")
    breaks: bool = False


SETTINGS = {
    "one_slot": Setting(
        {"WEBHOOK_AUTH_TOKEN": WEBHOOK_TOKEN},
        {"max_queue": 0, "webhook_token": WEBHOOK_TOKEN, "allow_private_webhooks": True},
    ),
    "slots": Setting(
        {"slots": 4, "required": ["prompt"]}, {"max_queue": 0}, engine=("--fake-slots", "4")
    ),
    "no_history": Setting(
        {"COG_STREAM_HISTORY_CAPACITY": "0"}, {"max_queue": 0, "prediction_history": 0}
    ),
    "short_history": Setting(
        {"COG_STREAM_HISTORY_CAPACITY": "2"}, {"max_queue": 0, "prediction_history": 2}
    ),
    "crashing": Setting({}, {"max_queue": 0}, breaks=True),
    "starting": Setting(
        {"until": SETTING_UP, "ORACLE_SETUP": "stall"},
        {"stage": "starting"},
        engine=("--fake-stall",),
    ),
    "not_started": Setting(
        {"until": SETUP_FAILED, "ORACLE_SETUP": "fail"},
        {"stage": "failed"},
    ),
}


class Pairs:
    """Starts pairs; all are gone when it is left.

    Args:
        make_folder: Makes an empty folder.
    """

    def __init__(self, make_folder: Callable[[str], Path]) -> None:
        self._make_folder = make_folder
        self._kept: dict[str, tuple[Pair, ExitStack]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        while self._kept:
            self._stop(next(iter(self._kept)))

    @contextmanager
    def use(self, name: str) -> Iterator[Pair]:
        """Have the pair of this name while the block runs; afterwards it is kept, if it is sound.

        Args:
            name: A key of `SETTINGS`.
        """
        if name not in self._kept:
            with ExitStack() as starting:
                pair = starting.enter_context(self._started(SETTINGS[name], name))
                self._kept[name] = pair, starting.pop_all()
        pair, _ = self._kept[name]
        yield pair
        if SETTINGS[name].breaks or not pair.sound:
            self._stop(name)

    def _stop(self, name: str) -> None:
        _, stack = self._kept.pop(name)
        stack.close()

    @contextmanager
    def _started(self, setting: Setting, name: str) -> Iterator[Pair]:
        cog = running_oracle(self._make_folder(f"cog-{name}"), **setting.cog)
        folder = self._make_folder(f"ours-{name}")
        with cog as oracle, running_ours(folder, *setting.engine, **setting.ours) as port:
            yield Pair(CogSide(oracle), OurSide(port))
