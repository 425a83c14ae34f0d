"""Stream tokens at work: secrets made, tokens redeemed into leases, leases carried out."""

from __future__ import annotations

import gc
import logging
import re
from collections.abc import Awaitable, Callable

import pytest
import trio

from proxy.core.causes import EndCause
from proxy.core.errors import InvalidRequest, NotFound, RefusalReason, TokenRefused, TooManyTokens
from proxy.core.stream_tokens import TokenPolicy
from proxy.runtime.exchange import Exchange, ExchangeRegistry
from proxy.runtime.stream_tokens import Lease, StreamToken, StreamTokens
from tests.fakes.staged_engine import StagedEngine

PAGE = "https://page.example"
STREAM = "/stream"


@pytest.fixture
def engine() -> StagedEngine:
    """An engine whose launches a test makes."""
    return StagedEngine()


@pytest.fixture
def tokens(engine: StagedEngine) -> StreamTokens:
    """The tokens of a proxy with the usual policy."""
    return StreamTokens(engine, TokenPolicy())


def redeem(
    tokens: StreamTokens,
    token: StreamToken | str,
    *,
    origin: str | None = None,
    path: str = STREAM,
) -> Lease:
    """Present a token."""
    secret = token if isinstance(token, str) else token.token
    return tokens.redeem(secret, origin=origin, path=path, request_id="r1")


# -- issuing ---------------------------------------------------------------------------------------


async def test_token_has_a_secret_of_256_bits_and_a_name_of_its_own(tokens: StreamTokens) -> None:
    """Both are random, fit into a header and a path, and have nothing in common."""
    made = [tokens.issue() for _ in range(50)]
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", token.token) for token in made)
    assert all(re.fullmatch(r"[0-9a-f]{24}", token.id) for token in made)
    assert len({token.token for token in made} | {token.id for token in made}) == 100


async def test_token_is_shown_without_its_secret(tokens: StreamTokens) -> None:
    """Who prints or logs it by mistake tells nothing."""
    token = tokens.issue()
    assert token.token not in repr(token)
    assert token.id in repr(token)


async def test_secret_is_told_once_and_kept_nowhere(tokens: StreamTokens) -> None:
    """Neither for an unused token nor for a redeemed one is it in the proxy's memory."""
    token, used = tokens.issue(), tokens.issue()
    lease = redeem(tokens, used)
    held = reachable_strings(tokens) | reachable_strings(lease)
    assert {token.id, used.id} <= held
    assert not held & {token.token, used.token}


def reachable_strings(root: object) -> set[str]:
    """Return every string that can be come by from an object's attributes."""
    seen: set[int] = set()
    found: set[str] = set()
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            found.add(each)
        # Beyond classes, modules and functions is everything that this process has.
        if id(each) in seen or isinstance(each, type | type(gc) | type(redeem) | str):
            continue
        seen.add(id(each))
        waiting += gc.get_referents(each)
    return found


async def test_token_without_wishes_has_the_policys_times(
    engine: StagedEngine, autojump_clock: object
) -> None:
    """It says when it expires, and how long its stream may live."""
    tokens = StreamTokens(engine, TokenPolicy(ttl_s=7.0, lease_s=90.0))
    token = tokens.issue()
    assert (token.ttl_s, token.lease_s) == (7.0, 90.0)
    assert token.expires_at == trio.current_time() + 7.0
    assert redeem(tokens, token).ends_at == trio.current_time() + 90.0


async def test_token_has_what_the_program_asks_for(
    tokens: StreamTokens, autojump_clock: object
) -> None:
    """Times, key, bound; and it is of use to the origin and on the path that were named alone."""
    token = tokens.issue(
        key_name="alice",
        ttl_s=3.0,
        lease_s=4.0,
        paths=frozenset({STREAM}),
        origin=PAGE,
        max_tokens=5,
    )
    assert (token.ttl_s, token.lease_s) == (3.0, 4.0)
    for origin, path in ((None, STREAM), (PAGE, "/completion")):
        with pytest.raises(TokenRefused):
            redeem(tokens, token, origin=origin, path=path)
    lease = redeem(tokens, token, origin=PAGE)
    assert (lease.token_id, lease.key_name, lease.max_tokens) == (token.id, "alice", 5)
    assert lease.ends_at == trio.current_time() + 4.0


