"""The routes that make stream tokens: where the fast path is, a token for it, and its end."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import trio

from proxy.core.access import AccessPolicy
from proxy.core.causes import EndCause
from proxy.core.errors import TokenRefused
from proxy.core.fast_reach import FastReach
from proxy.core.keyring import ApiKey, Keyring
from proxy.core.stream_tokens import TokenPolicy
from proxy.fastpath.door import PATHS
from proxy.http1.asgi import Message, Receive
from proxy.relay.front_door import FrontDoor
from proxy.runtime.stream_tokens import StreamTokens
from proxy.web.stream_tokens import STREAM_URL_PATH, TOKENS_PATH, TokenRoutes
from tests.fakes.staged_engine import StagedEngine
from tests.http1.asgi_client import Field, Reply, scope_of

ALICE = ApiKey.from_text("sk-alice", name="alice")
BOB = ApiKey.from_text("sk-bob", name="bob")
ROOT = ApiKey.from_text("sk-root", name="root", admin=True)
PAGE = "https://page.example"
HERE = FastReach(["127.0.0.1"], 8081)
# In the place of a body's last piece: the client leaves.
LEAVES = b"(the client leaves)"


@dataclass(slots=True)
class Routes:
    """The routes behind a front door.

    Attributes:
        reach: Where the fast listener is; None when there is none.
        keys: The API keys.
        tokens: Those that are made; three at most may wait.
        pieces_taken: How many pieces of bodies were asked for.
    """

    reach: FastReach | None = HERE
    keys: tuple[ApiKey, ...] = ()
    tokens: StreamTokens = field(
        default_factory=lambda: StreamTokens(StagedEngine(), TokenPolicy(max_per_key=3))
    )
    pieces_taken: int = 0

    async def ask(
        self,
        method: str,
        path: str,
        *fields: Field,
        key: str | None = None,
        body: tuple[bytes, ...] = (b"",),
        **of_scope: Any,
    ) -> Reply:
        """Send a request whose body comes in pieces."""
        keyring = Keyring(self.keys)
        routes = TokenRoutes(self.tokens, self.reach, paths=PATHS, any_admin=keyring.any_admin)
        door = FrontDoor(AccessPolicy(keyring, cors_origins=frozenset({PAGE})), lambda _: routes)
        headers = fields if key is None else (*fields, (b"X-Api-Key", key.encode()))
        if b"Host" not in dict(headers):
            headers = (*headers, (b"Host", b"localhost:8080"))
        reply = Reply()
        with trio.fail_after(10):
            scope = {**scope_of(method, path, headers), **of_scope}
            await door(scope, self._receive(list(body)), reply.take)
        return reply

    def _receive(self, pieces: list[bytes]) -> Receive:
        async def receive() -> Message:
            self.pieces_taken += 1
            if pieces == [LEAVES]:
                return {"type": "http.disconnect"}
            piece = pieces.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

        return receive

    async def make(self, wishes: dict[str, Any] | None = None, *, key: str | None = None) -> Reply:
        """Ask for a token."""
        content = b"" if wishes is None else json.dumps(wishes).encode()
        return await self.ask("POST", TOKENS_PATH, key=key, body=(content,))

    def opens(self, token: str, *, origin: str | None = None, path: str = "/stream") -> bool:
        """Use a token; return whether it opens a stream."""
        try:
            self.tokens.redeem(token, origin=origin, path=path, request_id="r1").release()
        except TokenRefused:
            return False
        return True


def told(reply: Reply, status: int) -> dict[str, Any]:
    """Return the JSON of a reply with this status, which is whole and not to be stored."""
    assert (reply.status, reply.complete) == (status, True)
    assert reply.one(b"Cache-Control") == b"no-store"
    assert reply.one(b"Content-Type") == b"application/json; charset=utf-8"
    assert reply.one(b"Content-Length") == str(len(reply.body)).encode()
    found: dict[str, Any] = json.loads(reply.body)
    return found


def assert_refused(reply: Reply, status: int, kind: str, says: str = "") -> None:
    """Check an error of ours."""
    assert (reply.status, reply.error["code"], reply.error["type"]) == (status, status, kind)
    assert says in reply.error["message"]


# -- where the fast path is ------------------------------------------------------------------------


async def test_stream_url_has_the_clients_host_and_a_token_that_works_once() -> None:
    """All that a page needs for one stream, and how long it has to begin it."""
    routes = Routes()
    found = told(await routes.ask("GET", STREAM_URL_PATH), 200)
    token = found.pop("token")
    assert found == {
        "supported": True,
        "stream_url": "http://localhost:8081/stream",
        "port": 8081,
        "ttl_seconds": 10.0,
    }
    assert routes.opens(token)
    assert not routes.opens(token)


async def test_stream_url_gives_everybody_a_token_of_their_own() -> None:
    """Two tabs do not take each other's."""
    routes = Routes()
    one, other = [told(await routes.ask("GET", STREAM_URL_PATH), 200)["token"] for _ in range(2)]
    assert routes.opens(one)
    assert routes.opens(other)


