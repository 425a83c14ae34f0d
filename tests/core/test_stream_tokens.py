"""One-time stream tokens: which there are, and who may redeem one."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from proxy.core.errors import NotFound, RefusalReason, TokenRefused, TooManyTokens
from proxy.core.stream_tokens import Grant, Issued, Redeemed, StreamTokenTable, TokenPolicy

GRANT = Grant(key_name="alice", generation=1, ttl_s=10.0, lease_s=600.0)
PAGE = "https://app.example"


def table_with(*grants: Grant, policy: TokenPolicy | None = None) -> StreamTokenTable:
    """Return a table with tokens issued at 0: `id-0` of `secret-0`, and so on."""
    table = StreamTokenTable(policy or TokenPolicy())
    for n, grant in enumerate(grants):
        table.issue(0.0, f"secret-{n}", f"id-{n}", grant)
    return table


def redeem(
    table: StreamTokenTable,
    secret: str = "secret-0",
    *,
    now: float = 1.0,
    origin: str | None = None,
    path: str = "/stream",
    generation: int = 1,
) -> Redeemed:
    """Redeem a token in the most ordinary way."""
    return table.redeem(now, secret, origin=origin, path=path, generation=generation)


def refusal(
    table: StreamTokenTable,
    secret: str = "secret-0",
    *,
    now: float = 1.0,
    origin: str | None = None,
    path: str = "/stream",
    generation: int = 1,
) -> RefusalReason:
    """Return why it cannot be redeemed."""
    with pytest.raises(TokenRefused) as caught:
        redeem(table, secret, now=now, origin=origin, path=path, generation=generation)
    return caught.value.reason


def counts(table: StreamTokenTable) -> tuple[int, int]:
    """Return how many tokens are unused and how many have a stream."""
    return table.outstanding, table.running


def test_issue_tells_until_when_it_can_be_used() -> None:
    """By the caller's clock; the lease begins later, when it is used."""
    issued = StreamTokenTable(TokenPolicy()).issue(5.0, "secret", "id", GRANT)
    assert issued == Issued(id="id", expires_at=15.0, lease_s=600.0)


def test_redeem_opens_one_stream() -> None:
    """Whose it is, and what it may do, comes out; the lease begins now."""
    table = table_with(replace(GRANT, max_tokens=7))
    assert redeem(table, now=2.0) == Redeemed(
        id="id-0", key_name="alice", max_tokens=7, lease_ends_at=602.0
    )
    assert counts(table) == (0, 1)


def test_redeem_without_lease_has_no_end() -> None:
    """A lease of 0 is none."""
    assert redeem(table_with(replace(GRANT, lease_s=0.0))).lease_ends_at is None


def test_redeem_thousand_attempts_have_one_winner() -> None:
    """The first; all others are told so in the log."""
    table = table_with(GRANT)
    assert redeem(table).id == "id-0"
    assert {refusal(table) for _ in range(999)} == {RefusalReason.USED}
    assert counts(table) == (0, 1)


def test_redeem_after_its_stream_ended_is_refused_as_used() -> None:
    """Also after its redeem TTL would have been over."""
    table = table_with(GRANT)
    redeem(table)
    table.release("id-0")
    assert counts(table) == (0, 0)
    assert refusal(table, now=100.0) is RefusalReason.USED


def test_redeem_running_token_after_its_redeem_ttl_is_refused_as_used() -> None:
    """The TTL is over with its first use."""
    table = table_with(GRANT)
    redeem(table)
    assert refusal(table, now=100.0) is RefusalReason.USED
    assert counts(table) == (0, 1)


@pytest.mark.parametrize("now", [10.0, 10.5, 1e9])
def test_redeem_expired_token_is_refused(now: float) -> None:
    """From the moment that it was told; a second attempt has the same reason."""
    table = table_with(GRANT)
    assert [refusal(table, now=now) for _ in range(2)] == [RefusalReason.EXPIRED] * 2
    assert counts(table) == (0, 0)


def test_redeem_just_before_it_expires_succeeds() -> None:
    """The last moment is within."""
    assert redeem(table_with(GRANT), now=math.nextafter(10.0, 0)).id == "id-0"


