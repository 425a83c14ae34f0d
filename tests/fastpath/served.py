"""A proxy with both listeners before a server that keeps what arrives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import proxy
from proxy.runtime.stream_tokens import StreamTokens
from tests.fakes.recording_upstream import Arrived, RecordingUpstream, recording_upstream
from tests.promises.listeners import fast_port
from tests.web.wire import Answer, Sent, ask_port

CHAT = "/v1/chat/completions"
HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}
# A body for each route that generates; `/stream` takes that of a chat.
BODIES: Mapping[str, dict[str, Any]] = {
    "/stream": HELLO,
    "/chat/completions": HELLO,
    CHAT: HELLO,
    "/v1/messages": HELLO,
    "/completion": {"prompt": "Hello"},
    "/completions": {"prompt": "Hello"},
    "/v1/completions": {"prompt": "Hello"},
    "/infill": {"input_prefix": "a", "input_suffix": "b"},
    "/responses": {"input": "Hello"},
    "/v1/responses": {"input": "Hello"},
}


@dataclass(frozen=True, slots=True)
class Served:
    """A proxy before a server that keeps what arrives.

    Attributes:
        upstream: That server.
        server: The proxy.
    """

    upstream: RecordingUpstream
    server: proxy.ProxyServer
    fast_port: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fast_port", fast_port(self.server))

    @property
    def port(self) -> int:
        """The main listener's port."""
        return self.server.port

    @property
    def tokens(self) -> StreamTokens:
        """What makes tokens."""
        return self.server.stream_tokens

    def token(self, **bounds: Any) -> str:
        """Return the header line with a new token."""
        return f"X-Stream-Token: {self.tokens.issue(**bounds).token}"

    async def ask(self, sent: Sent, *more: str) -> Answer:
        """Ask the fast listener."""
        return await ask_port(self.fast_port, sent, *more)

    async def arrives(self, sent: Sent, *, port: int | None = None) -> Arrived:
        """Send what is passed on, to the fast listener unless another is named; what arrives."""
        before = len(self.upstream.arrived)
        answer = await ask_port(port or self.fast_port, sent)
        assert answer.status == 200, answer
        (arrived,) = self.upstream.arrived[before:]
        return arrived


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    """Run both; `options` are those of `open_proxy`."""
    async with (
        recording_upstream() as upstream,
        proxy.open_upstream(upstream.url, api_key="upstream-key") as engine,
        proxy.open_proxy(engine, port=0, drain_s=1, **options) as server,
    ):
        yield Served(upstream, server)


def assert_refused(answer: Answer, status: int, kind: str, says: str = "") -> None:
    """Check an error of ours."""
    assert (answer.status, answer.error["code"], answer.error["type"]) == (status, status, kind)
    assert answer.error["request_id"] == answer.one("X-Request-Id")
    assert says in str(answer.error["message"])
