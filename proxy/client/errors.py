"""What can become of a stream: the errors that the client raises.

Owns their tree, apart from `core.errors`: those are what we tell others, with a status each class
knows; these are what we were told, or found out, of somebody else's. A message is written for the
person who reads the traceback; the error of httpx that was behind it is its cause.
"""

from __future__ import annotations

from proxy.core.errors import ProxyError


class StreamFailed(ProxyError):
    """The stream that was asked for did not begin, or did not come to its end mark.

    Args:
        message: One or two sentences for a person.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StreamUnanswered(StreamFailed):
    """Nobody answered: the server could not be reached, or left before its answer began."""


class StreamRefused(StreamFailed):
    """The server answered an error, or something else that is no stream. Nothing was generated.

    Args:
        message: What the server said, or a sentence where it said nothing.
        status: The status of its answer.
        type: The type of the error, such as `rate_limit_error`.
        request_id: What the server's log calls the request; None where it did not tell.
        retry_after_s: After how many seconds it may be asked again; None where it did not tell.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str,  # noqa: A002  # what the interface calls it
        request_id: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.request_id = request_id
        self.retry_after_s = retry_after_s


class StreamAborted(StreamFailed):
    """The stream had begun, and its last event is an error: the server says why it ended early.

    Args:
        message: What the server said.
        status: The status that the error would have had before the stream began; None where the
            server named none.
        type: The type of the error, such as `upstream_error`.
        request_id: What the server's log calls the request; None where it did not tell.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None,
        type: str,  # noqa: A002  # what the interface calls it
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.request_id = request_id


class StreamBroken(StreamFailed):
    """The stream had begun and broke: the connection was lost, or what came cannot be read."""