@pytest.mark.parametrize(
    "secret", ["", "secret", "secret-00", "SECRET-0", "secret-0 ", "id-0", "\u00e9", "\udc80"]
)
def test_redeem_unknown_token_is_refused(secret: str) -> None:
    """Whatever text a client presents."""
    table = table_with(GRANT)
    assert refusal(table, secret) is RefusalReason.UNKNOWN
    assert counts(table) == (1, 0)


@pytest.mark.parametrize(
    "origin", [None, "", "null", "https://APP.example", "https://app.example:443", f"{PAGE}.evil"]
)
def test_redeem_bound_to_an_origin_is_refused_elsewhere(origin: str | None) -> None:
    """Exactly that origin; and it is not used up by the attempt."""
    table = table_with(replace(GRANT, origin=PAGE))
    assert refusal(table, origin=origin) is RefusalReason.WRONG_ORIGIN
    assert redeem(table, origin=PAGE).id == "id-0"


@pytest.mark.parametrize("path", ["/completion", "/stream/", "/STREAM", ""])
def test_redeem_bound_to_paths_is_refused_elsewhere(path: str) -> None:
    """Exactly those paths; and it is not used up by the attempt."""
    table = table_with(replace(GRANT, paths=frozenset({"/stream", "/infill"})))
    assert refusal(table, path=path) is RefusalReason.WRONG_PATH
    assert redeem(table, path="/infill").id == "id-0"


def test_redeem_bound_to_nothing_is_accepted_from_anywhere() -> None:
    """Any origin or none, any path."""
    table = table_with(GRANT, GRANT)
    assert redeem(table, "secret-0", origin=PAGE, path="/completion").id == "id-0"
    assert redeem(table, "secret-1", origin=None, path="/").id == "id-1"


def test_redeem_after_the_engine_was_launched_again_is_refused() -> None:
    """All unused tokens are void at once, whichever is presented."""
    table = table_with(GRANT, GRANT)
    assert refusal(table, "secret-0", generation=2) is RefusalReason.ENGINE_RESTARTED
    assert counts(table) == (0, 0)
    assert refusal(table, "secret-1", generation=2) is RefusalReason.ENGINE_RESTARTED


def test_redeemed_token_survives_a_launch_of_the_engine() -> None:
    """Its stream ends by the crash itself; until then it is a used one."""
    table = table_with(GRANT)
    redeem(table)
    assert refusal(table, generation=2) is RefusalReason.USED
    assert counts(table) == (0, 1)


def test_issue_after_the_engine_was_launched_again_has_all_the_room() -> None:
    """Void tokens do not stand in the way of those who ask for new ones."""
    table = table_with(GRANT, GRANT, policy=TokenPolicy(max_outstanding=2, max_per_key=2))
    table.issue(1.0, "new", "new", replace(GRANT, generation=2))
    assert table.outstanding == 1
    assert redeem(table, "new", generation=2).id == "new"
    assert refusal(table, "secret-0", generation=2) is RefusalReason.ENGINE_RESTARTED


def test_issue_beyond_the_share_of_a_key_is_refused() -> None:
    """Until the soonest of that key's expires; others still get theirs."""
    policy = TokenPolicy(max_per_key=2)
    bobs = replace(GRANT, key_name="bob", ttl_s=1.0)
    table = table_with(GRANT, bobs, replace(GRANT, ttl_s=7.5), policy=policy)
    with pytest.raises(TooManyTokens, match=r"^2 stream tokens of this API key wait") as caught:
        table.issue(0.0, "more", "more", GRANT)
    assert caught.value.retry_after_s == 8
    table.issue(0.0, "bobs", "bobs", bobs)
    table.issue(7.5, "later", "later", GRANT)
    assert table.outstanding == 2


def test_issue_beyond_the_share_of_those_without_key_is_refused() -> None:
    """They are of one key."""
    keyless = replace(GRANT, key_name=None)
    table = table_with(keyless, policy=TokenPolicy(max_per_key=1))
    with pytest.raises(TooManyTokens, match=r"^1 stream tokens made without an API key wait"):
        table.issue(0.0, "more", "more", keyless)


