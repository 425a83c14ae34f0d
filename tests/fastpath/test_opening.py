"""The fast listener's part in opening and closing a proxy: its sockets, its URL, its end."""

from __future__ import annotations

import socket
from typing import Any

import pytest
import trio

import proxy
from tests.fastpath.served import HELLO, assert_refused, served
from tests.left_behind import Leftovers
from tests.promises.listeners import fast_port
from tests.promises.wire import wire
from tests.web.wire import Sent, ask_port

LIVE = Sent("GET", "/livez")


@pytest.fixture(autouse=True)
def leaves_nothing(leftovers: Leftovers) -> None:
    """Assert after each test that no descriptor is left."""


def opened(**options: Any) -> Any:
    """Open a proxy before nobody."""
    return proxy.open_proxy(proxy.ExternalServer("http://127.0.0.1:9"), port=0, **options)


async def test_fast_path_is_there_without_being_asked_for() -> None:
    """On a free port of the main listener's host."""
    async with opened() as server:
        port = fast_port(server)
        assert server.fast_url == f"http://127.0.0.1:{port}"
        assert port != server.port
        assert_refused(await ask_port(port, LIVE), 404, "not_found_error")


async def test_proxy_without_a_fast_path_makes_tokens_for_nobody() -> None:
    """Clients are told so; a program that makes one has no use for it."""
    async with opened(fast_port=None) as server:
        assert server.fast_url is None
        found = await ask_port(server.port, Sent("GET", "/api/inference/stream-url"))
        assert (found.status, found.body) == (200, b'{"supported": false}')
        answer = await ask_port(server.port, Sent.json("/v1/stream-tokens", {}))
        assert_refused(answer, 404, "not_found_error", "turned off")


async def test_fast_path_listens_on_each_host_on_one_port() -> None:
    """As the main listener does: a client finds it by the name that it used."""
    async with opened(host=["127.0.0.1", "127.0.0.2"]) as server:
        port = fast_port(server)
        for host in ("127.0.0.1", "127.0.0.2"):
            (await trio.open_tcp_stream(host, port)).socket.close()


async def test_fast_path_serves_sockets_that_were_bound_before() -> None:
    """By the command, before anything is launched; they are closed at the end."""
    sockets = proxy.bind_sockets("127.0.0.1", 0)
    async with opened(fast_sockets=sockets) as server:
        assert fast_port(server) == sockets[0].getsockname()[1]
        assert (await ask_port(fast_port(server), LIVE)).status == 404
    assert sockets[0].fileno() == -1


async def test_fast_path_answers_for_the_address_that_it_is_bound_to() -> None:
    """Also where hosts are restricted and the main listener is bound to another one."""
    key = proxy.ApiKey.from_text("sk-alice", name="alice")
    async with opened(
        fast_sockets=proxy.bind_sockets("0.0.0.0", 0),
        allowed_hosts=["proxy.example"],
        api_keys=[key],
    ) as server:
        for host, status in (("0.0.0.0", 400), ("elsewhere.example", 421)):
            sent = Sent("POST", "/stream", ("x-api-key: sk-alice",), host=host)
            answer = await ask_port(fast_port(server), sent)
            assert answer.status == status


async def test_taken_fast_port_is_a_config_error_that_names_its_option() -> None:
    """The main listener's socket, which was bound before, is closed again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(proxy.ConfigError, match=f"port {port}.*--fast-port"):
            async with opened(fast_port=port):
                raise AssertionError("entered")


async def test_fast_socket_on_an_open_address_without_keys_is_a_config_error() -> None:
    """It would let others use the model as the main listener would; every socket is closed."""
    sockets = [*proxy.bind_sockets("127.0.0.1", 0), *proxy.bind_sockets("0.0.0.0", 0)]
    with pytest.raises(proxy.ConfigError, match="not a loopback address"):
        async with opened(sockets=sockets[:1], fast_sockets=sockets[1:]):
            raise AssertionError("entered")
    assert [sock.fileno() for sock in sockets] == [-1, -1]


async def test_proxy_that_is_cancelled_while_it_opens_closes_every_socket() -> None:
    """Also those of the listener that had not begun to serve."""
    sockets = [*proxy.bind_sockets("127.0.0.1", 0), *proxy.bind_sockets("127.0.0.1", 0)]
    with trio.CancelScope() as scope:
        scope.cancel()
        async with opened(sockets=sockets[:1], fast_sockets=sockets[1:]):
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert [sock.fileno() for sock in sockets] == [-1, -1]


async def test_draining_ends_both_listeners() -> None:
    """What is idle at once, and nobody is let in any more."""
    async with served() as pair, wire(pair.port) as one, wire(pair.fast_port) as other:
        for client, path in ((one, "/livez"), (other, "/stream")):
            await client.get(path)
            await client.read_until(b"\r\n\r\n")
        assert pair.server.connections == 2
        await pair.server.drain()
        assert pair.server.connections == 0
        for port in (pair.port, pair.fast_port):
            with pytest.raises(OSError, match="all attempts to connect"):
                await ask_port(port, LIVE)


async def test_token_of_a_proxy_is_nothing_at_another() -> None:
    """Each has its own."""
    async with served() as one, served() as other:
        sent = Sent.json("/stream", HELLO, one.token())
        assert_refused(await other.ask(sent), 401, "authentication_error")
        await one.arrives(sent)


@pytest.mark.parametrize(
    ("options", "bounds"),
    [
        ({}, (10.0, 600.0)),
        ({"token_ttl_s": 3.0, "token_lease_s": 0.0}, (3.0, 0.0)),
        ({"token_ttl_s": 3600.0, "token_lease_s": 604800.0}, (3600.0, 604800.0)),
    ],
)
async def test_tokens_have_the_times_that_the_proxy_is_told(
    options: dict[str, float], bounds: tuple[float, float]
) -> None:
    """Longer ones than a client may ask for by itself, too: then it may ask for as much."""
    async with opened(**options) as server:
        token = server.stream_tokens.issue()
        assert (token.ttl_s, token.lease_s) == bounds
        sent = Sent.json("/v1/stream-tokens", {"ttl_s": bounds[0]})
        assert (await ask_port(server.port, sent)).status == 201