async def test_token_with_a_lease_of_zero_opens_a_stream_without_end(
    tokens: StreamTokens,
) -> None:
    """A program may lift the policy's bound."""
    token = tokens.issue(lease_s=0)
    assert token.lease_s == 0
    assert redeem(tokens, token).ends_at is None


async def test_token_as_a_client_asks_is_within_the_policys_bounds(tokens: StreamTokens) -> None:
    """The body of `POST /v1/stream-tokens`, with the paths that there are."""
    known = frozenset({STREAM, "/completion"})
    fields: dict[str, object] = {"lease_s": 60, "paths": [STREAM], "max_tokens": 9}
    token = tokens.issue_as_asked(fields, key_name="alice", paths=known)
    lease = redeem(tokens, token)
    assert (token.lease_s, lease.key_name, lease.max_tokens) == (60, "alice", 9)
    for refused in ({"lease_s": 0}, {"paths": ["/elsewhere"]}, {"ttl_s": 1e9}, {"ttl": 1}):
        with pytest.raises(InvalidRequest):
            tokens.issue_as_asked(refused, key_name="alice", paths=known)


async def test_tokens_are_bounded_in_number(engine: StagedEngine) -> None:
    """Of one key, and in all; those that are used or expired make room."""
    tokens = StreamTokens(engine, TokenPolicy(max_per_key=2, max_outstanding=3))
    first, _ = tokens.issue(key_name="alice"), tokens.issue(key_name="alice")
    with pytest.raises(TooManyTokens):
        tokens.issue(key_name="alice")
    tokens.issue(key_name="bob")
    with pytest.raises(TooManyTokens):
        tokens.issue_as_asked({}, key_name="carol", paths=frozenset())
    redeem(tokens, first)
    tokens.issue(key_name="alice")
    assert tokens.outstanding == 3


# -- redeeming -------------------------------------------------------------------------------------


async def test_token_is_redeemed_once(tokens: StreamTokens) -> None:
    """It waits, it runs, it is gone; at no time does it open a second stream."""
    token = tokens.issue()
    assert (tokens.outstanding, tokens.running) == (1, 0)
    lease = redeem(tokens, token)
    assert (tokens.outstanding, tokens.running) == (0, 1)
    with pytest.raises(TokenRefused):
        redeem(tokens, token)
    lease.release()
    assert (tokens.outstanding, tokens.running) == (0, 0)
    with pytest.raises(TokenRefused):
        redeem(tokens, token)


async def test_lease_that_is_released_again_changes_nothing(tokens: StreamTokens) -> None:
    """Every end of an exchange may give it back."""
    lease = redeem(tokens, tokens.issue())
    other = redeem(tokens, tokens.issue())
    lease.release()
    lease.release()
    assert tokens.running == 1
    other.release()
    assert tokens.running == 0