def test_issue_beyond_all_room_is_refused() -> None:
    """Until the soonest of all expires, of whichever key."""
    grants = [replace(GRANT, key_name=name, ttl_s=ttl_s) for name, ttl_s in [("a", 9), ("b", 3.2)]]
    table = table_with(*grants, policy=TokenPolicy(max_outstanding=2))
    with pytest.raises(TooManyTokens, match=r"^2 stream tokens wait to be used") as caught:
        table.issue(0.0, "more", "more", GRANT)
    assert caught.value.retry_after_s == 4
    assert table.issue(4.0, "more", "more", GRANT).id == "more"


def test_issue_refusal_waits_for_one_that_is_still_unused() -> None:
    """Not for one that was used or revoked meanwhile."""
    grants = [replace(GRANT, ttl_s=ttl_s) for ttl_s in (1.0, 2.0, 5.0)]
    table = table_with(*grants, policy=TokenPolicy(max_outstanding=3))
    redeem(table, "secret-0", now=0.0)
    table.revoke(0.0, "id-1", key_name="alice", admin=False)
    table.issue(0.0, "more", "more", GRANT)
    table.issue(0.0, "and more", "and more", GRANT)
    with pytest.raises(TooManyTokens) as caught:
        table.issue(0.0, "another", "another", GRANT)
    assert caught.value.retry_after_s == 5


@pytest.mark.parametrize("ttl_s", [1e-9, 0.5, 1.0])
def test_issue_refusal_waits_a_second_at_least(ttl_s: float) -> None:
    """A header of 0 would ask for a busy loop."""
    table = table_with(replace(GRANT, ttl_s=ttl_s), policy=TokenPolicy(max_per_key=1))
    with pytest.raises(TooManyTokens) as caught:
        table.issue(0.0, "more", "more", GRANT)
    assert (caught.value.status, caught.value.retry_after_s) == (429, 1)


def test_issue_counts_unused_tokens_alone() -> None:
    """A stream that runs takes no room."""
    table = table_with(GRANT, policy=TokenPolicy(max_outstanding=1, max_per_key=1))
    redeem(table)
    table.issue(1.0, "more", "more", GRANT)
    assert counts(table) == (1, 1)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize(("secret", "token_id"), [("secret-0", "new"), ("new", "id-0")])
def test_issue_twice_is_an_error(secret: str, token_id: str, used: bool) -> None:
    """Of one id or one secret only one token could be found."""
    table = table_with(GRANT)
    if used:
        redeem(table)
    with pytest.raises(ValueError, match="once"):
        table.issue(1.0, secret, token_id, GRANT)
    assert table.outstanding + table.running == 1


def test_revoke_unused_token_makes_it_useless() -> None:
    """There is no stream to end, and no trace of it."""
    table = table_with(GRANT)
    assert table.revoke(1.0, "id-0", key_name="alice", admin=False) is False
    assert counts(table) == (0, 0)
    assert refusal(table) is RefusalReason.UNKNOWN
    with pytest.raises(NotFound):
        table.revoke(1.0, "id-0", key_name="alice", admin=False)


def test_revoke_used_token_tells_that_its_stream_runs() -> None:
    """As often as it is asked, until the stream has ended."""
    table = table_with(GRANT)
    redeem(table)
    assert [table.revoke(99.0, "id-0", key_name="alice", admin=False) for _ in range(2)] == [
        True,
        True,
    ]
    assert counts(table) == (0, 1)
    table.release("id-0")
    with pytest.raises(NotFound):
        table.revoke(99.0, "id-0", key_name="alice", admin=False)


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("key_name", ["bob", None])
def test_revoke_token_of_another_key_finds_none(key_name: str | None, used: bool) -> None:
    """As if there were none, in the same words; but an admin may."""
    table = table_with(GRANT)
    if used:
        redeem(table)
    messages = []
    for token_id in ("id-0", "never"):
        with pytest.raises(NotFound) as caught:
            table.revoke(1.0, token_id, key_name=key_name, admin=False)
        messages.append(caught.value.message)
    assert messages[0] == messages[1]
    assert table.revoke(1.0, "id-0", key_name=key_name, admin=True) is used


def test_revoke_without_keys_is_anybodys() -> None:
    """Where no key is needed all tokens are of everybody."""
    table = table_with(replace(GRANT, key_name=None))
    assert table.revoke(1.0, "id-0", key_name=None, admin=False) is False


