"""How many tokens an answer may have at most, written into a request's body.

Owns the names that llama-server's routes have for it. A body that asks for fewer keeps its number;
one that asks for more, for no bound, or for something that llama-server would pass over for its
default, gets the bound.

Source: llama.cpp `tools/server/README.md`: `n_predict` (-1 is no bound), `max_tokens`,
`max_completion_tokens`, `max_output_tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from proxy.core.generation import NATIVE_ROUTES, RESPONSES_ROUTES

_NAMES = ("max_tokens", "max_completion_tokens", "max_output_tokens", "n_predict")


def capped_members(
    label: str, fields: Mapping[str, object], max_tokens: int | None
) -> dict[str, object]:
    """Return the members that the body is to have instead of its own.

    Args:
        label: The route's (`core.routes`).
        fields: The client's body.
        max_tokens: The bound, for each choice of the answer; None for none.
    """
    if max_tokens is None:
        return {}
    asked = [bound for name in _NAMES if (bound := _bound_in(fields.get(name))) is not None]
    lowest = min([max_tokens, *asked])
    return dict.fromkeys((_name_of(label), *(name for name in _NAMES if name in fields)), lowest)


def _bound_in(value: object) -> int | None:
    """Return the number that llama-server reads; None where it reads no bound."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Not `isfinite`: of an integer that is larger than any float it makes one first.
    return int(value) if 0 <= value < math.inf else None


def _name_of(label: str) -> str:
    if label in NATIVE_ROUTES:
        return "n_predict"
    return "max_output_tokens" if label in RESPONSES_ROUTES else "max_tokens"
