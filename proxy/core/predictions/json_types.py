"""The types of JSON schema, and what is said of a value that is not of one.

Owns the words of the `jsonschema` crate, which Cog checks inputs with. Knows no member of anything.

Source: JSON Schema Validation section 6.1.1; coglet 0.23.1, as it answers.
"""

from __future__ import annotations

from collections.abc import Callable

from proxy.core.predictions.shapes import to_json

# A message quotes the value that it complains about; a prompt can have megabytes.
_MAX_SHOWN = 200


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_integer(value: object) -> bool:
    # 1.0 is one, as the specification says.
    return _is_number(value) and (not isinstance(value, float) or value.is_integer())


_TYPES: dict[str, Callable[[object], bool]] = {
    "array": lambda value: isinstance(value, list),
    "integer": _is_integer,
    "number": _is_number,
    "object": lambda value: isinstance(value, dict),
    "string": lambda value: isinstance(value, str),
}


def is_type(value: object, name: str) -> bool:
    """Return whether a JSON value is of a type.

    Args:
        value: The value.
        name: `array`, `integer`, `number`, `object` or `string`.
    """
    return _TYPES[name](value)


def wrong_type(value: object, *types: str) -> str:
    """Return the words for a value that is of none of some types.

    Args:
        value: The value.
        types: What it should be, in the order of the alphabet.
    """
    names = ", ".join(f'"{name}"' for name in types)
    return f"{_shown(value)} is not of type{'s' if len(types) > 1 else ''} {names}"


def out_of_bounds(value: float, minimum: int | None, maximum: int | None) -> str | None:
    """Return the words for a number that is too small or too large; None if it is neither.

    Args:
        value: The number.
        minimum: The least that is allowed; None for no bound.
        maximum: The most; None for no bound.
    """
    if minimum is not None and value < minimum:
        return f"{_shown(value)} is less than the minimum of {minimum}"
    if maximum is not None and value > maximum:
        return f"{_shown(value)} is greater than the maximum of {maximum}"
    return None


def _shown(value: object) -> str:
    """Return a value as JSON; of a long one the beginning."""
    text = to_json(value).decode()
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