def test_revoke_expired_token_finds_none() -> None:
    """Nothing is left to be revoked."""
    table = table_with(GRANT)
    with pytest.raises(NotFound):
        table.revoke(10.0, "id-0", key_name="alice", admin=True)
    assert refusal(table, now=10.0) is RefusalReason.EXPIRED


@pytest.mark.parametrize("token_id", ["id-0", "never"])
def test_release_of_what_does_not_run_changes_nothing(token_id: str) -> None:
    """Every end may call it: an unused token stays one."""
    table = table_with(GRANT)
    table.release(token_id)
    assert counts(table) == (1, 0)
    redeem(table)
    table.release("id-0")
    table.release("id-0")
    assert counts(table) == (0, 0)


def test_refusal_tells_the_client_the_same_whatever_the_reason() -> None:
    """A guess is not told how near it was."""
    table = table_with(replace(GRANT, origin=PAGE), GRANT)
    redeem(table, "secret-1")
    replies = set()
    for secret in ("secret-0", "secret-1", "never"):
        with pytest.raises(TokenRefused) as caught:
            redeem(table, secret)
        replies.add(caught.value.as_body())
    assert len(replies) == 1


def test_nothing_shows_secret_or_digest() -> None:
    """Neither what is handed out nor what is kept, in all its depth, has the secret."""
    digest = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b"  # of "secret"
    table = StreamTokenTable(TokenPolicy())
    issued = table.issue(0.0, "secret", "id", GRANT)
    unused = table._unused["id"]
    redeemed = redeem(table, "secret")
    for shown in (repr(thing) for thing in (table, issued, unused, redeemed)):
        assert "secret" not in shown
        assert digest not in shown
        assert repr(bytes.fromhex(digest))[2:-1] not in shown
    assert bytes.fromhex(digest) in table._by_digest
    assert "secret" not in repr(vars(table))


@pytest.mark.parametrize("end", ["redeem", "revoke", "expire", "restart"])
@pytest.mark.parametrize("staying_ttl_s", [[], [1e9] * 5, [1e4] * 5], ids=["0", "last", "first"])
def test_memory_is_bounded_whatever_tokens_end_by(end: str, staying_ttl_s: list[float]) -> None:
    """Beside tokens that stay, whether they are before or behind those that come and go."""
    policy = TokenPolicy(max_outstanding=20)
    stay = [replace(GRANT, ttl_s=ttl_s) for ttl_s in staying_ttl_s]
    table = table_with(*stay, policy=policy)
    for n in range(2000):
        grant = replace(
            GRANT,
            key_name=f"key-{n}",
            generation=n if end == "restart" else 1,
            ttl_s=0.5 if end == "expire" else 1e6,
        )
        table.issue(n, f"secret-of-{n}", f"id-of-{n}", grant)
        if end == "redeem":
            redeem(table, f"secret-of-{n}", now=n)
            table.release(f"id-of-{n}")
        elif end == "revoke":
            table.revoke(n, f"id-of-{n}", key_name=None, admin=True)
        assert len(table._due) <= 2 * table.outstanding + 16
    assert table.outstanding <= len(stay) + 1
    assert len(table._by_digest) == table.outstanding
    assert len(table._of_key) <= 2
    assert len(table._ended) <= policy.max_outstanding


def test_tokens_that_stay_expire_in_order_after_others_have_left() -> None:
    """Also those that were issued in another order."""
    table = table_with(*[replace(GRANT, ttl_s=ttl_s) for ttl_s in (30.0, 20.0, 10.0)])
    for n in range(50):
        table.issue(1.0, f"secret-of-{n}", f"id-of-{n}", replace(GRANT, ttl_s=300.0))
        redeem(table, f"secret-of-{n}")
    waiting = []
    for now in (9.0, 10.0, 20.0, 30.0):
        refusal(table, "never", now=now)
        waiting.append(table.outstanding)
    assert waiting == [3, 2, 1, 0]


