"""What to launch: the program, its arguments, its environment, and each launch's place and key.

Owns the answer to which model is served. Starts nothing, makes no folder and no key.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.core.errors import ConfigError
from proxy.core.launch import build_argv, build_environment, check_extra_args, names_model
from proxy.runtime.address import Address
from proxy.runtime.discovery import Discovered
from proxy.runtime.properties import model_name

DEMO_MODEL = Path(__file__).parents[1] / "data" / "demo.gguf"
"""The packaged demo model."""


@dataclass(frozen=True, slots=True, repr=False)
class LaunchPlan:
    """Everything that a launch is made of; without a repr, for it holds the key.

    Args:
        argv: The program and its arguments; no secret is in it.
        environment: The whole environment of the process; the key is in it.
        address: Where it will listen.
        api_key: The key that it will ask for.
    """

    argv: Sequence[str]
    environment: Mapping[str, str]
    address: Address
    api_key: str


class LaunchPlanner:
    """Makes the plan of each launch.

    Args:
        discovered: What to launch.
        model_path: The model's file; None for the packaged demo model, unless `extra_args` name
            one.
        extra_args: More arguments for llama-server.
        router: Whether it runs without a model of its own.
        environ: The environment to pass on.

    Raises:
        ConfigError: When `extra_args` has an argument that the proxy owns, or more than one of
            them, `router` and `model_path` says what to serve.
    """

    def __init__(
        self,
        discovered: Discovered,
        *,
        model_path: str | os.PathLike[str] | None,
        extra_args: Sequence[str],
        router: bool,
        environ: Mapping[str, str],
    ) -> None:
        check_extra_args(extra_args)
        if router and discovered.kind == "embedded":
            raise ConfigError(
                "The embedded runtime has no router mode: install llama.cpp's llama-server, or name"
                " one with --llama-server."
            )
        self._discovered = discovered
        self._model_path = _model_file(model_path, extra_args, router=router)
        self._extra_args = tuple(extra_args)
        self._router = router
        self._environ = environ

    @property
    def description(self) -> str:
        """Words for a person: what is launched."""
        return self._discovered.description

    @property
    def model_name(self) -> str | None:
        """The model's name for people, where we name the model."""
        return None if self._model_path is None else model_name(self._model_path)

    def plan(self, socket_path: Path | None, api_key: str) -> LaunchPlan:
        """Return the plan of a launch that listens on `socket_path`; None: on loopback."""
        address = Address(uds=None if socket_path is None else str(socket_path))
        argv = build_argv(
            self._discovered.argv_prefix,
            host=address.uds or address.host,
            port=None if address.uds else 0,
            model_path=self._model_path,
            extra_args=(*self._defaults(), *self._extra_args),
        )
        keep_model = self._model_path is None and not self._router
        environment = build_environment(self._environ, api_key=api_key, keep_model=keep_model)
        environment.update(self._discovered.environment)
        return LaunchPlan(argv, environment, address, api_key)

    def _defaults(self) -> tuple[str, ...]:
        """Return what serves the demo model best; the user's arguments come later and win."""
        if self._model_path != str(DEMO_MODEL):
            return ()
        # Clients see the name, not where it lies; more threads only wait for each other.
        return ("--alias", "demo", "--threads", "1")


def _model_file(
    given: str | os.PathLike[str] | None, extra_args: Sequence[str], *, router: bool
) -> str | None:
    named = names_model(extra_args)
    if given is not None and (router or named):
        raise ConfigError(
            "There is more than one answer to which model to serve: give either a model, or router"
            " mode, or arguments for llama-server that name one."
        )
    if given is not None:
        return os.fspath(given)
    return None if router or named else str(DEMO_MODEL)
