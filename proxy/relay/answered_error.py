"""What llama-server answers with an error status, where it cannot be passed on as it is.

Owns the reading of such an answer, which is short or cut.
"""

from __future__ import annotations

import json

from proxy.core.errors import RelayedError
from proxy.runtime.response_head import ResponseHead
from proxy.runtime.upstream import UpstreamConnection

# Enough for any error body of llama-server's (a context overflow is under 1 KiB).
_MAX_ERROR_BODY = 64 * 1024


async def read_answered_error(head: ResponseHead, upstream: UpstreamConnection) -> RelayedError:
    """Return llama-server's error as one of ours, with its status, type and message.

    Args:
        head: The head of its answer, whose status is an error's.
        upstream: The connection, whose body has not been read.

    Raises:
        UpstreamFailed: The connection broke in the body.
    """
    body = bytearray()
    while (data := await upstream.receive_data()) and len(body) < _MAX_ERROR_BODY:
        body += data
    return _as_relayed(head.status, bytes(body))


def _as_relayed(status: int, body: bytes) -> RelayedError:
    try:
        error = json.loads(body)["error"]
        return RelayedError(status, str(error["type"]), str(error["message"]))
    except (ValueError, KeyError, TypeError):
        return RelayedError(status, "upstream_error", f"llama-server answered {status}.")