def test_reason_of_the_latest_ends_is_known() -> None:
    """As many as may be outstanding; of what ended before that, nothing is known any more."""
    policy = TokenPolicy(max_outstanding=3)
    table = StreamTokenTable(policy)
    for n in range(5):
        table.issue(0.0, f"secret-{n}", f"id-{n}", GRANT)
        redeem(table, f"secret-{n}")
        table.release(f"id-{n}")
    assert [refusal(table, f"secret-{n}") for n in range(5)] == [
        RefusalReason.UNKNOWN,
        RefusalReason.UNKNOWN,
        *[RefusalReason.USED] * 3,
    ]


def test_expiry_costs_no_scan() -> None:
    """A call looks at what is due and at the next one, not at those that wait behind."""

    class Counted(float):
        """A time that counts how often it is compared."""

        comparisons = 0

        def __le__(self, other: float) -> bool:
            Counted.comparisons += 1
            return float(self) <= float(other)

        def __ge__(self, other: float) -> bool:
            Counted.comparisons += 1
            return float(self) >= float(other)

    table = table_with(*[replace(GRANT, key_name=str(n)) for n in range(1000)])
    assert refusal(table, "never", now=Counted(1.0)) is RefusalReason.UNKNOWN
    assert Counted.comparisons <= 2


@given(
    st.lists(st.floats(1e-3, 300.0), min_size=1, max_size=40),
    st.floats(0.0, 1e9),
    st.floats(0.0, 400.0),
)
def test_tokens_expire_each_at_its_time(ttls: list[float], start: float, later: float) -> None:
    """Whatever the order in which they were issued."""
    table = StreamTokenTable(TokenPolicy())
    issued = [
        table.issue(start, f"secret-{n}", f"id-{n}", replace(GRANT, ttl_s=ttl_s))
        for n, ttl_s in enumerate(ttls)
    ]
    now = start + later
    refusal(table, "never", now=now)
    assert table.outstanding == sum(token.expires_at > now for token in issued)


@dataclass(slots=True)
class ModelToken:
    """A token as the model has it: nothing but what was said of it."""

    n: int
    grant: Grant
    expires_at: float
    state: str = "unused"


