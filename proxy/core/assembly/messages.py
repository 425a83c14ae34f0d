"""A message of Anthropic's Messages API, put together from its events.

Owns the mapping of `message_start` to `message_stop` onto one message. The indices of
llama-server's content blocks move when a block of another kind turns up late, and a block is begun
again when more of it is found at the end: so blocks are told apart by kind, and tool calls by their
id.

Source: llama.cpp b11434, `server_task_result_cmpl_final::to_json_anthropic` and
`..._anthropic_stream`, `server_task_result_cmpl_partial::to_json_anthropic`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from proxy.core.assembly.seam import (
    MAX_ANSWER_BYTES,
    AnsweredError,
    Assembler,
    Json,
    Question,
    Raw,
    parse,
    text_of,
)
from proxy.core.sse import Event


@dataclass(slots=True)
class _ToolUse:
    id: str
    name: str
    input: bytearray = field(default_factory=bytearray)


class MessagesAssembler(Assembler):
    """Puts a message together.

    Args:
        fields: The client's body.
        request_id: Names a message whose own name was not told.
        max_answer_bytes: How much may be kept of the answer.
    """

    def __init__(
        self,
        fields: Mapping[str, object],
        request_id: str = "",
        max_answer_bytes: int = MAX_ANSWER_BYTES,
    ) -> None:
        super().__init__(max_answer_bytes)
        self._fields = fields
        self._request_id = request_id
        self._message: Json = {}
        self._thinking = bytearray()
        self._text = bytearray()
        self._tools: dict[str, _ToolUse] = {}
        self._tool_at: dict[int, _ToolUse] = {}
        self._input_tokens = 0
        self._model = fields.get("model", "")
        self._last: Json | None = None
        self._done = False

    def _take(self, event: Event) -> None:
        found = parse(event)
        if event.event == "error":
            raise AnsweredError(found)
        kind = found["type"]
        if kind == "message_start":
            self._message = found["message"]
        elif kind == "content_block_start":
            self._begin_block(found)
        elif kind == "content_block_delta":
            self._take_delta(found)
        elif kind == "message_delta":
            self._last = found
        elif kind == "message_stop":
            self._done = True

    def _begin_block(self, found: Json) -> None:
        block = found["content_block"]
        if block["type"] == "tool_use":
            tool = self._tools.setdefault(block["id"], _ToolUse(block["id"], block["name"]))
            tool.name = block["name"]
            self._tool_at[found["index"]] = tool

    def _take_delta(self, found: Json) -> None:
        delta = found["delta"]
        if delta["type"] == "text_delta":
            self._text += self._keep(delta["text"])
        elif delta["type"] == "thinking_delta":
            self._thinking += self._keep(delta["thinking"])
        elif delta["type"] == "input_json_delta":
            tool = self._tool_at.get(found["index"]) or next(reversed(self._tools.values()))
            tool.input += self._keep(delta["partial_json"])

    def questions(self) -> list[Question]:
        """Return what to ask llama-server before `finish`.

        A message whose first token is half a character, as that of many an emoji, has no
        `message_start`: nothing tells its model then, nor how many tokens were read. How many of
        them were cached nobody tells.
        """
        if self._message:
            return []
        return [
            Question("/v1/messages/count_tokens", {**self._fields}, self._learn_count),
            Question("/v1/models", None, self._learn_model),
        ]

    def _learn_count(self, answer: Json) -> None:
        self._input_tokens = answer.get("input_tokens", 0)

    def _learn_model(self, answer: Json) -> None:
        names = [model["id"] for model in answer.get("data", ())]
        # A router has several, and knows the one asked for by the name it was asked by.
        if len(names) == 1:
            self._model = names[0]

    def _is_complete(self) -> bool:
        return self._done and self._last is not None

    def _answer(self) -> object:
        last = self._last or {}
        usage = self._message.get("usage") or {
            "cache_read_input_tokens": 0,
            "input_tokens": self._input_tokens,
        }
        return {
            "id": self._message.get("id", f"chatcmpl-{self._request_id}"),
            "type": "message",
            "role": "assistant",
            "content": self._content(),
            "model": self._message.get("model", self._model),
            **last["delta"],
            "usage": {**usage, **last["usage"]},
        }

    def _content(self) -> list[Json]:
        blocks: list[Json] = []
        if self._thinking:
            thinking = text_of(self._thinking)
            blocks.append({"type": "thinking", "thinking": thinking, "signature": ""})
        if self._text:
            blocks.append({"type": "text", "text": text_of(self._text)})
        return blocks + [_tool_use(tool) for tool in self._tools.values()]


def _tool_use(tool: _ToolUse) -> Json:
    try:
        # Written and kept as text: it may be nested deeper than our own writer goes.
        found = json.dumps(
            json.loads(text_of(tool.input)),
            ensure_ascii=False,
            allow_nan=False,
            separators=(",", ":"),
        )
    except (ValueError, RecursionError):
        # So llama-server has it for a call that was cut off.
        found = "{}"
    arguments = Raw(found.encode("utf-8", "replace"))
    return {"type": "tool_use", "id": tool.id, "name": tool.name, "input": arguments}