async def test_stream_urls_token_is_for_that_url_alone() -> None:
    """On another route of the fast path it is refused, and not used up by that."""
    routes = Routes()
    token = told(await routes.ask("GET", STREAM_URL_PATH), 200)["token"]
    assert not any(routes.opens(token, path=path) for path in PATHS - {"/stream"})
    assert routes.opens(token)


async def test_stream_urls_token_is_for_the_page_that_asked() -> None:
    """Where its browser says which page that is."""
    routes = Routes()
    reply = await routes.ask("GET", STREAM_URL_PATH, (b"Origin", PAGE.encode()))
    token = told(reply, 200)["token"]
    assert reply.one(b"Access-Control-Allow-Origin") == PAGE.encode()
    assert not routes.opens(token)
    assert not routes.opens(token, origin="https://other.example")
    assert routes.opens(token, origin=PAGE)


async def test_stream_urls_token_is_of_the_key_that_asked() -> None:
    """Whoever uses it is taken for that key's owner."""
    routes = Routes(keys=(ALICE,))
    token = told(await routes.ask("GET", STREAM_URL_PATH, key="sk-alice"), 200)["token"]
    lease = routes.tokens.redeem(token, origin=None, path="/stream", request_id="r1")
    assert lease.key_name == "alice"


async def test_stream_url_is_the_one_that_the_operator_names() -> None:
    """For a client on another machine too, and whatever host it used."""
    routes = Routes(FastReach(["127.0.0.1"], 8081, public_url="https://f.example/"), (ALICE,))
    found = await routes.ask(
        "GET", STREAM_URL_PATH, (b"Host", b"gpu.lan"), key="sk-alice", client=("192.168.1.77", 5)
    )
    assert told(found, 200)["stream_url"] == "https://f.example/stream"


async def test_stream_url_for_a_client_on_a_socket_without_addresses() -> None:
    """It is on this machine."""
    found = told(await Routes().ask("GET", STREAM_URL_PATH, client=None), 200)
    assert found["stream_url"] == "http://localhost:8081/stream"


@pytest.mark.parametrize(
    ("reach", "host", "client"),
    [
        pytest.param(None, b"localhost", "127.0.0.1", id="no fast path"),
        pytest.param(HERE, b"gpu.lan", "192.168.1.77", id="remote client"),
        pytest.param(HERE, b"localhost", "192.168.1.77", id="remote client that says localhost"),
        pytest.param(HERE, b"gpu.lan", "127.0.0.1", id="reverse proxy here"),
        pytest.param(FastReach(["0.0.0.0"], 8081), b"a b", "127.0.0.1", id="no name"),
    ],
)
async def test_stream_url_out_of_reach_is_unsupported(
    reach: FastReach | None, host: bytes, client: str
) -> None:
    """The client stays on the main port, and no token is made that nobody could use."""
    routes = Routes(reach, (ALICE,))
    reply = await routes.ask(
        "GET", STREAM_URL_PATH, (b"Host", host), key="sk-alice", client=(client, 5)
    )
    assert told(reply, 200) == {"supported": False}
    assert routes.tokens.outstanding == 0


async def test_stream_url_asked_for_by_head_makes_no_token() -> None:
    """Its body is not sent, so nobody would have it."""
    routes = Routes()
    assert (await routes.ask("HEAD", STREAM_URL_PATH)).status == 200
    assert routes.tokens.outstanding == 0


# -- making a token --------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"", b" \r\n", b"{}", b"\xef\xbb\xbf{}"], ids=repr)
async def test_token_without_wishes_has_the_operators_bounds(body: bytes) -> None:
    """No body is needed; the secret is told here and never again."""
    routes = Routes()
    before = datetime.now(UTC).timestamp()
    found = told(await routes.ask("POST", TOKENS_PATH, body=(body,)), 201)
    after = datetime.now(UTC).timestamp()
    assert set(found) == {"id", "token", "stream_url", "expires_at", "lease_s"}
    assert (found["stream_url"], found["lease_s"]) == ("http://localhost:8081/stream", 600.0)
    assert before + 9.99 <= found["expires_at"] <= after + 10.01
    assert routes.opens(found["token"])


