"""Our own questions to llama-server: health, properties, slots.

Owns the small JSON requests that the supervisor and the dashboards make, each on a connection of
its own, so that they share every line with the requests that clients make (`runtime.upstream`).
Bounds the size of what it reads. It must never carry a client's request.

Source: llama.cpp `tools/server/README.md`, `GET /health`, `GET /props`, `GET /slots`.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from proxy.core.errors import UpstreamFailed
from proxy.runtime.address import Address
from proxy.runtime.upstream import UpstreamConnection, open_upstream

# `/props` carries the chat template, seldom over 100 KiB; `/slots` some KiB for each slot.
MAX_ANSWER_BYTES = 8 * 1024 * 1024

NOT_OURS = "llama-server's answer was not what was asked for."


class ControlClient:
    """Asks one llama-server about itself.

    Args:
        address: Where it listens.
        api_key: Its key, or None when it has none; `/health` needs none either way.

    The caller bounds every call in time. Cancellation: the connection of the call is closed,
    nothing is left.
    """

    def __init__(self, address: Address, api_key: str | None) -> None:
        self._address = address
        self._api_key = api_key

    def __repr__(self) -> str:
        return f"<ControlClient of {self._address.url}>"

    async def health(self) -> int:
        """Return the status of `GET /health`: 200 ready, 503 loading.

        Raises:
            UpstreamFailed: When nobody listens, or the answer is not HTTP.
        """
        status, _ = await self._request("GET", "/health")
        return status

    async def props(self) -> dict[str, object]:
        """Return what `GET /props` tells: `total_slots`, `model_path` and more.

        Raises:
            UpstreamFailed: When it cannot be asked, refuses, or answers something else than an
                object.
        """
        found = await self.get_json("/props")
        if not isinstance(found, dict):
            raise UpstreamFailed(NOT_OURS)
        return found

    async def slots(self) -> list[object]:
        """Return what `GET /slots` tells, one object for each slot.

        Raises:
            UpstreamFailed: As `props`; llama-server refuses when it was started with `--no-slots`.
        """
        found = await self.get_json("/slots")
        if not isinstance(found, list):
            raise UpstreamFailed(NOT_OURS)
        return found

    async def get_json(self, path: str) -> object:
        """Ask for `path` (which starts with a slash) and return its JSON.

        Raises:
            UpstreamFailed: When it cannot be asked, the status is not 200, or the body is not JSON.
        """
        return await self._json("GET", path)

    async def _json(self, method: str, path: str, body: bytes | None = None) -> object:
        status, answer = await self._request(method, path, body)
        if status != HTTPStatus.OK:
            raise UpstreamFailed(f"llama-server answered {status} to {path}.")
        try:
            return json.loads(answer)
        except ValueError as error:
            raise UpstreamFailed(NOT_OURS) from error

    async def ask(self, path: str, fields: dict[str, object] | None) -> dict[str, object]:
        """Post `fields` to `path`, or get it where there are none; return the answer's object.

        Raises:
            UpstreamFailed: As `get_json`, or when the answer is no object.
        """
        body = None if fields is None else json.dumps(fields).encode()
        found = await self._json("GET" if body is None else "POST", path, body)
        if not isinstance(found, dict):
            raise UpstreamFailed(NOT_OURS)
        return found

    async def delete(self, path: str) -> int:
        """Send `DELETE` to `path` and return the status.

        Raises:
            UpstreamFailed: When it cannot be asked.
        """
        status, _ = await self._request("DELETE", path)
        return status

    async def _request(
        self, method: str, path: str, body: bytes | None = None
    ) -> tuple[int, bytes]:
        connection = await open_upstream(self._address)
        try:
            return await self._exchange(connection, method, path, body)
        finally:
            connection.close()

    async def _exchange(
        self, connection: UpstreamConnection, method: str, path: str, body: bytes | None
    ) -> tuple[int, bytes]:
        target = (self._address.base_path + path).encode()
        headers = self._headers()
        if body is not None:
            headers.append((b"Content-Type", b"application/json"))
            headers.append((b"Content-Length", str(len(body)).encode()))
        await connection.send_whole(method.encode(), target, headers, body or b"")
        head = await connection.receive_head()
        answer = bytearray()
        while data := await connection.receive_data():
            answer += data
            if len(answer) > MAX_ANSWER_BYTES:
                raise UpstreamFailed(NOT_OURS)
        return head.status, bytes(answer)

    def _headers(self) -> list[tuple[bytes, bytes]]:
        found = [
            (b"Host", self._address.authority.encode()),
            (b"Accept", b"application/json"),
            (b"Connection", b"close"),
        ]
        if self._api_key:
            found.append((b"Authorization", b"Bearer " + self._api_key.encode()))
        return found
