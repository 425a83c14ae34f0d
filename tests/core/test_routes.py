"""What the proxy knows of llama-server's routes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.routes import Dialect, Route, classify

GENERATING = {
    "/completion": Dialect.OPENAI,
    "/completions": Dialect.OPENAI,
    "/v1/completions": Dialect.OPENAI,
    "/chat/completions": Dialect.OPENAI,
    "/v1/chat/completions": Dialect.OPENAI,
    "/infill": Dialect.OPENAI,
    "/responses": Dialect.RESPONSES,
    "/v1/responses": Dialect.RESPONSES,
    "/v1/messages": Dialect.ANTHROPIC,
}
COMPUTING = [
    "/embedding",
    "/embeddings",
    "/v1/embeddings",
    "/rerank",
    "/reranking",
    "/v1/rerank",
    "/v1/reranking",
    "/audio/transcriptions",
    "/v1/audio/transcriptions",
    "/v1/systemone",
]
PLAIN = [
    "/",
    "/health",
    "/v1/health",
    "/props",
    "/slots",
    "/metrics",
    "/v1/models",
    "/tokenize",
    "/apply-template",
    "/v1/messages/count_tokens",
    "/v1/chat/completions/input_tokens",
    "/v1/chat/completions/control",
    "/status",
    "/proxy/exchanges",
]
OTHER = Route("other")


@pytest.mark.parametrize(("path", "dialect"), GENERATING.items())
def test_classify_generation_is_gated_in_its_dialect(path: str, dialect: Dialect) -> None:
    """A POST to a generation route generates, uses a slot and has the dialect of its API."""
    assert classify("POST", path) == Route(path, generates=True, gated=True, dialect=dialect)


@pytest.mark.parametrize("path", COMPUTING)
def test_classify_computation_is_gated_and_generates_nothing(path: str) -> None:
    """Embeddings, reranking and transcription use a slot, but are not asked to stream."""
    assert classify("POST", path) == Route(path, gated=True)


@pytest.mark.parametrize("path", PLAIN)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_classify_the_rest_has_its_label_and_no_gate(method: str, path: str) -> None:
    """What llama-server answers beside its slots, and what is ours, is only labelled."""
    assert classify(method, path) == Route(path)


@pytest.mark.parametrize("path", [*GENERATING, *COMPUTING])
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD", "post"])
def test_classify_only_post_is_gated(method: str, path: str) -> None:
    """Another method on the same path uses no slot, and keeps the label."""
    assert classify(method, path) == Route(path)


@pytest.mark.parametrize(
    ("path", "label"),
    [
        ("/slots/0", "/slots/:id"),
        ("/v1/stream/abc::model", "/v1/stream/:id"),
        ("/v1/stream-tokens/t1", "/v1/stream-tokens/:id"),
        ("/predictions/p1", "/predictions/:id"),
        ("/predictions/p1/cancel", "/predictions/:id/cancel"),
        ("/proxy/exchanges/r1", "/proxy/exchanges/:id"),
    ],
)
def test_classify_parameter_is_not_in_the_label(path: str, label: str) -> None:
    """A label says which route it is, not whose id."""
    assert classify("DELETE", path) == Route(label)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/chat/completions/",
        "//v1/chat/completions",
        "/V1/chat/completions",
        "/v1/chat/completions;x",
        "/slots/",
        "/slots/1/2",
        "/favicon.ico",
        "*",
        "",
    ],
)
def test_classify_what_llama_server_does_not_match_is_other(path: str) -> None:
    """llama-server matches paths exactly; so does the table."""
    assert classify("POST", path) == OTHER


def test_classify_encoded_path_is_the_same_route() -> None:
    """llama-server decodes a path before it matches it: an escape does not lead around the gate."""
    assert classify("POST", "/v1/%63hat%2Fcompletions") == classify("POST", "/v1/chat/completions")


@given(st.text(), st.text())
def test_classify_label_is_bounded(method: str, path: str) -> None:
    """Whatever is asked for, the label is a line of the table, or `other`."""
    label = classify(method, path).label
    assert label == "other" or classify("GET", label.replace(":id", "x")).label == label