async def test_token_has_what_is_asked_for() -> None:
    """Times, paths, page and bound."""
    routes = Routes(keys=(ALICE,))
    wishes = {
        "ttl_s": 60,
        "lease_s": 30,
        "paths": ["/completion", "/stream"],
        "origin": PAGE,
        "max_tokens": 7,
    }
    before = datetime.now(UTC).timestamp()
    found = told(await routes.make(wishes, key="sk-alice"), 201)
    assert found["lease_s"] == 30
    assert found["expires_at"] >= before + 59.99
    assert not routes.opens(found["token"])
    assert not routes.opens(found["token"], origin=PAGE, path="/infill")
    lease = routes.tokens.redeem(found["token"], origin=PAGE, path="/completion", request_id="r1")
    assert (lease.token_id, lease.key_name, lease.max_tokens) == (found["id"], "alice", 7)


async def test_token_without_paths_is_for_each_of_them() -> None:
    """For `/stream` and for the routes that generate."""
    routes = Routes()
    for path in PATHS:
        assert routes.opens(told(await routes.make(), 201)["token"], path=path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{", "not valid JSON"),
        (b"\xff", "not valid JSON"),
        (b"[" * 10_000, "not valid JSON"),
        (b"[]", "has to be a JSON object"),
        (b"null", "has to be a JSON object"),
        (b'{"lease": 1}', "'lease' is not a member"),
        (b'{"ttl_s": NaN}', "ttl_s must be"),
        (b'{"lease_s": 0}', "lease_s must be"),
        (b'{"paths": ["/v1/models"]}', "Each of paths must be one of /chat/completions,"),
        (b'{"paths": ["/proxy/logs"]}', "Each of paths must be one of"),
        (b'{"origin": null}', "origin must be"),
        (b'{"max_tokens": 0}', "max_tokens must be"),
    ],
)
async def test_token_that_is_not_to_be_had_is_400_that_says_why(body: bytes, says: str) -> None:
    """Nothing is made, and nothing is guessed."""
    routes = Routes()
    reply = await routes.ask("POST", TOKENS_PATH, body=(body,))
    assert_refused(reply, 400, "invalid_request_error", says)
    assert routes.tokens.outstanding == 0


async def test_body_as_large_as_may_be_is_read() -> None:
    """In as many pieces as it comes."""
    body = b" " * (16 * 1024 - 2)
    assert (await Routes().ask("POST", TOKENS_PATH, body=(body, b"{", b"}"))).status == 201


async def test_body_that_is_larger_is_413_and_not_read_on() -> None:
    """Nobody keeps a body in our memory that no such request has."""
    routes = Routes()
    reply = await routes.ask("POST", TOKENS_PATH, body=(b" " * 4096,) * 100)
    assert_refused(reply, 413, "invalid_request_error", "larger")
    assert (routes.pieces_taken, routes.tokens.outstanding) == (5, 0)


async def test_client_that_leaves_before_its_body_has_come_makes_no_token() -> None:
    """Nobody would have it."""
    routes = Routes()
    await routes.ask("POST", TOKENS_PATH, body=(b"{", LEAVES))
    assert routes.tokens.outstanding == 0


async def test_token_for_a_client_out_of_reach_has_no_url() -> None:
    """It may hand the token to somebody who is not; where to is for it to know."""
    routes = Routes(keys=(ALICE,))
    reply = await routes.ask(
        "POST", TOKENS_PATH, (b"Host", b"gpu.lan"), key="sk-alice", client=("192.168.1.77", 5)
    )
    found = told(reply, 201)
    assert found["stream_url"] is None
    assert routes.opens(found["token"])


async def test_token_without_a_fast_path_is_404_that_says_why() -> None:
    """The body is not looked at."""
    routes = Routes(None)
    reply = await routes.make({"no": "matter"})
    assert_refused(reply, 404, "not_found_error", "turned off")
    assert (routes.pieces_taken, routes.tokens.outstanding) == (0, 0)


@pytest.mark.parametrize(("method", "path"), [("GET", STREAM_URL_PATH), ("POST", TOKENS_PATH)])
async def test_too_many_tokens_of_a_key_are_429_that_says_when(method: str, path: str) -> None:
    """When the first of them expires; those of another key are not in the way."""
    routes = Routes(keys=(ALICE, BOB))
    for _ in range(3):
        await routes.make(key="sk-alice")
    reply = await routes.ask(method, path, key="sk-alice")
    assert_refused(reply, 429, "rate_limit_error", "3 stream tokens of this API key")
    assert 1 <= int(reply.one(b"Retry-After")) <= 10
    assert (await routes.ask(method, path, key="sk-bob")).status in (200, 201)


# -- its end ---------------------------------------------------------------------------------------


async def revoke(routes: Routes, token_id: str, *, key: str | None = None) -> Reply:
    """Delete a token."""
    return await routes.ask("DELETE", f"{TOKENS_PATH}/{token_id}", key=key)