class TokenMachine(RuleBasedStateMachine):
    """Any sequence of steps, while time goes forward, against a model: two plain lists.

    The bounds are small, so that they are often met.
    """

    policy = TokenPolicy(max_outstanding=5, max_per_key=3)
    keys = st.sampled_from(["alice", "bob", None])
    origins = st.sampled_from([PAGE, "https://other.example", None])
    paths = st.sampled_from(["/stream", "/infill"])

    def __init__(self) -> None:
        super().__init__()
        self.table = StreamTokenTable(self.policy)
        self.tokens: list[ModelToken] = []
        self.ended: list[ModelToken] = []
        self.now = 0.0
        self.generation = 1

    def of_state(self, state: str) -> list[ModelToken]:
        """Return the tokens of a state, in the order in which they were issued."""
        return [token for token in self.tokens if token.state == state]

    def end(self, token: ModelToken, reason: RefusalReason) -> None:
        """Let a token be refused for `reason` from now on."""
        token.state = reason
        self.ended.append(token)

    def settle(self, *, engine_is_seen: bool) -> None:
        """Do what a call does first."""
        for token in sorted(self.of_state("unused"), key=lambda t: (t.expires_at, f"id-{t.n}")):
            if token.expires_at <= self.now:
                self.end(token, RefusalReason.EXPIRED)
        for token in self.of_state("unused"):
            if engine_is_seen and token.grant.generation != self.generation:
                self.end(token, RefusalReason.ENGINE_RESTARTED)

    def choose(self, data: st.DataObject) -> ModelToken:
        """Return any token that ever was, or one that never was."""
        never = ModelToken(len(self.tokens), GRANT, 0.0, "never issued")
        return data.draw(st.sampled_from([*self.tokens, never]))

    @rule(by_s=st.sampled_from([0.25, 1.0, 3.0, 20.0]))
    def time_passes(self, by_s: float) -> None:
        """And nothing happens by itself."""
        self.now += by_s

    @rule()
    def engine_is_launched_again(self) -> None:
        """Nobody tells the table."""
        self.generation += 1

    @rule(
        key=keys,
        ttl_s=st.sampled_from([0.5, 2.0, 10.0, 300.0]),
        lease_s=st.sampled_from([0.0, 60.0]),
        origin=origins,
        paths=st.none() | st.frozensets(paths, min_size=1),
    )
    def issue(
        self,
        key: str | None,
        ttl_s: float,
        lease_s: float,
        origin: str | None,
        paths: frozenset[str] | None,
    ) -> None:
        """Somebody asks for a token."""
        self.settle(engine_is_seen=True)
        n = len(self.tokens)
        grant = Grant(key, self.generation, ttl_s, lease_s, origin, paths)
        in_the_way = self.in_the_way(key)
        if in_the_way:
            with pytest.raises(TooManyTokens) as caught:
                self.table.issue(self.now, f"secret-{n}", f"id-{n}", grant)
            soonest = min(token.expires_at for token in in_the_way)
            assert caught.value.retry_after_s == max(1, math.ceil(soonest - self.now))
        else:
            issued = self.table.issue(self.now, f"secret-{n}", f"id-{n}", grant)
            assert issued == Issued(f"id-{n}", self.now + ttl_s, lease_s)
            self.tokens.append(ModelToken(n, grant, issued.expires_at))

    def in_the_way(self, key: str | None) -> list[ModelToken]:
        """Return the tokens one of which must go before `key` gets another; none: there is room."""
        unused = self.of_state("unused")
        of_key = [token for token in unused if token.grant.key_name == key]
        if len(of_key) >= self.policy.max_per_key:
            return of_key
        return unused if len(unused) >= self.policy.max_outstanding else []

    @rule(data=st.data(), origin=origins, path=paths)
    def redeem(self, data: st.DataObject, origin: str | None, path: str) -> None:
        """Somebody presents a secret."""
        self.settle(engine_is_seen=True)
        token = self.choose(data)
        secret = f"secret-{token.n}"
        reason = self.refusal(token, origin, path)
        if reason is None:
            lease_s = token.grant.lease_s
            assert self.table.redeem(
                self.now, secret, origin=origin, path=path, generation=self.generation
            ) == Redeemed(
                id=f"id-{token.n}",
                key_name=token.grant.key_name,
                max_tokens=None,
                lease_ends_at=self.now + lease_s if lease_s else None,
            )
            token.state = "running"
        else:
            with pytest.raises(TokenRefused) as caught:
                self.table.redeem(
                    self.now, secret, origin=origin, path=path, generation=self.generation
                )
            assert caught.value.reason == reason

    def refusal(self, token: ModelToken, origin: str | None, path: str) -> RefusalReason | None:
        """Return why a token is to be refused; None if it is not."""
        if token in self.ended[-self.policy.max_outstanding :]:
            return RefusalReason(token.state)
        if token.state == "running":
            return RefusalReason.USED
        if token.state != "unused":
            return RefusalReason.UNKNOWN
        if token.grant.origin not in (None, origin):
            return RefusalReason.WRONG_ORIGIN
        if token.grant.paths is not None and path not in token.grant.paths:
            return RefusalReason.WRONG_PATH
        return None

    @rule(data=st.data(), key=keys, admin=st.booleans())
    def revoke(self, data: st.DataObject, key: str | None, admin: bool) -> None:
        """Somebody revokes a token, which may be anybody's."""
        self.settle(engine_is_seen=False)
        token = self.choose(data)
        there = token.state in ("unused", "running")
        if there and (admin or token.grant.key_name == key):
            ends_a_stream = self.table.revoke(self.now, f"id-{token.n}", key_name=key, admin=admin)
            assert ends_a_stream == (token.state == "running")
            token.state = "running" if ends_a_stream else "revoked"
        else:
            with pytest.raises(NotFound):
                self.table.revoke(self.now, f"id-{token.n}", key_name=key, admin=admin)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """A stream ends, or something that has none."""
        token = self.choose(data)
        self.table.release(f"id-{token.n}")
        if token.state == "running":
            self.end(token, RefusalReason.USED)

    @invariant()
    def nothing_is_lost_or_kept(self) -> None:
        """The counts are the model's, and what the table keeps beside them is bounded by them."""
        unused, running = len(self.of_state("unused")), len(self.of_state("running"))
        assert counts(self.table) == (unused, running)
        assert len(self.table._by_digest) == unused + running
        assert unused <= len(self.table._due) <= 2 * unused + 16


TestTokenMachine = TokenMachine.TestCase
