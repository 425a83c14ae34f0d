"""llama-server's routes: which generate, which use a slot, and which dialect each speaks.

Owns the table of every route that llama-server has, and of ours. It must never decide who may use
them (`core.access`); a route that is not in the table is proxied as well and is labelled `other`,
so that the number of labels in logs and metrics is bounded whatever clients ask for.

llama-server matches paths exactly: `/v1/completions/` is not `/v1/completions`.

Source: llama.cpp `tools/server/server.cpp`, the route registrations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import unquote


class Dialect(StrEnum):
    """The way an error looks inside a stream."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    RESPONSES = "responses"


@dataclass(frozen=True, slots=True)
class Route:
    """What the proxy has to know of a request's route.

    Attributes:
        label: The route's path as the table has it, or `other`.
        generates: It answers with generated text, as a stream if asked to.
        gated: It uses a slot, or waits for one, so it passes the gate.
        dialect: How an error looks inside its stream.
    """

    label: str
    generates: bool = False
    gated: bool = False
    dialect: Dialect = Dialect.OPENAI


_GENERATES = {
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

# They become tasks of llama-server's queue too, and one is lost to a slot as a completion is.
# Their answer is one JSON object; a transcription's request is a multipart form.
_COMPUTES = (
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
    "/predict",
)

# Counting, templating and administration: llama-server answers them beside its slots.
_ANSWERED_BESIDE_SLOTS = (
    "/",
    "/health",
    "/v1/health",
    "/metrics",
    "/props",
    "/models",
    "/v1/models",
    "/models/load",
    "/models/unload",
    "/models/sse",
    "/tokenize",
    "/detokenize",
    "/apply-template",
    "/chat/completions/input_tokens",
    "/v1/chat/completions/input_tokens",
    "/v1/chat/completions/control",
    "/responses/input_tokens",
    "/v1/responses/input_tokens",
    "/v1/messages/count_tokens",
    "/lora-adapters",
    "/slots",
    "/v1/stream",
    "/v1/streams",
    "/v1/streams/lookup",
    "/cors-proxy",
    "/tools",
)

_OURS = (
    "/livez",
    "/readyz",
    "/api/inference/stream-url",
    "/stream",
    "/v1/stream-tokens",
    "/fastpath.js",
    "/fastpath.d.ts",
    "/predictions",
    "/health-check",
    "/openapi.json",
    "/status",
    "/status/json",
    "/status/events",
    "/proxy/exchanges",
    "/proxy/tasks",
    "/proxy/restart",
    "/proxy/logs",
    "/proxy/metrics",
)

_WITH_PARAMETER = (
    (re.compile(r"/slots/[^/]+"), "/slots/:id"),
    (re.compile(r"/v1/stream/.+"), "/v1/stream/:id"),
    (re.compile(r"/v1/stream-tokens/[^/]+"), "/v1/stream-tokens/:id"),
    (re.compile(r"/predictions/[^/]+"), "/predictions/:id"),
    (re.compile(r"/predictions/[^/]+/cancel"), "/predictions/:id/cancel"),
    (re.compile(r"/proxy/exchanges/[^/]+"), "/proxy/exchanges/:id"),
)

_OTHER = Route("other")

GENERATING_PATHS = frozenset(_GENERATES)
"""The paths that answer with generated text."""

_POSTED = {
    **{
        path: Route(path, generates=True, gated=True, dialect=dialect)
        for path, dialect in _GENERATES.items()
    },
    **{path: Route(path, gated=True) for path in _COMPUTES},
}
_PLAIN = {path: Route(path) for path in (*_POSTED, *_ANSWERED_BESIDE_SLOTS, *_OURS)}
_PARAMETRISED = tuple((pattern, Route(label)) for pattern, label in _WITH_PARAMETER)


def classify(method: str, path: str) -> Route:
    """Return what the route of a request is.

    Args:
        method: The request's method.
        path: Its path without the query, percent-encoded or not: llama-server decodes a path
            before it matches it, so an encoded letter must not lead around the gate.
    """
    if "%" in path:
        path = unquote(path)
    if method == "POST" and path in _POSTED:
        return _POSTED[path]
    if path in _PLAIN:
        return _PLAIN[path]
    return next((route for pattern, route in _PARAMETRISED if pattern.fullmatch(path)), _OTHER)