async def presents_unknown(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present what nobody made."""
    return "made-up"


async def presents_used(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present one whose stream runs."""
    token = tokens.issue()
    redeem(tokens, token)
    return token.token


async def presents_over(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present one whose stream has ended."""
    token = tokens.issue()
    redeem(tokens, token).release()
    return token.token


async def presents_for_another_page(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present one that was made for a page."""
    return tokens.issue(origin=PAGE).token


async def presents_for_another_path(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present one that was made for another route."""
    return tokens.issue(paths=frozenset({"/completion"})).token


async def presents_of_another_launch(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present one that is older than the engine's launch."""
    token = tokens.issue()
    engine.crash()
    engine.launch()
    return token.token


async def presents_expired(tokens: StreamTokens, engine: StagedEngine) -> str:
    """Present one that has waited for too long."""
    token = tokens.issue(ttl_s=1.0)
    await trio.sleep(1.0)
    return token.token


Present = Callable[[StreamTokens, StagedEngine], Awaitable[str]]
REFUSED: list[tuple[Present, RefusalReason]] = [
    (presents_unknown, RefusalReason.UNKNOWN),
    (presents_used, RefusalReason.USED),
    (presents_over, RefusalReason.USED),
    (presents_for_another_page, RefusalReason.WRONG_ORIGIN),
    (presents_for_another_path, RefusalReason.WRONG_PATH),
    (presents_of_another_launch, RefusalReason.ENGINE_RESTARTED),
    (presents_expired, RefusalReason.EXPIRED),
]


def test_every_reason_has_a_case() -> None:
    """None is forgotten."""
    assert {reason for _, reason in REFUSED} == set(RefusalReason)


@pytest.mark.parametrize("case", REFUSED, ids=[present.__name__ for present, _ in REFUSED])
async def test_refusal_is_told_apart_in_the_log_alone(
    engine: StagedEngine,
    case: tuple[Present, RefusalReason],
    caplog: pytest.LogCaptureFixture,
    autojump_clock: object,
) -> None:
    """One line has the reason and the request's id; the client's words are always the same."""
    present, reason = case
    tokens = StreamTokens(engine, TokenPolicy())
    caplog.set_level(logging.DEBUG)
    secret = await present(tokens, engine)
    with pytest.raises(TokenRefused) as refused:
        redeem(tokens, secret)
    (line,) = [found for found in caplog.records if found.name == "proxy.stream_tokens"]
    assert line.getMessage() == f"a stream token was refused: {reason}"
    assert (line.request_id, line.reason) == ("r1", reason)  # type: ignore[attr-defined]
    assert secret not in caplog.text + str(vars(line)) + repr(refused.value)
    assert refused.value.as_body() == TokenRefused(RefusalReason.UNKNOWN).as_body()


async def test_token_waits_for_its_ttl_and_no_longer(
    tokens: StreamTokens, autojump_clock: object
) -> None:
    """Just before its end it opens a stream, at its end it does not."""
    early, late = tokens.issue(ttl_s=5.0), tokens.issue(ttl_s=5.0)
    await trio.sleep(4.999)
    redeem(tokens, early)
    await trio.sleep(0.001)
    with pytest.raises(TokenRefused):
        redeem(tokens, late)


async def test_relaunch_voids_unused_tokens_and_spares_streams(
    tokens: StreamTokens, engine: StagedEngine
) -> None:
    """Whose stream has begun is for the exchange to say; a token made after it is good."""
    unused, used = tokens.issue(), tokens.issue()
    redeem(tokens, used)
    engine.crash()
    engine.launch()
    with pytest.raises(TokenRefused):
        redeem(tokens, unused)
    redeem(tokens, tokens.issue())
    assert tokens.running == 2


# -- revoking --------------------------------------------------------------------------------------


async def test_revoked_token_opens_nothing(tokens: StreamTokens) -> None:
    """It is gone at once; to revoke it again is to look for what is not there."""
    token = tokens.issue()
    tokens.revoke(token.id)
    assert tokens.outstanding == 0
    with pytest.raises(TokenRefused):
        redeem(tokens, token)
    with pytest.raises(NotFound):
        tokens.revoke(token.id)


async def test_revoking_ends_the_stream_that_the_token_opened(tokens: StreamTokens) -> None:
    """It ends by `token_revoked`, and runs until it says that it has ended."""
    token = tokens.issue()
    lease = redeem(tokens, token)
    causes: list[EndCause] = []
    lease.bind(causes.append)
    tokens.revoke(token.id)
    assert (causes, tokens.running) == ([EndCause.TOKEN_REVOKED], 1)
    lease.release()
    assert tokens.running == 0
    with pytest.raises(NotFound):
        tokens.revoke(token.id)


async def test_revoking_a_stream_that_nothing_can_end_yet_is_no_error(
    tokens: StreamTokens,
) -> None:
    """Between the redeeming and the stream is nothing; a program may put something there."""
    token = tokens.issue()
    redeem(tokens, token)
    tokens.revoke(token.id)
    assert tokens.running == 1


@pytest.mark.parametrize("used", [False, True], ids=["unused", "running"])
async def test_token_of_another_key_is_not_found(tokens: StreamTokens, used: bool) -> None:
    """Nobody but its key and an administrator learns that there is one."""
    token = tokens.issue(key_name="alice")
    causes: list[EndCause] = []
    if used:
        redeem(tokens, token).bind(causes.append)
    for key in ("bob", None):
        with pytest.raises(NotFound):
            tokens.revoke(token.id, key_name=key, admin=False)
    assert causes == []
    tokens.revoke(token.id, key_name="alice", admin=False)
    assert (causes != [], tokens.outstanding) == (used, 0)


# -- a lease at its exchange -----------------------------------------------------------------------


async def run_endless(exchange: Exchange, lease: Lease) -> None:
    """Carry an exchange that ends by its lease or not at all."""
    with ExchangeRegistry().open(exchange):
        exchange.take_lease(lease)
        with exchange.scope:
            await trio.sleep_forever()
        exchange.note_deadline()
        exchange.release()


def made_exchange() -> Exchange:
    """Return an exchange that has begun."""
    return Exchange("r1", "/v1/chat/completions", "POST", trio.current_time())


async def test_exchange_ends_with_its_lease(tokens: StreamTokens, autojump_clock: object) -> None:
    """By `token_expired`, when it is due, and gives the token back."""
    exchange, began = made_exchange(), trio.current_time()
    await run_endless(exchange, redeem(tokens, tokens.issue(lease_s=30.0)))
    assert (exchange.cause, tokens.running) == (EndCause.TOKEN_EXPIRED, 0)
    assert trio.current_time() == began + 30.0


@pytest.mark.parametrize(
    ("deadline_s", "lease_s", "cause"),
    [
        (5.0, 30.0, EndCause.DEADLINE_EXCEEDED),
        (30.0, 5.0, EndCause.TOKEN_EXPIRED),
        (5.0, 0.0, EndCause.DEADLINE_EXCEEDED),
    ],
)
async def test_exchange_ends_by_what_comes_first(
    tokens: StreamTokens, deadline_s: float, lease_s: float, cause: EndCause, autojump_clock: object
) -> None:
    """A lease does not lift the bound of every exchange, nor that the lease's."""
    exchange, began = made_exchange(), trio.current_time()
    exchange.end_at(began + deadline_s, EndCause.DEADLINE_EXCEEDED)
    await run_endless(exchange, redeem(tokens, tokens.issue(lease_s=lease_s)))
    assert (exchange.cause, trio.current_time()) == (cause, began + 5.0)


async def test_exchange_of_a_revoked_token_ends_at_once(
    tokens: StreamTokens, autojump_clock: object
) -> None:
    """Long before its lease does."""
    token, exchange, began = tokens.issue(), made_exchange(), trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(run_endless, exchange, redeem(tokens, token))
        await trio.sleep(1.0)
        tokens.revoke(token.id)
    assert (exchange.cause, tokens.running) == (EndCause.TOKEN_REVOKED, 0)
    assert trio.current_time() == began + 1.0


async def test_exchange_that_had_finished_stays_so(tokens: StreamTokens) -> None:
    """A revocation that comes after the last byte is no cause."""
    token, exchange = tokens.issue(), made_exchange()
    exchange.take_lease(redeem(tokens, token))
    exchange.finish()
    tokens.revoke(token.id)
    assert exchange.cause is EndCause.FINISHED
    exchange.release()
    assert tokens.running == 0
