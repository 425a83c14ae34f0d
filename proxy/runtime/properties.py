"""What a llama-server tells of itself once it is loaded: its slots and its model's name.

Owns the reading of `GET /props`, which differs between versions and in router mode, and never fails
for it.

Source: llama.cpp `tools/server/README.md`, `GET /props`.
"""

from __future__ import annotations

import logging
import ntpath
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from proxy.core.errors import UpstreamFailed
from proxy.runtime.outbound import ControlClient

logger = logging.getLogger("proxy.engine")


@dataclass(frozen=True, slots=True)
class Properties:
    """What `GET /props` tells that we use; None where it does not."""

    total_slots: int | None = None
    model: str | None = None


async def ask_properties(client: ControlClient, timeout_s: float) -> Properties:
    """Ask for `/props`; a llama-server that refuses or does not answer in time tells nothing."""
    with trio.move_on_after(timeout_s):
        try:
            return read_props(await client.props())
        except UpstreamFailed as error:
            logger.warning("the number of slots is not known: %s", error)
    return Properties()


def read_props(props: Mapping[str, object]) -> Properties:
    """Return what we use of the answer to `GET /props`."""
    slots = props.get("total_slots")
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        slots = None
    return Properties(slots, _told_name(props))


def model_name(path: str) -> str:
    """Return the name, for people, of the model in file `path`."""
    # ntpath takes both kinds of slashes: an upstream may run on another system than we do.
    return ntpath.basename(path).removesuffix(".gguf")


def _told_name(props: Mapping[str, object]) -> str | None:
    for key in ("model_alias", "model_path"):
        told = props.get(key)
        if isinstance(told, str) and told:
            return model_name(told)
    return None
