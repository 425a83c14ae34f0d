"""How far llama-server is with a prompt, found in the bytes of its stream.

Owns the member `prompt_progress`, which llama-server adds in each dialect for a request with
`return_progress`.

Source: llama.cpp `tools/server/README.md`, "return_progress".
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.core.status.members import count_in, objects_from_end


@dataclass(frozen=True, slots=True)
class Progress:
    """Tokens of a prompt.

    Attributes:
        total: All of them.
        processed: Those that are done, the cached ones among them.
        cached: Those that were there from before.
    """

    total: int
    processed: int
    cached: int

    def as_object(self) -> dict[str, object]:
        """Return it for JSON."""
        return {"total": self.total, "processed": self.processed, "cached": self.cached}


def find_progress(data: bytes) -> Progress | None:
    """Return the last progress that `data` tells; None where it tells none.

    Args:
        data: A part of a stream, cut anywhere.
    """
    for found in objects_from_end(data, "prompt_progress"):
        total, processed = count_in(found, "total"), count_in(found, "processed")
        if total is not None and processed is not None:
            return Progress(total, processed, count_in(found, "cache") or 0)
    return None
