"""What one request may cost before anybody has looked at who sends it.

Owns the limits on a head and a body, and the reason for each. Must never know how they are read.

Source: RFC 9112 section 2.3 and section 7.1.1; RFC 9110 section 17.5.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.errors import BodyTooLarge

# llama-server and others count in signed 64-bit integers; a longer body cannot be told to them.
_LONGEST_BODY = 2**63 - 1

LENGTH_DIGITS = len(str(_LONGEST_BODY))
"""Digits, without leading zeros, in which a length that can be accepted at all is written."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one listener.

    Args:
        max_head: Bytes of the head, its final empty line included. 32 KiB, as in nginx.
        max_headers: Field lines in the head; llama-server's own limit.
        max_target: Bytes of the request target; llama-server's own limit.
        max_body: Bytes of payload, without chunk framing. None: what a length can say.
        max_chunk_line: Bytes of a chunk's size line, CRLF included: 16 digits, and room for an
            extension that carries a signature or a checksum.
        max_chunk_extensions: Bytes of all extensions of one body. Nothing here reads them, and
            RFC 9112 section 7.1.1 asks for a bound on their sum.
        max_trailers: Bytes of the trailer section: a checksum or two, which nothing here reads.
    """

    max_head: int = 32 * 1024
    max_headers: int = 100
    max_target: int = 8192
    max_body: int | None = None
    max_chunk_line: int = 512
    max_chunk_extensions: int = 8 * 1024
    max_trailers: int = 4 * 1024

    def check_body(self, length: int) -> None:
        """Refuse a body as soon as its length, or what it has come to so far, is known.

        Args:
            length: Bytes of payload, announced or counted.

        Raises:
            BodyTooLarge: It is over `max_body`, or over what a signed 64-bit length can say.
        """
        if length > _LONGEST_BODY or (self.max_body is not None and length > self.max_body):
            raise BodyTooLarge("The request body is larger than this server accepts; send less.")
