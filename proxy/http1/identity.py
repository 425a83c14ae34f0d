"""What every reply of ours carries: the date, our name, and a request id.

Owns these three fields and where request ids come from.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from email.utils import format_datetime
from functools import lru_cache

from proxy._version import __version__

Field = tuple[bytes, bytes]

_SERVER = (b"Server", f"trio-llama-proxy/{__version__}".encode())


def make_request_id() -> str:
    """Return a new request id: 128 random bits in hexadecimal."""
    return secrets.token_hex(16)


def identity_fields(request_id: str) -> list[Field]:
    """Return `Date`, `Server` and `X-Request-Id` for a reply that is made now."""
    date = _date_field(datetime.now(UTC).replace(microsecond=0))
    return [date, _SERVER, (b"X-Request-Id", request_id.encode())]


@lru_cache(maxsize=1)
def _date_field(now: datetime) -> Field:
    return (b"Date", format_datetime(now, usegmt=True).encode())