async def test_revoked_token_is_gone() -> None:
    """204 with no body; a second time there is none to revoke."""
    routes = Routes()
    found = told(await routes.make(), 201)
    reply = await revoke(routes, found["id"])
    assert (reply.status, reply.body, reply.complete) == (204, b"", True)
    assert reply.all(b"Content-Type") == reply.all(b"Content-Length") == []
    assert not routes.opens(found["token"])
    assert_refused(await revoke(routes, found["id"]), 404, "not_found_error", "no such stream")


async def test_revoking_ends_the_stream() -> None:
    """By `token_revoked`."""
    routes = Routes()
    found = told(await routes.make(), 201)
    lease = routes.tokens.redeem(found["token"], origin=None, path="/stream", request_id="r1")
    causes: list[EndCause] = []
    lease.bind(causes.append)
    assert (await revoke(routes, found["id"])).status == 204
    assert causes == [EndCause.TOKEN_REVOKED]


@pytest.mark.parametrize("token_id", ["", "unknown", "a/b", "%00", "é"])
async def test_revoking_what_there_is_not_is_404(token_id: str) -> None:
    """Whatever stands there."""
    assert_refused(await revoke(Routes(), token_id), 404, "not_found_error")


async def test_token_cannot_be_revoked_by_its_secret() -> None:
    """The secret opens a stream; it is no name, and stands in no path."""
    routes = Routes()
    found = told(await routes.make(), 201)
    assert (await revoke(routes, found["token"])).status == 404
    assert routes.opens(found["token"])


@pytest.mark.parametrize(
    ("keys", "by", "status"),
    [
        ((ALICE, BOB), "sk-alice", 204),
        ((ALICE, BOB), "sk-bob", 404),
        ((ALICE, BOB, ROOT), "sk-alice", 204),
        ((ALICE, BOB, ROOT), "sk-bob", 404),
        ((ALICE, BOB, ROOT), "sk-root", 204),
    ],
)
async def test_token_is_revoked_by_its_key_or_an_admins(
    keys: tuple[ApiKey, ...], by: str, status: int
) -> None:
    """To others it is not there."""
    routes = Routes(keys=keys)
    found = told(await routes.make(key="sk-alice"), 201)
    assert (await revoke(routes, found["id"], key=by)).status == status
    assert routes.opens(found["token"]) == (status == 404)


@pytest.mark.parametrize(("keys", "by", "status"), [((), None, 204), ((ALICE,), "sk-alice", 404)])
async def test_token_that_the_program_made_is_nobodys_with_keys(
    keys: tuple[ApiKey, ...], by: str | None, status: int
) -> None:
    """Without keys everybody who reaches us may do everything."""
    routes = Routes(keys=keys)
    token = routes.tokens.issue()
    assert (await revoke(routes, token.id, key=by)).status == status


# -- everything else -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", STREAM_URL_PATH),
        ("OPTIONS", STREAM_URL_PATH),
        ("GET", TOKENS_PATH),
        ("DELETE", TOKENS_PATH),
        ("PUT", TOKENS_PATH),
        ("GET", f"{TOKENS_PATH}/x"),
        ("POST", f"{TOKENS_PATH}/x"),
    ],
)
async def test_other_method_is_404(method: str, path: str) -> None:
    """They are ours, so llama-server is not asked; no token can be listed or looked at."""
    assert_refused(await Routes().ask(method, path), 404, "not_found_error")


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", STREAM_URL_PATH), ("POST", TOKENS_PATH), ("DELETE", f"{TOKENS_PATH}/x")],
)
async def test_each_needs_a_key_where_there_are_keys(method: str, path: str) -> None:
    """Who has none gets no token, and neither does a token make another."""
    routes = Routes(keys=(ALICE,))
    token = routes.tokens.issue()
    fields = (b"X-Stream-Token", token.token.encode())
    for reply in (await routes.ask(method, path), await routes.ask(method, path, fields)):
        assert_refused(reply, 401, "authentication_error")
    assert routes.tokens.outstanding == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", STREAM_URL_PATH), ("POST", TOKENS_PATH), ("DELETE", f"{TOKENS_PATH}/x")],
)
@pytest.mark.parametrize(
    "field", [(b"Origin", b"https://evil.example"), (b"Sec-Fetch-Site", b"cross-site")]
)
async def test_foreign_page_gets_no_token_where_there_are_no_keys(
    method: str, path: str, field: Field
) -> None:
    """Else it could use the model by one."""
    routes = Routes()
    assert_refused(await routes.ask(method, path, field), 403, "permission_error")
    assert routes.tokens.outstanding == 0
