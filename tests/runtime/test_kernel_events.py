"""What the kernel tells of sockets: hang-ups behind unread bytes; None where there is no epoll."""

from __future__ import annotations

import socket
import sys

import pytest

from proxy.runtime.kernel_events import HANGUP, ONCE, READABLE, WRITABLE, make_epoll


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_platform_without_epoll_has_none(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its users have another way."""
    monkeypatch.setattr(sys, "platform", platform)
    assert make_epoll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll")
@pytest.mark.parametrize("half", [True, False], ids=["half-close", "close"])
def test_hangup_is_told_behind_bytes_that_nobody_reads(half: bool) -> None:
    """They neither hide it nor are taken for it."""
    near, far = socket.socketpair()
    with near, far, make_epoll() as epoll:
        epoll.register(near, HANGUP)
        far.send(b"GET")
        told = [epoll.poll(0)]
        if half:
            far.shutdown(socket.SHUT_WR)
        else:
            far.close()
        told.append(epoll.poll(0))
        assert told[0] == []
        assert [(fd, what & HANGUP) for fd, what in told[1]] == [(near.fileno(), HANGUP)]


@pytest.mark.skipif(sys.platform != "linux", reason="there is no epoll")
def test_events_are_told_apart_and_once_is_once() -> None:
    """Each is a bit of its own."""
    near, far = socket.socketpair()
    with near, far, make_epoll() as epoll:
        epoll.register(near, READABLE | WRITABLE | ONCE)
        far.send(b"GET")
        assert epoll.poll(0) == [(near.fileno(), READABLE | WRITABLE)]
        assert epoll.poll(0) == []
