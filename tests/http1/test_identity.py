"""What every reply of ours carries."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import proxy
from proxy.http1.identity import identity_fields, make_request_id


def test_make_request_id_is_random() -> None:
    """128 bits, in hexadecimal."""
    found = {make_request_id() for _ in range(100)}
    assert len(found) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in found)


def test_identity_fields_name_us_the_time_and_the_request() -> None:
    """Once each; the date as RFC 9110 section 5.6.7 has it."""
    fields = dict(identity_fields("r1"))
    assert set(fields) == {b"Date", b"Server", b"X-Request-Id"}
    assert fields[b"Server"] == f"trio-llama-proxy/{proxy.__version__}".encode()
    assert fields[b"X-Request-Id"] == b"r1"
    assert fields[b"Date"].endswith(b" GMT")
    told = parsedate_to_datetime(fields[b"Date"].decode())
    assert abs(datetime.now(UTC) - told) < timedelta(minutes=1)
