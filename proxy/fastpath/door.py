"""What the fast listener answers: generation, and nothing else, for a stream token or a key.

Owns the routes of the fast listener and the redeeming of stream tokens: after the request was found
in order, so that a broken one does not burn its token, and before anything is asked of
llama-server. Who may ask at all is the front door's; how a request is carried is the relay's.
"""

from __future__ import annotations

from functools import partial

from proxy.core.errors import NotFound
from proxy.core.fast_reach import STREAM_PATH
from proxy.core.keyring import STREAM_TOKEN_FIELD
from proxy.core.pages import HeadFields, is_preflight
from proxy.core.routes import GENERATING_PATHS
from proxy.http1.asgi import Message, Receive, Send
from proxy.relay.relay import Relay
from proxy.relay.relayed_request import RelayedRequest
from proxy.runtime.stream_tokens import Lease, StreamTokens

PATHS = frozenset({STREAM_PATH, *GENERATING_PATHS})
"""The paths that a stream token may be for."""

_CARRIED_AS = {STREAM_PATH: "/v1/chat/completions"}
_NOT_HERE = (
    f"The fast path answers POST {STREAM_PATH} and the routes that generate text; everything else"
    " is on the main port."
)


class FastDoor:
    """The fast listener's application, behind its front door.

    Args:
        relay: Carries what is asked.
        tokens: Redeems what is presented.
    """

    def __init__(self, relay: Relay, tokens: StreamTokens) -> None:
        self._relay = relay
        self._tokens = tokens

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Carry one request.

        Raises:
            NotFound: Before anything is read, when the fast path does not have it.
        """
        path, is_post = scope["path"], scope["method"] == "POST"
        if path not in PATHS or not (is_post or _is_preflight(scope)):
            raise NotFound(_NOT_HERE)
        carried_as = _CARRIED_AS.get(path)
        if carried_as is not None:
            scope = {**scope, "path": carried_as, "raw_path": carried_as.encode()}
        request = RelayedRequest.of(scope)
        request.fast_path = True
        token = request.header(STREAM_TOKEN_FIELD) if is_post else None
        authorize = None if token is None else partial(self._redeem, token, path)
        await self._relay.carry(request, scope, receive, send, authorize)

    def _redeem(self, token: bytes, path: str, request: RelayedRequest) -> Lease:
        origin = request.header(b"origin")
        lease = self._tokens.redeem(
            token.decode("latin1"),
            origin=None if origin is None else origin.decode("latin1"),
            path=path,
            request_id=request.request_id,
        )
        request.principal = lease.key_name
        return lease


def _is_preflight(scope: Message) -> bool:
    """Tell whether it is one that the front door leaves to llama-server, with CORS as a whole."""
    method: str = scope["method"]
    return method == "OPTIONS" and is_preflight(method, HeadFields(scope["headers"]))
