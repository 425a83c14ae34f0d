"""Binding: one port on every address, and nothing left when it fails."""

from __future__ import annotations

import errno

import pytest

from proxy.core.errors import ConfigError
from proxy.runtime.listening import bind_sockets
from tests.left_behind import Leftovers


def test_bind_sockets_gives_one_port_on_every_address() -> None:
    """Names that stand for the same address are bound once; the port is shared."""
    sockets = bind_sockets(["127.0.0.1", "127.0.0.2", "127.0.0.1"], 0)
    try:
        names = [each.getsockname() for each in sockets]
    finally:
        for each in sockets:
            each.close()
    assert [host for host, _ in names] == ["127.0.0.1", "127.0.0.2"]
    assert len({port for _, port in names}) == 1


def test_bind_sockets_closes_what_it_bound_when_it_fails(leftovers: Leftovers) -> None:
    """An address that is not ours leaves no socket behind."""
    with pytest.raises(ConfigError) as caught:
        bind_sockets(["127.0.0.1", "192.0.2.1"], 0)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EADDRNOTAVAIL


def test_bind_sockets_address_in_use_says_what_to_do() -> None:
    """The second of two starts is told at once, with the way out."""
    (first,) = bind_sockets("127.0.0.1", 0)
    with first, pytest.raises(ConfigError, match="another with --port"):
        bind_sockets("127.0.0.1", first.getsockname()[1])


def test_bind_sockets_unknown_name_is_one_sentence() -> None:
    """A name that nobody knows is no traceback."""
    with pytest.raises(ConfigError, match="is not known"):
        bind_sockets("no-such-host.invalid", 0)
