"""Which options go together, and what may be bound without API keys.

Owns the table of exclusions and needs. Knows nothing of files; values are checked already.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.config.sources import Given
from proxy.core.errors import ConfigError

# (option, the one it cannot stand beside, why).
_EXCLUSIONS = (
    ("router", "model", "llama-server's router mode starts without a model"),
    ("upstream-url", "model", "that llama-server has its model already"),
    ("upstream-url", "router", "that llama-server is launched by somebody else"),
    ("upstream-url", "llama-server", "no llama-server is launched then"),
    ("upstream-url", "exit-on-failed", "no llama-server is launched then"),
    ("no-fast-path", "fast-port", "there is no second listener then"),
    ("no-fast-path", "fast-public-url", "there is no second listener then"),
)
# (option, the one it needs).
_NEEDS = (
    ("certfile", "keyfile"),
    ("keyfile", "certfile"),
    ("upstream-api-key-file", "upstream-url"),
    ("slots", "upstream-url"),
)
# What to do instead, where the need alone does not say it.
_INSTEAD = {"slots": ", or give llama-server its own -- -np N"}


def check(given: Mapping[str, Given], extra_args: tuple[str, ...]) -> None:
    """Refuse options that contradict or lack one another, and arguments that the proxy owns.

    Raises:
        ConfigError: With the sources of both.
    """
    # A switch that is turned off is as if it were not given.
    active = {name: found for name, found in given.items() if found.value is not False}
    for option, other, why in _EXCLUSIONS:
        if option in active and other in active:
            raise ConfigError(
                f"{active[option].source} cannot be used with {active[other].source}: {why}."
            )
    for option, other in _NEEDS:
        if option in active and other not in active:
            raise ConfigError(
                f"{active[option].source} needs --{other} as well{_INSTEAD.get(option, '')}."
            )
    if extra_args:
        _check_extra(active, extra_args)


def _check_extra(active: Mapping[str, Given], extra_args: tuple[str, ...]) -> None:
    # Imported here: most starts have no such arguments.
    from proxy.core.launch import check_extra_args, names_model

    if "upstream-url" in active:
        raise ConfigError(
            f"{active['upstream-url'].source} cannot be used with arguments after --: no"
            " llama-server is launched then."
        )
    check_extra_args(extra_args)
    if "model" in active and names_model(extra_args):
        raise ConfigError(
            f"{active['model'].source} cannot be used with arguments after -- that name a model:"
            " keep one of them."
        )


def check_exposure(hosts: tuple[str, ...], *, has_keys: bool) -> None:
    """Refuse to listen where others can reach us unless there are keys.

    Raises:
        ConfigError: There are no keys, and a host is not loopback or is a name that may not be.
    """
    if has_keys:
        return
    # Imported here, as in `kinds`: with keys it is not needed.
    from proxy.core.hosts import is_loopback_address

    for host in hosts:
        if not is_loopback_address(host):
            raise ConfigError(
                f"--host {host} is not a loopback address, so anybody who reaches it could use the"
                " model: give clients keys with --api-key-file, or listen on 127.0.0.1."
            )
