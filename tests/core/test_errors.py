"""The shape of every error that we answer ourselves."""

from __future__ import annotations

import inspect
import json

import pytest

from proxy.core import errors
from proxy.core.errors import HttpError, Origin

LOADING = "Loading model"

# Their messages are not the raiser's.
WITH_THEIR_OWN_MESSAGE = {errors.RelayedError, errors.TokenRefused}
HTTP_ERRORS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, HttpError) and kind not in WITH_THEIR_OWN_MESSAGE
]
each_kind = pytest.mark.parametrize("kind", HTTP_ERRORS, ids=lambda kind: kind.__name__)


@each_kind
def test_error_body_is_in_llama_servers_shape(kind: type[HttpError]) -> None:
    """Code, message and type, as any of llama-server's clients expects them, and our request id."""
    body = json.loads(kind("What went wrong.").as_body("r1"))
    assert body == {
        "error": {
            "code": kind.status,
            "message": "What went wrong.",
            "type": kind.type,
            "request_id": "r1",
        }
    }


def test_error_body_without_request_id_is_exactly_llama_servers() -> None:
    """`/health` while loading answers as llama-server itself does."""
    assert json.loads(errors.Unavailable(LOADING).as_body()) == {
        "error": {"code": 503, "message": LOADING, "type": "unavailable_error"}
    }


@each_kind
def test_error_status_belongs_to_its_origin(kind: type[HttpError]) -> None:
    """What is the client's doing is a 4xx, what is llama-server's a 502, the rest is ours."""
    match kind.origin:
        case Origin.CLIENT:
            assert 400 <= kind.status < 500
        case Origin.UPSTREAM:
            assert kind.status == 502
        case Origin.PROXY:
            assert kind.status == 429 or kind.status >= 500


@each_kind
def test_error_headers_name_the_bodys_type(kind: type[HttpError]) -> None:
    """JSON in UTF-8; nothing about waiting where nobody said so."""
    headers = dict(kind("x").as_headers())
    assert headers[b"Content-Type"] == b"application/json; charset=utf-8"
    assert b"Retry-After" not in headers


def test_error_that_passes_has_retry_after() -> None:
    """Whole seconds, as a header."""
    assert (b"Retry-After", b"7") in errors.QueueFull("x", retry_after_s=7).as_headers()


@each_kind
def test_challenge_comes_with_401_alone(kind: type[HttpError]) -> None:
    """RFC 9110 section 15.5.2 wants it there, and it means nothing elsewhere."""
    challenged = (b"WWW-Authenticate", b"Bearer") in kind("x").as_headers()
    assert challenged == (kind.status == 401)


def test_unavailable_after_a_crash_loop_has_the_log() -> None:
    """The last lines of llama-server say more than we can."""
    found = errors.Unavailable("x", log_tail=("one", "two")).as_object()
    assert found["log"] == ["one", "two"]


def test_relayed_error_keeps_what_llama_server_said() -> None:
    """Its status, type and message, and no other error's."""
    found = errors.RelayedError(400, "exceed_context_size_error", "too long")
    assert found.as_object() == {
        "code": 400,
        "message": "too long",
        "type": "exceed_context_size_error",
    }
    assert errors.RelayedError(503, "t", "m").status == 503


@pytest.mark.parametrize("reason", errors.RefusalReason)
def test_token_refused_tells_the_client_no_reason(reason: errors.RefusalReason) -> None:
    """Body and headers are the same for every reason; the log has it as an attribute."""
    error, other = errors.TokenRefused(reason), errors.TokenRefused(errors.RefusalReason.UNKNOWN)
    assert error.reason is reason
    assert (error.status, error.type) == (401, "authentication_error")
    assert error.as_body("r1") == other.as_body("r1")
    assert error.as_headers() == other.as_headers()
    assert str(error) == str(other)


def test_error_message_survives_json() -> None:
    """Quotes, line ends and letters beyond ASCII."""
    message = 'a "b"\n\u00e9\u2028'
    assert json.loads(errors.InvalidRequest(message).as_body())["error"]["message"] == message


def test_engine_error_has_reason_and_log() -> None:
    """The command prints both; the exception's own text is the reason."""
    found = errors.EngineLoadFailed("The model is broken.", ("line",))
    assert (str(found), found.reason, found.log_tail) == (
        "The model is broken.",
        "The model is broken.",
        ("line",),
    )


def test_every_error_has_one_root() -> None:
    """Whoever embeds us can catch all of them."""
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]
    ours = [kind for kind in kinds if issubclass(kind, Exception)]
    assert all(issubclass(kind, errors.ProxyError) for kind in ours)
