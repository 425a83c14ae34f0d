"""The two servers, as a case sees them: the same requests, and the same words to what runs there.

Owns what a case may do at a server beside sending requests: wait until it is idle, until a
prediction has begun, and end one. What is compared is not known here.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from tests.conformance.line import PATIENCE_S, Line, connected
from tests.conformance.oracle.server import Oracle
from tests.web.wire import Sent

# Between two looks at a state of which the server tells no change.
LOOK_AGAIN_S = 0.005


class Side(ABC):
    """One server.

    Args:
        port: Its TCP port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    @asynccontextmanager
    async def sent(self, sent: Sent, receive_buffer: int | None = None) -> AsyncIterator[Line]:
        """Send a request on a connection of its own; the connection is closed at the end."""
        async with connected(self.port, receive_buffer) as line:
            await line.send(sent)
            yield line

    async def health(self) -> str:
        """Return the status that `/health-check` tells."""
        async with self.sent(Sent("GET", "/health-check")) as line:
            found: str = json.loads(await line.whole())["status"]
            return found

    async def wait_health(self, wanted: str) -> None:
        """Wait for a status: Cog frees a slot after the answer, and tells nobody when."""
        with trio.fail_after(PATIENCE_S):
            while await self.health() != wanted:
                await trio.sleep(LOOK_AGAIN_S)

    async def wait_begun(self, name: str) -> None:
        """Wait until the model plays the prompt with this `name=`."""
        with trio.fail_after(PATIENCE_S):
            while not await self._has_begun(name):
                await trio.sleep(LOOK_AGAIN_S)

    @abstractmethod
    async def _has_begun(self, name: str) -> bool: ...

    @abstractmethod
    async def end(self, name: str, how: str = "clean") -> None:
        """End the prediction with this `name=` in its prompt, once it next waits."""


class CogSide(Side):
    """Cog's server.

    Args:
        oracle: It.

    Attributes:
        oracle: It.
    """

    def __init__(self, oracle: Oracle) -> None:
        super().__init__(oracle.port)
        self.oracle = oracle

    async def _has_begun(self, name: str) -> bool:
        return self.oracle.has_begun(name)

    async def end(self, name: str, how: str = "clean") -> None:
        """End a prediction, once it next waits."""
        self.oracle.end(name, how)


class OurSide(Side):
    """The proxy before the fake llama-server, which is reached through it."""

    async def _has_begun(self, name: str) -> bool:
        async with self.sent(Sent("GET", f"/fake/stage?name={name}")) as line:
            return json.loads(await line.whole())["stage"] is not None

    async def end(self, name: str, how: str = "clean") -> None:
        """End a prediction, once it next waits."""
        async with self.sent(Sent("POST", f"/fake/end?name={name}&end={how}")) as line:
            assert (await line.head()).status_code == 200
            await line.rest()


@dataclass(slots=True)
class Pair:
    """Two servers that should answer alike.

    Attributes:
        cog: Cog's.
        ours: Ours.
        sound: Whether no case has been broken off there: it might have left something running.
    """

    cog: CogSide
    ours: OurSide
    sound: bool = True
