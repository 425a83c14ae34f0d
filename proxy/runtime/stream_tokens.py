"""Stream tokens at work: secrets made, tokens redeemed into leases, leases ended.

Owns the clock and the randomness that `core.stream_tokens` is given, and the leases under way. A
lease's end is carried out by the exchange that took it (`runtime.exchange`). Secrets pass through
here and are not kept; what was refused is logged by its reason, never by what was presented.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import trio

from proxy.core.causes import EndCause
from proxy.core.errors import TokenRefused
from proxy.core.stream_tokens import Grant, StreamTokenTable, TokenPolicy, read_grant
from proxy.runtime.engine import EngineView

logger = logging.getLogger("proxy.stream_tokens")

_SECRET_BYTES = 32
_ID_BYTES = 12


@dataclass(frozen=True, slots=True)
class StreamToken:
    """A stream token as it is given to who asked for it: the only time its secret is told.

    Attributes:
        id: Its public name, to revoke it by.
        token: The secret that opens one stream.
        expires_at: Trio time in seconds until which it can be redeemed.
        ttl_s: The same as a duration from its issue.
        lease_s: How long the stream may live; 0 for no bound.
    """

    id: str
    token: str = field(repr=False)
    expires_at: float
    ttl_s: float
    lease_s: float


class Lease:
    """What a redeemed token gives an exchange.

    Args:
        token_id: The token's public name.
        ends_at: Trio time at which the stream has to end; None for no bound.
        max_tokens: How many tokens the answer may have; None for no bound.
        key_name: The name of the key that the token was issued to.
        give_back: Called once when the stream has ended.

    Attributes:
        token_id: See above, as the others.
    """

    def __init__(
        self,
        token_id: str,
        *,
        ends_at: float | None,
        max_tokens: int | None,
        key_name: str | None,
        give_back: Callable[[], None],
    ) -> None:
        self.token_id = token_id
        self.ends_at = ends_at
        self.max_tokens = max_tokens
        self.key_name = key_name
        self._give_back = give_back
        self._end: Callable[[EndCause], None] = lambda _: None

    def bind(self, end: Callable[[EndCause], None]) -> None:
        """Say what ends the stream that it opened."""
        self._end = end

    def end(self, cause: EndCause) -> None:
        """End the stream that it opened."""
        self._end(cause)

    def release(self) -> None:
        """Say that the stream has ended."""
        self._give_back()


class StreamTokens:
    """The stream tokens of one proxy.

    Args:
        engine: Whose launches tokens are bound to.
        policy: The operator's bounds.
    """

    def __init__(self, engine: EngineView, policy: TokenPolicy) -> None:
        self._engine = engine
        self.policy = policy
        self._table = StreamTokenTable(policy)
        self._leases: dict[str, Lease] = {}

    @property
    def outstanding(self) -> int:
        """How many wait to be used."""
        return self._table.outstanding

    @property
    def running(self) -> int:
        """How many have a stream under way."""
        return self._table.running

    def issue(
        self,
        *,
        key_name: str | None = None,
        ttl_s: float | None = None,
        lease_s: float | None = None,
        paths: frozenset[str] | None = None,
        origin: str | None = None,
        max_tokens: int | None = None,
    ) -> StreamToken:
        """Make a token that opens one stream.

        Args:
            key_name: The name of the key for which it is made, if any.
            ttl_s: Seconds within which it has to be used; None for the policy's.
            lease_s: Seconds that its stream may live, 0 for no bound; None for the policy's.
            paths: Paths that it may be used on; None for any.
            origin: The origin of the page that may use it, exactly; None for any.
            max_tokens: How many tokens the answer may have at most; None for any number.

        Raises:
            TooManyTokens: As many as there may be wait to be used.
        """
        return self._issue(
            Grant(
                key_name,
                self._engine.generation,
                ttl_s=self.policy.ttl_s if ttl_s is None else ttl_s,
                lease_s=self.policy.lease_s if lease_s is None else lease_s,
                origin=origin,
                paths=paths,
                max_tokens=max_tokens,
            )
        )

    def issue_as_asked(
        self, fields: Mapping[str, object], *, key_name: str | None, paths: frozenset[str]
    ) -> StreamToken:
        """Make a token as a client asks for it.

        Args:
            fields: The body of `POST /v1/stream-tokens`.
            key_name: The name of the client's key, if any.
            paths: Those that a token may be for.

        Raises:
            InvalidRequest: Something in `fields` is not to be had.
            TooManyTokens: As many as there may be wait to be used.
        """
        return self._issue(
            read_grant(
                fields,
                self.policy,
                key_name=key_name,
                generation=self._engine.generation,
                known_paths=paths,
            )
        )

    def _issue(self, grant: Grant) -> StreamToken:
        secret = secrets.token_urlsafe(_SECRET_BYTES)
        token_id = secrets.token_hex(_ID_BYTES)
        issued = self._table.issue(trio.current_time(), secret, token_id, grant)
        return StreamToken(issued.id, secret, issued.expires_at, grant.ttl_s, issued.lease_s)

    def redeem(self, secret: str, *, origin: str | None, path: str, request_id: str) -> Lease:
        """Use a token: whoever comes second is refused.

        Args:
            secret: What the client presents.
            origin: The request's `Origin`, if any.
            path: The request's path.
            request_id: For the log.

        Raises:
            TokenRefused: It opens no stream; why is in the log alone.
        """
        try:
            found = self._table.redeem(
                trio.current_time(),
                secret,
                origin=origin,
                path=path,
                generation=self._engine.generation,
            )
        except TokenRefused as refused:
            logger.info(
                "a stream token was refused: %s",
                refused.reason.value,
                extra={"request_id": request_id, "reason": refused.reason.value},
            )
            raise
        lease = Lease(
            found.id,
            ends_at=found.lease_ends_at,
            max_tokens=found.max_tokens,
            key_name=found.key_name,
            give_back=lambda: self._forget(found.id),
        )
        self._leases[found.id] = lease
        return lease

    def revoke(self, token_id: str, *, key_name: str | None = None, admin: bool = True) -> None:
        """Make a token useless, and end the stream that it opened, if it has opened one.

        Args:
            token_id: Its public name.
            key_name: The name of the key that asks.
            admin: Whether it may revoke those of other keys.

        Raises:
            NotFound: There is none, or none that this key may revoke.
        """
        if self._table.revoke(trio.current_time(), token_id, key_name=key_name, admin=admin):
            self._leases[token_id].end(EndCause.TOKEN_REVOKED)

    def _forget(self, token_id: str) -> None:
        self._table.release(token_id)
        self._leases.pop(token_id, None)
