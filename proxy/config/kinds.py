"""The kinds of values that options take: what is accepted, and how a text becomes a value.

Owns syntax and bounds of single values. Knows nothing of where a text came from nor of other
options; it opens no file and resolves no name.

Source: RFC 3986 section 3.2.2 (hosts), RFC 6454 section 6.2 (origins).
"""

from __future__ import annotations

import ipaddress
import math
import string
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from urllib.parse import SplitResult

_NAME_LETTERS = frozenset(string.ascii_letters + string.digits + "-_.")
_SCHEME_LETTERS = frozenset(string.ascii_letters + string.digits + "+-.")
# RFC 1035 section 2.3.4.
_MAX_NAME_LENGTH = 253
_MAX_LABEL_LENGTH = 63
_DEFAULT_PORTS = {"http": 80, "https": 443}
_WORDS_FOR_TRUE = ("true", "1", "yes", "on")
_WORDS_FOR_FALSE = ("false", "0", "no", "off")


@dataclass(frozen=True, slots=True)
class Kind:
    """What an option's value may be.

    Args:
        accepts: What is accepted, to stand behind "must be".
        read: Makes the value of a text; raises `ValueError` when it is not acceptable.
        toml_types: The types that a TOML value may have, exactly (a `bool` is no number).
    """

    accepts: str
    read: Callable[[str], object]
    toml_types: tuple[type, ...] = (str,)


def _read_switch(text: str) -> bool:
    word = text.lower()
    if word not in _WORDS_FOR_TRUE + _WORDS_FOR_FALSE:
        raise ValueError(text)
    return word in _WORDS_FOR_TRUE


SWITCH = Kind("true or false", _read_switch, (bool,))


def whole(low: int, high: int) -> Kind:
    """Return the kind of whole numbers from `low` to `high`, both included."""

    def read(text: str) -> int:
        digits = text[1:] if text[:1] in ("-", "+") else text
        if not (digits.isascii() and digits.isdigit()) or not low <= int(text) <= high:
            raise ValueError(text)
        return int(text)

    return Kind(f"a whole number from {low} to {high}", read, (int,))


def seconds(low: float, high: float) -> Kind:
    """Return the kind of durations in seconds, fractions allowed, from `low` to `high`."""

    def read(text: str) -> float:
        if "_" in text or not text.isascii() or text != text.strip():
            raise ValueError(text)
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(text)
        return value

    return Kind(f"a number of seconds from {low:g} to {high:g}", read, (int, float))


def choice(*words: str) -> Kind:
    """Return the kind whose values are exactly these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return Kind("one of " + ", ".join(words), read)


def _read_text(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError(text)
    return text


def _read_path(text: str) -> str:
    # A shell expands `~`; the environment and a TOML file have no shell.
    try:
        return str(Path(_read_text(text)).expanduser())
    except RuntimeError:  # There is no such user.
        raise ValueError(text) from None


def _read_api_key(text: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or text.startswith("#"):
        raise ValueError(text)
    return text


# The three forms themselves are checked by `core.access`, as those in a file are.
API_KEY = Kind("key, name:key or name:key:admin in visible ASCII", _read_api_key)
PATH = Kind("a path", _read_path)


def _read_engine_choice(text: str) -> str:
    return text if text == "embedded" else _read_path(text)


ENGINE_CHOICE = Kind("the path of a llama-server, or embedded", _read_engine_choice)


def _is_name(text: str) -> bool:
    labels = text.removesuffix(".").split(".")
    return len(text) <= _MAX_NAME_LENGTH and all(
        0 < len(label) <= _MAX_LABEL_LENGTH and _NAME_LETTERS.issuperset(label) for label in labels
    )


def _read_host(text: str) -> str:
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if ":" in bare:
        ipaddress.IPv6Address(bare)
        return bare
    if bare != text or not _is_name(bare):
        raise ValueError(text)
    return bare


def _read_allowed_host(text: str) -> str:
    return text if text == "*" else _read_host(text).lower()


HOST = Kind("an IPv4 address, an IPv6 address or a host name, without a port", _read_host)
ALLOWED_HOST = Kind("a host name or an address without a port, or *", _read_allowed_host)


def _read_origin(text: str) -> str:
    if text == "upstream":
        return text
    # Imported here, as in `_read_url`: it costs 3 ms, and most starts have neither.
    from urllib.parse import urlsplit

    scheme, separator, authority = text.lower().partition("://")
    if not separator or not scheme or not _SCHEME_LETTERS.issuperset(scheme):
        raise ValueError(text)
    if any(letter in authority for letter in "/?#@* ,\\") or not authority.isascii():
        raise ValueError(text)
    parts = urlsplit(f"//{authority}")
    # Reading `port` checks it.
    if not parts.hostname or parts.port == 0:
        raise ValueError(text)
    # Browsers never send a scheme's own port (RFC 6454 section 6.2), so it could never match.
    return f"{scheme}://{authority}".removesuffix(f":{_DEFAULT_PORTS.get(scheme)}")


ORIGIN = Kind("an origin such as https://app.example (no path, no *), or upstream", _read_origin)


def _is_base_url(parts: SplitResult, text: str) -> bool:
    return (
        parts.scheme in _DEFAULT_PORTS
        and not any(letter in text for letter in "?#@")
        and text.isascii()
        and all(letter.isprintable() and letter != " " for letter in text)
        and parts.port != 0
    )


def _read_url(text: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(text)
    if not _is_base_url(parts, text):
        raise ValueError(text)
    _read_host(parts.hostname or "")
    return text.rstrip("/")


URL = Kind("an http:// or https:// URL with a host, without user, query and fragment", _read_url)
