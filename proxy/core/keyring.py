"""API keys: their file, their form in memory, and who a request's headers say is asking.

Owns the keys, as SHA-256 digests only: nothing that is printed, logged or dumped has a key in it. A
digest without salt and stretching is enough for random keys, and it is what makes the comparison
constant in time whatever the length. It must never know what a key may be used for (`core.access`).

Source: RFC 6750 section 2.1 (Bearer); Anthropic's `x-api-key`, which llama-server takes too.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from proxy.core.errors import ConfigError

# A key travels in a header field, where blanks at the ends are lost and others are not portable.
_KEY = re.compile(r"[!-~]+")
# A name stands in log lines. 64 is room for a mail address.
_NAME = re.compile(r"[ -~]{1,64}")
_BEARER = re.compile(rb"bearer +(?P<key>[!-~]+)[ \t]*", re.IGNORECASE)
_MOST_PARTS = 3

STREAM_TOKEN_FIELD = b"x-stream-token"
"""The field that carries a one-time stream token, in lower case."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key that is known here, without the key.

    Attributes:
        name: What logs and the operator's pages call it.
        digest: The SHA-256 of the key.
        admin: It may use the operator's pages where any key is marked so.
    """

    name: str
    digest: bytes = field(repr=False)
    admin: bool = False

    @classmethod
    def from_text(cls, key: str, *, name: str = "key-1", admin: bool = False) -> ApiKey:
        """Return the key whose text is `key`.

        Raises:
            ConfigError: It is empty or not visible ASCII; the message does not have it.
        """
        if _KEY.fullmatch(key) is None:
            raise ConfigError("An API key must be visible ASCII characters, without blanks.")
        return cls(name, _digest(key.encode("ascii")), admin)


def parse_key_file(text: str, taken: Collection[ApiKey] = ()) -> list[ApiKey]:
    """Return the keys of a key file, in its order.

    A line is `key`, `name:key` or `name:key:admin`; empty lines and those that begin with `#` are
    skipped. A key without a name is called `key-1`, `key-2` and so on.

    Args:
        text: The file's content.
        taken: Keys given elsewhere, whose names and digests are used.

    Raises:
        ConfigError: A line is malformed, a name or a key is there twice, or there is no key at all:
            an empty file would leave the proxy open. The message has the line's number, never its
            text.
    """
    lines = [
        (number, line.strip().split(":"))
        for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), start=1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not lines:
        raise ConfigError("The API key file has no key in it; without keys leave the option out.")
    keys = list(taken)
    given = {parts[0] for _, parts in lines if len(parts) > 1}
    for number, parts in lines:
        key = _key_of_line(number, parts, _free_name(keys, given))
        _check_unique(number, key, keys)
        keys.append(key)
    return keys[len(taken) :]


def _key_of_line(number: int, parts: Sequence[str], free_name: str) -> ApiKey:
    if len(parts) > _MOST_PARTS or (len(parts) == _MOST_PARTS and parts[2] != "admin"):
        raise ConfigError(f"Line {number}: expected `key`, `name:key` or `name:key:admin`.")
    name = parts[0].strip() if len(parts) > 1 else free_name
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"Line {number}: the name must be 1 to 64 ASCII characters.")
    try:
        key = parts[1] if len(parts) > 1 else parts[0]
        return ApiKey.from_text(key, name=name, admin=len(parts) == _MOST_PARTS)
    except ConfigError as error:
        raise ConfigError(
            f"Line {number}: the key must be visible ASCII characters, without blanks."
            " A comment has a line of its own."
        ) from error


def _check_unique(number: int, key: ApiKey, others: Iterable[ApiKey]) -> None:
    for other in others:
        if other.name == key.name:
            raise ConfigError(f"Line {number}: another key has the same name.")
        if other.digest == key.digest:
            raise ConfigError(f"Line {number}: the same key is given twice.")


def _free_name(keys: Iterable[ApiKey], given: Collection[str]) -> str:
    used = {key.name for key in keys} | set(given)
    return next(name for n in range(1, len(used) + 2) if (name := f"key-{n}") not in used)


class Keyring:
    """The keys that are known here.

    Args:
        keys: Each with a name of its own; none at all means that no key is needed.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = tuple(keys)

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self._keys)

    @property
    def any_admin(self) -> bool:
        """Whether any key is marked as an admin's."""
        return any(key.admin for key in self._keys)

    def identify(self, headers: Iterable[tuple[bytes, bytes]]) -> ApiKey | None:
        """Return the key that a request carries; None if it carries none that is known.

        `Authorization: Bearer` and `x-api-key` may both be there (the anthropic package can send
        both): either will do. Of each, the first field counts.
        """
        found: ApiKey | None = None
        for candidate in _presented(headers):
            digest = _digest(candidate)
            for key in self._keys:
                # All keys, whatever matched before: the time taken says nothing about which it was.
                if hmac.compare_digest(key.digest, digest):
                    found = key
        return found


def presents_key(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request carries something in the place of a key."""
    return bool(_presented(headers))


def presents_stream_token(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether a request carries something in the place of a stream token."""
    return any(name.lower() == STREAM_TOKEN_FIELD for name, _ in headers)


def _presented(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, ...]:
    first: dict[bytes, bytes] = {}
    for name, value in headers:
        first.setdefault(name.lower(), value)
    bearer = _BEARER.fullmatch(first.get(b"authorization", b""))
    found = [bearer["key"]] if bearer is not None else []
    if b"x-api-key" in first:
        found.append(first[b"x-api-key"].strip(b" \t"))
    return tuple(found)


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
