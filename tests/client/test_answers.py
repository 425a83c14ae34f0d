"""What a server's answers mean, whatever is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.client.answers import NoOffer, read_event, read_offer, read_refusal
from proxy.client.errors import StreamAborted, StreamBroken

OFFERED = {"supported": True, "stream_url": "http://host:1/stream", "token": "t", "port": 1}


def test_offer_is_read_and_hides_its_token() -> None:
    """What is not needed may be there or not; what is logged has no token."""
    found = read_offer(json.dumps({**OFFERED, "token": "secret-1", "more": []}).encode())
    assert (found.stream_url, found.token) == ("http://host:1/stream", "secret-1")
    assert "secret-1" not in repr(found)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "no JSON object"),
        (b"<html>", "no JSON object"),
        (b"\xff\xfe\xfd", "no JSON object"),
        (b"[" * 100_000, "no JSON object"),
        (b"[]", "no JSON object"),
        (b"null", "no JSON object"),
        (b"{}", "has none"),
        (b'{"supported":false}', "has none"),
        ({**OFFERED, "supported": "true"}, "has none"),
        ({**OFFERED, "supported": 1}, "has none"),
        ({**OFFERED, "stream_url": None}, "URL is no text"),
        ({**OFFERED, "stream_url": 8081}, "URL is no text"),
        ({"supported": True, "token": "t"}, "URL is no text"),
        ({**OFFERED, "token": None}, "token cannot be sent"),
        ({**OFFERED, "token": ""}, "token cannot be sent"),
        ({**OFFERED, "token": "a b"}, "token cannot be sent"),
        ({**OFFERED, "token": "a\r\nX-Other: b"}, "token cannot be sent"),
        ({**OFFERED, "token": "é"}, "token cannot be sent"),
    ],
)
def test_offer_that_is_none_says_why(answer: bytes | dict[str, Any], why: str) -> None:
    """For the log: to the caller it is the same as a server without a fast path."""
    with pytest.raises(NoOffer, match=why):
        read_offer(answer if isinstance(answer, bytes) else json.dumps(answer).encode())


@pytest.mark.parametrize(
    ("answer", "message", "kind", "request_id"),
    [
        (
            b'{"error":{"code":429,"message":"Full.","type":"rate_limit_error","request_id":"b"}}',
            "Full.",
            "rate_limit_error",
            "b",
        ),
        (b'{"error":{"message":"No."}}', "No.", "server_error", "h"),
        (b'{"error":"No."}', "No.", "server_error", "h"),
        (b'{"error":{"message":["No."],"type":7,"request_id":8}}', None, "server_error", "h"),
        (b'{"error":null}', None, "server_error", "h"),
        (b'{"detail":"No."}', None, "server_error", "h"),
        (b'["error"]', None, "server_error", "h"),
        (b"<html>Bad Gateway</html>", None, "server_error", "h"),
        (b"", None, "server_error", "h"),
        (b'{"error":{"message":"cut', None, "server_error", "h"),
    ],
)
def test_refusal_tells_what_the_server_told(
    answer: bytes, message: str | None, kind: str, request_id: str
) -> None:
    """Its words where it has some, a sentence of ours where it has none."""
    found = read_refusal(429, {"X-Request-Id": "h", "Retry-After": "3"}, answer)
    assert (
        found.message == str(found) == (message or "The server answered 429 and no words about it.")
    )
    assert (found.status, found.type, found.request_id) == (429, kind, request_id)
    assert found.retry_after_s == 3


@pytest.mark.parametrize(
    "value", ["", "soon", "-1", "1.5", "9" * 10, "Wed, 21 Oct 2026 07:28:00 GMT"]
)
def test_retry_after_that_is_no_number_of_seconds_is_none(value: str) -> None:
    """A date is no use without the server's clock."""
    assert read_refusal(503, {"Retry-After": value}, b"").retry_after_s is None


def test_answer_that_is_no_stream_is_a_refusal_whatever_its_status() -> None:
    """A 200 with something else was not what was asked for."""
    assert "something else than an event stream" in read_refusal(200, {}, b"{}").message


@pytest.mark.parametrize("data", ['{"choices": []}', '{"error": null}', '{"error": ""}', "{}"])
def test_event_is_the_object_that_was_sent(data: str) -> None:
    """An `error` that says there is none is none."""
    assert read_event(data, None) == json.loads(data)


@pytest.mark.parametrize(
    ("data", "message", "status", "kind", "request_id"),
    [
        (
            '{"error":{"code":502,"message":"Died.","type":"upstream_error","request_id":"b"}}',
            "Died.",
            502,
            "upstream_error",
            "b",
        ),
        ('{"error":{"code":"gone","message":"Died."}}', "Died.", None, "server_error", "h"),
        ('{"error":{"code":true,"message":"Died."}}', "Died.", None, "server_error", "h"),
        ('{"error":"Died."}', "Died.", None, "server_error", "h"),
        ('{"error":{}}', None, None, "server_error", "h"),
        ('{"error":["Died."]}', None, None, "server_error", "h"),
    ],
)
def test_event_that_is_an_error_aborts_the_stream(
    data: str, message: str | None, status: int | None, kind: str, request_id: str
) -> None:
    """Whatever form it has; the request's id is that of the answer, where the error has none."""
    with pytest.raises(StreamAborted) as caught:
        read_event(data, "h")
    found = caught.value
    assert message is None or str(found) == found.message == message
    assert found.message
    assert (found.status, found.type, found.request_id) == (status, kind, request_id)


@pytest.mark.parametrize("data", ["", "[DONE", "7", "[]", '"text"', "{", "[" * 100_000])
def test_event_that_is_no_object_breaks_the_stream(data: str) -> None:
    """What cannot be read is not passed over: it could have been any part of the answer."""
    with pytest.raises(StreamBroken, match="no JSON object"):
        read_event(data, None)
