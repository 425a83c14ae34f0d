"""The words for how far an exchange has come and why it ended.

Owns the two closed vocabularies `Phase` and `EndCause`; log lines, metrics, `/proxy/exchanges` and
error replies use exactly these strings. Knows nothing of how an end is carried out
(`runtime.exchange`).
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """How far an exchange has come. It only ever moves forward, in this order."""

    QUEUED = "queued"
    CONNECTING = "connecting"
    PREFILL = "prefill"
    DECODE = "decode"
    ENDED = "ended"


class EndCause(StrEnum):
    """Why an exchange ended. The first cause that is named stays; later ones are ignored."""

    FINISHED = "finished"
    CLIENT_DISCONNECTED = "client_disconnected"
    CLIENT_TOO_SLOW = "client_too_slow"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_CRASHED = "upstream_crashed"
    TOKEN_EXPIRED = "token_expired"
    TOKEN_REVOKED = "token_revoked"
    SUPERSEDED = "superseded"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    QUEUE_TIMEOUT = "queue_timeout"
    CANCELLED_BY_ADMIN = "cancelled_by_admin"
    CANCELLED_BY_CLIENT = "cancelled_by_client"
    SHUTTING_DOWN = "shutting_down"
    INTERNAL_ERROR = "internal_error"
