"""Whether we are alive and ready: `/livez`, `/readyz`, and `/health` in llama-server's own shape.

Plain ASGI and free of the web framework: these answer while everything else is still being loaded.
"""

from __future__ import annotations

import json

from proxy.core.errors import HttpError, NotFound
from proxy.http1.asgi import Message, Receive, Send
from proxy.runtime.backend import Backend

PATHS = frozenset({"/health", "/v1/health", "/livez", "/readyz"})


class Vitals:
    """The three questions that a load balancer, an orchestrator and a llama-server client ask.

    Args:
        backend: Whose engine is asked about.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        """Answer one of `PATHS`.

        Raises:
            NotFound: For another method than GET and HEAD.
            Unavailable: On `/health`, while no request can be answered.
        """
        if scope["method"] not in ("GET", "HEAD"):
            raise NotFound("This path answers GET only.")
        obstacle = self._backend.obstacle()
        if scope["path"] == "/livez":
            await _answer(send, 200, b"live\n", b"text/plain; charset=utf-8")
        elif scope["path"] == "/readyz":
            await self._readyz(send, obstacle)
        elif obstacle is not None:
            raise obstacle
        else:
            body = json.dumps({"status": "ok"}, separators=(",", ":")).encode()
            await _answer(send, 200, body, b"application/json; charset=utf-8")

    @staticmethod
    async def _readyz(send: Send, obstacle: HttpError | None) -> None:
        status = 200 if obstacle is None else 503
        text = "ready" if obstacle is None else obstacle.message
        await _answer(send, status, f"{text}\n".encode(), b"text/plain; charset=utf-8")


async def _answer(send: Send, status: int, body: bytes, kind: bytes) -> None:
    headers = [
        (b"Content-Type", kind),
        (b"Content-Length", str(len(body)).encode()),
        (b"Cache-Control", b"no-store"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
