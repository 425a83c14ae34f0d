"""How the relay treats every request, as the operator has it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How the relay treats every request; times in seconds, 0 for none.

    Attributes:
        queue_timeout_s: How long a request may wait for a permit or a restart.
        request_timeout_s: How long the whole exchange may take.
        forward_conversation_id: Pass `X-Conversation-Id` on, and end the conversation ourselves.
        allow_remote_media: Let llama-server fetch the URLs that a body names.
        via: Add `Via` (RFC 9110 section 7.6.3).
        forwarded: Add `Forwarded` (RFC 7239).
        show_content: Keep of each request what the status page shows of its prompt.
        own_cors: Whether CORS is ours and not llama-server's.
    """

    queue_timeout_s: float = 120.0
    request_timeout_s: float = 0.0
    forward_conversation_id: bool = False
    allow_remote_media: bool = False
    via: bool = False
    forwarded: bool = False
    show_content: bool = False
    own_cors: bool = True
