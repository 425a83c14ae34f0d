"""All cases there are."""

from __future__ import annotations

from tests.conformance.cases import (
    bodies,
    cancels,
    health,
    idempotency,
    inputs,
    large,
    leaving,
    modes,
    streams,
    webhooks,
)

ALL = (
    *modes.CASES,
    *bodies.CASES,
    *inputs.CASES,
    *idempotency.CASES,
    *streams.CASES,
    *leaving.CASES,
    *cancels.CASES,
    *webhooks.CASES,
    *health.CASES,
    *large.CASES,
)
