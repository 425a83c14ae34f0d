"""Errors of our own nurseries, as their callers expect them: one error and not a group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from proxy.core.errors import EngineError


@contextmanager
def one_error() -> Iterator[None]:
    """Let an error leave our nursery as itself: that there is a nursery is no caller's business.

    Several that are the caller's to sort out leave as a group, as Trio has it.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        alone = _alone(group)
        if alone is None:
            raise
        context = alone.__context__
        try:
            raise alone
        finally:
            alone.__context__ = context


def _alone(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the only error in `group`; an engine's, raised by each who waits for it, is one."""
    if len(group.exceptions) == 1:
        return group.exceptions[0]
    engine_errors, rest = group.split(EngineError)
    if engine_errors is None or rest is not None:
        return None
    found: BaseException = engine_errors
    while isinstance(found, BaseExceptionGroup):
        found = found.exceptions[0]
    return found
