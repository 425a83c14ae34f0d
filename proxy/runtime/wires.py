"""The connection to an upstream as bytes: dialled, written, read and closed, with and without TLS.

Owns the sockets. Without TLS they are plain ones and Trio is asked only when the kernel has
nothing: Trio's streams look first for somebody else who reads or writes, and schedule each time,
which is a tenth of what a relayed event costs. Foreign errors leave as they are.

Source: connect(2) for `SO_ERROR`.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import ssl
import sys
from abc import ABC, abstractmethod
from functools import lru_cache

import trio

from proxy.runtime.address import Address

# One read: a Linux unix socket hands over up to its whole buffer; larger reads only cost memory.
READ_SIZE = 64 * 1024
_UNDER_WAY = frozenset({errno.EINPROGRESS, errno.EAGAIN, errno.EWOULDBLOCK})


class Wire(ABC):
    """One connection to an upstream."""

    @property
    def bare_socket(self) -> socket.socket | None:
        """The socket, where what goes over it is the bytes themselves."""
        return None

    @abstractmethod
    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""

    @abstractmethod
    async def receive(self) -> bytes:
        """Return what came next, `b""` at the end."""

    @abstractmethod
    def close(self) -> None:
        """Close at once; idempotent, does not block, wakes whoever waits on it."""


class PlainWire(Wire):
    """A connection without TLS.

    Args:
        sock: Connected and non-blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock

    @property
    def bare_socket(self) -> socket.socket | None:
        """The socket."""
        return self._socket

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`; waits only while the upstream takes nothing."""
        view = memoryview(data)
        while view:
            self._check_open()
            try:
                view = view[self._socket.send(view) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)

    async def receive(self) -> bytes:
        """Wait first and read then: in nearly every read there is nothing yet."""
        while True:
            self._check_open()
            await trio.lowlevel.wait_readable(self._socket)
            try:
                return self._socket.recv(READ_SIZE)
            except BlockingIOError:
                continue

    def close(self) -> None:
        """Close it."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError


class TlsWire(Wire):
    """A connection with TLS.

    Args:
        stream: After its handshake.
    """

    def __init__(self, stream: trio.SSLStream[trio.SocketStream]) -> None:
        self._stream = stream

    async def send_all(self, data: bytes) -> None:
        """Send all of `data`."""
        await self._stream.send_all(data)

    async def receive(self) -> bytes:
        """Return what came next."""
        return bytes(await self._stream.receive_some(READ_SIZE))

    def close(self) -> None:
        """Close the socket beneath, without TLS's farewell: the upstream is to notice at once."""
        self._stream.transport_stream.socket.close()


async def dial(address: Address) -> Wire:
    """Connect to `address`.

    Raises:
        OSError: Nobody listens there.
        trio.BrokenResourceError: TLS cannot be agreed.

    Cancellation: nothing is left open.
    """
    if address.tls:
        stream = await trio.open_tcp_stream(address.host, address.port)
        return TlsWire(await _with_tls(stream, address.host))
    if address.uds is not None:
        return PlainWire(await _connected_unix(address.uds))
    family = _family_of(address.host)
    if family is None:
        return PlainWire(_taken_out(await trio.open_tcp_stream(address.host, address.port)))
    return PlainWire(await _connected(family, (address.host, address.port)))


@lru_cache(maxsize=8)
def _family_of(host: str) -> socket.AddressFamily | None:
    """Return what an address is of; None for a name."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return None
    return socket.AF_INET if version == 4 else socket.AF_INET6


async def _connected_unix(path: str) -> socket.socket:
    if sys.platform == "win32":
        raise OSError(errno.EAFNOSUPPORT, "no unix sockets")
    else:  # noqa: RET506 - mypy takes a statement after it for unreachable
        return await _connected(socket.AF_UNIX, path)


async def _connected(family: socket.AddressFamily, address: str | tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if not isinstance(address, str):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        failure = sock.connect_ex(address)
        if failure in _UNDER_WAY and _is_connected(sock):
            failure = 0
        elif failure in _UNDER_WAY:
            await trio.lowlevel.wait_writable(sock)
            failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if failure:
            raise OSError(failure, os.strerror(failure))
    except BaseException:
        sock.close()
        raise
    return sock


def _is_connected(sock: socket.socket) -> bool:
    """Tell whether it is connected already: on loopback it is, though the kernel says it tries."""
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _taken_out(stream: trio.SocketStream) -> socket.socket:
    found = stream.socket
    sock = socket.socket(found.family, found.type, fileno=found.detach())
    sock.setblocking(False)
    return sock


async def _with_tls(stream: trio.SocketStream, host: str) -> trio.SSLStream[trio.SocketStream]:
    secured = trio.SSLStream(
        stream, ssl.create_default_context(), server_hostname=host, https_compatible=True
    )
    try:
        await secured.do_handshake()
    except BaseException:
        stream.socket.close()
        raise
    return secured
