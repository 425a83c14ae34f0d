"""The usual Python proxy: FastAPI and httpx on uvicorn, with uvloop and httptools.

Written the way their documentation shows: one pooled client for the process, `stream=True`, and a
`StreamingResponse` over `aiter_raw()` that closes the upstream's response at its end. No gate, no
limits, no error events: only the relaying.

`python -m benchmark.peers.fastapi_httpx UPSTREAM_PORT` prints its own port and serves.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import httpx  # noqa: ASYNC127 - the peer is what people run
import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

# RFC 9110 section 7.6.1, and what httpx and uvicorn set themselves.
_NOT_FORWARDED = frozenset(
    {"connection", "content-length", "date", "host", "keep-alive", "server", "te", "trailer",
     "transfer-encoding", "upgrade"}
)  # fmt: skip
_BACKLOG = 2048


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    limits = httpx.Limits(max_connections=None)
    base_url = f"http://127.0.0.1:{sys.argv[1]}"
    async with httpx.AsyncClient(base_url=base_url, timeout=None, limits=limits) as client:  # noqa: S113
        app.state.client = client
        yield


app = FastAPI(lifespan=_lifespan)


@app.api_route("/{path:path}", methods=["GET", "POST"])
async def relay(request: Request) -> StreamingResponse:
    """Relay one request and stream its answer."""
    client: httpx.AsyncClient = request.app.state.client
    forwarded = client.build_request(
        request.method,
        httpx.URL(path=request.url.path, query=request.url.query.encode()),
        headers=_forwarded(request.headers.items()),
        content=await request.body(),
    )
    answer = await client.send(forwarded, stream=True)
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        headers=_forwarded(answer.headers.items()),
        background=BackgroundTask(answer.aclose),
    )


def _forwarded(fields: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value for name, value in fields if name.lower() not in _NOT_FORWARDED}


def _serve() -> None:
    sock = socket.create_server(("127.0.0.1", 0), backlog=_BACKLOG)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        backlog=_BACKLOG,
    )
    print(sock.getsockname()[1], flush=True)
    uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    _serve()
