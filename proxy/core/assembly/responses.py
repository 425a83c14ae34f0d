"""A response of OpenAI's Responses API, taken from the last event of its stream.

Owns the mapping of `response.completed`, which has the whole answer, onto the object that
llama-server answers in one piece. The two differ in a few members and in their order.

Source: llama.cpp b11434, `server_task_result_cmpl_final::to_json_oaicompat_resp` and
`..._resp_stream`.
"""

from __future__ import annotations

from proxy.core.assembly.seam import MAX_ANSWER_BYTES, Assembler, Json, parse
from proxy.core.sse import Event

_MESSAGE = ("content", "id", "role", "status", "type")


class ResponsesAssembler(Assembler):
    """Puts a response together.

    Args:
        max_answer_bytes: How much may be kept of the answer.
    """

    def __init__(self, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__(max_answer_bytes)
        self._response: Json | None = None

    def _take(self, event: Event) -> None:
        # An error has no name here; everything else has, and is told again in the last.
        if event.event in {"response.completed", "message", "error"}:
            found = parse(event)
            self._keep(event.data)
            self._response = found["response"]

    def _is_complete(self) -> bool:
        return self._response is not None

    def _answer(self) -> object:
        found = self._response or {}
        return {
            "completed_at": found["created_at"],
            "created_at": found["created_at"],
            "id": found["id"],
            "model": found["model"],
            "object": found["object"],
            "output": [_item(item) for item in found["output"]],
            "status": found["status"],
            "usage": found["usage"],
        }


def _item(found: Json) -> Json:
    if found["type"] == "reasoning":
        return {**found, "status": "completed"}
    if found["type"] == "message":
        return {name: found[name] for name in _MESSAGE}
    return found
