"""One-time stream tokens: which there are, and who may redeem one.

Owns the table of tokens: unused ones, which expire, and those whose stream runs. A token is known
by the SHA-256 of its secret alone, and is found by that. A digest without salt and stretching is
enough for random secrets, and a look-up tells nothing by its time, for nobody can aim at a digest.

Must never know how a stream is ended (the caller does that when `revoke` says so, and at
`Redeemed.lease_ends_at`). Clock and randomness come from the caller.

State: a token is in `_unused`, then in `_running`, and leaves the table when its stream ends; or it
leaves `_unused` at once, when it expires, is revoked, or the engine is launched again. All unused
tokens are of one generation. `_due` has an entry for every unused token, the soonest to expire
first; entries of tokens that are not unused any more lie there until they come to the head or
outnumber the others. Nothing runs by itself: each call first drops what is due at its `now`.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections import OrderedDict
from dataclasses import dataclass, field

from proxy.core.errors import NotFound, RefusalReason, TokenRefused, TooManyTokens
from proxy.core.stream_grants import Grant, TokenPolicy, read_grant

__all__ = [
    "Grant",
    "Issued",
    "Redeemed",
    "StreamTokenTable",
    "TokenPolicy",
    "read_grant",
]

# So few stale entries are not worth a rebuild, however few tokens there are.
_TOLERATED_STALE = 16


@dataclass(frozen=True, slots=True)
class Issued:
    """A token that waits to be used.

    Args:
        id: Its public name, for revoking it.
        expires_at: Until when it can be redeemed, by the caller's clock.
        lease_s: How long the stream that it opens may live, in seconds; 0: without end.
    """

    id: str
    expires_at: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class Redeemed:
    """A token that was used just now: its stream may begin.

    Args:
        id: Its public name, for `release`.
        key_name: The name of the API key that asked for it, if any.
        max_tokens: The most model tokens that the answer may have; None: no bound.
        lease_ends_at: When the stream has to be ended, by the caller's clock; None: never.
    """

    id: str
    key_name: str | None
    max_tokens: int | None
    lease_ends_at: float | None


@dataclass(frozen=True, slots=True)
class _Token:
    """A token without its secret."""

    id: str
    digest: bytes = field(repr=False)
    expires_at: float
    grant: Grant


class StreamTokenTable:
    """The stream tokens of one proxy.

    Every `now` is in seconds, of any clock that only goes forward.

    Memory: at most `max_outstanding` unused tokens, as many running ones as there are streams, and
    for the log's sake the digests of the latest `max_outstanding` that ended.

    Args:
        policy: The operator's bounds.
    """

    def __init__(self, policy: TokenPolicy) -> None:
        self._policy = policy
        self._generation: int | None = None
        self._unused: dict[str, _Token] = {}
        self._running: dict[str, _Token] = {}
        # Unused and running ones.
        self._by_digest: dict[bytes, _Token] = {}
        # The ids of unused ones, and when they expire, by the name of their API key.
        self._of_key: dict[str | None, dict[str, float]] = {}
        self._due: list[tuple[float, str]] = []
        self._ended: OrderedDict[bytes, RefusalReason] = OrderedDict()

    @property
    def outstanding(self) -> int:
        """How many tokens wait to be used, as of the latest call."""
        return len(self._unused)

    @property
    def running(self) -> int:
        """How many redeemed tokens have not been released."""
        return len(self._running)

    def issue(self, now: float, secret: str, token_id: str, grant: Grant) -> Issued:
        """Add a token.

        Args:
            now: The present time.
            secret: What redeems it: random, of 128 bits or more. Only its digest is kept.
            token_id: Its public name: unique, and unrelated to the secret.
            grant: What it is good for.

        Raises:
            TooManyTokens: As many as there may be, at all or of this key, wait to be used. Its
                `retry_after_s` is when the soonest of them expires.
            ValueError: There is a token with this secret or id.
        """
        self._drop_due(now)
        self._void_others(grant.generation)
        token = _Token(token_id, _digest(secret), now + grant.ttl_s, grant)
        if token.digest in self._by_digest or token_id in self._unused or token_id in self._running:
            raise ValueError("a stream token is issued once")
        self._check_room(now, grant.key_name)
        self._by_digest[token.digest] = token
        self._unused[token_id] = token
        self._of_key.setdefault(grant.key_name, {})[token_id] = token.expires_at
        heapq.heappush(self._due, (token.expires_at, token_id))
        return Issued(token_id, token.expires_at, grant.lease_s)

    def redeem(
        self, now: float, secret: str, *, origin: str | None, path: str, generation: int
    ) -> Redeemed:
        """Use a token: it can never be used again. One that is refused here is not used by that.

        Args:
            now: The present time.
            secret: What the client presents as the token.
            origin: The request's `Origin`, as it came; None if it has none.
            path: The request's path, in the spelling that grants have.
            generation: The engine's present one. Another than at the latest call voids all unused
                tokens.

        Raises:
            TokenRefused: It does not open this stream.
        """
        self._drop_due(now)
        self._void_others(generation)
        token = self._find(_digest(secret))
        grant = token.grant
        if grant.origin is not None and origin != grant.origin:
            raise TokenRefused(RefusalReason.WRONG_ORIGIN)
        if grant.paths is not None and path not in grant.paths:
            raise TokenRefused(RefusalReason.WRONG_PATH)
        self._take_out(token)
        self._running[token.id] = token
        lease_ends_at = now + grant.lease_s if grant.lease_s else None
        return Redeemed(token.id, grant.key_name, grant.max_tokens, lease_ends_at)

    def revoke(self, now: float, token_id: str, *, key_name: str | None, admin: bool) -> bool:
        """Make an unused token useless, or tell that its stream has to be ended.

        A revoked token whose stream runs stays in the table until `release`.

        Args:
            now: The present time.
            token_id: Its public name.
            key_name: The name of the API key that asks, if any.
            admin: That key may revoke the tokens of others.

        Returns:
            Whether its stream runs, which the caller has to end.

        Raises:
            NotFound: There is none, or it is another key's: nobody learns of those of others.
        """
        self._drop_due(now)
        token = self._unused.get(token_id) or self._running.get(token_id)
        if token is None or not (admin or token.grant.key_name == key_name):
            raise NotFound("There is no such stream token.")
        if token_id in self._running:
            return True
        self._take_out(token)
        del self._by_digest[token.digest]
        return False

    def release(self, token_id: str) -> None:
        """Forget a redeemed token, for its stream has ended.

        One that is not running changes nothing, so that every end may call it.
        """
        token = self._running.pop(token_id, None)
        if token is not None:
            self._remember(token, RefusalReason.USED)

    def _find(self, digest: bytes) -> _Token:
        """Return the unused token with this digest.

        Raises:
            TokenRefused: There is none.
        """
        token = self._by_digest.get(digest)
        if token is None:
            raise TokenRefused(self._ended.get(digest, RefusalReason.UNKNOWN))
        if token.id in self._running:
            raise TokenRefused(RefusalReason.USED)
        return token

    def _check_room(self, now: float, key_name: str | None) -> None:
        of_key = self._of_key.get(key_name, {})
        # The key first: when one of its tokens expires, there is room in the whole table too.
        if len(of_key) >= self._policy.max_per_key:
            whose = "made without an API key " if key_name is None else "of this API key "
            raise _too_many(whose, len(of_key), min(of_key.values()) - now)
        if self.outstanding >= self._policy.max_outstanding:
            raise _too_many("", self.outstanding, self._due[0][0] - now)

    def _drop_due(self, now: float) -> None:
        """Expire what is due at `now`; then the head of the heap, if any, is an unused token's."""
        while self._due:
            expires_at, token_id = self._due[0]
            token = self._unused.get(token_id)
            if token is None:
                heapq.heappop(self._due)
            elif expires_at <= now:
                self._drop(token, RefusalReason.EXPIRED)
            else:
                return

    def _void_others(self, generation: int) -> None:
        """Drop the unused tokens of another generation: once for each launch of the engine."""
        if generation != self._generation:
            self._generation = generation
            for token in list(self._unused.values()):
                self._drop(token, RefusalReason.ENGINE_RESTARTED)

    def _drop(self, token: _Token, reason: RefusalReason) -> None:
        self._take_out(token)
        self._remember(token, reason)

    def _take_out(self, token: _Token) -> None:
        """Take a token out of the unused ones; its entry in the heap becomes stale."""
        del self._unused[token.id]
        of_key = self._of_key[token.grant.key_name]
        del of_key[token.id]
        if not of_key:
            del self._of_key[token.grant.key_name]
        # Rebuilt in linear time, but only after as many have left: constant for each that leaves.
        if len(self._due) > 2 * self.outstanding + _TOLERATED_STALE:
            self._due = [(token.expires_at, token.id) for token in self._unused.values()]
            heapq.heapify(self._due)

    def _remember(self, token: _Token, reason: RefusalReason) -> None:
        """Replace a token by why it is refused from now on."""
        del self._by_digest[token.digest]
        self._ended[token.digest] = reason
        if len(self._ended) > self._policy.max_outstanding:
            self._ended.popitem(last=False)


def _digest(secret: str) -> bytes:
    # Clients present what they like; a lone surrogate must be no error but an unknown token.
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


def _too_many(whose: str, count: int, expires_in_s: float) -> TooManyTokens:
    return TooManyTokens(
        f"{count} stream tokens {whose}wait to be used, and there may not be more. Use them, or"
        " wait until one expires.",
        # What is due was dropped before, so this is over 0.
        retry_after_s=math.ceil(expires_in_s),
    )
