"""A chat completion, put together from its chunks.

Owns the mapping of `chat.completion.chunk` events onto one `chat.completion` object. Its chunks
carry what was parsed out of the model's text, not the text.

Source: llama.cpp b11434, `server_task_result_cmpl_final::to_json_oaicompat_chat` and
`..._chat_stream`, `common_chat_msg::to_json_oaicompat`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from proxy.core.assembly.seam import MAX_ANSWER_BYTES, Assembler, Json, parse, text_of
from proxy.core.sse import Event


@dataclass(slots=True)
class _ToolCall:
    id: str = ""
    name: str = ""
    arguments: bytearray = field(default_factory=bytearray)


@dataclass(slots=True)
class _Choice:
    role: str = "assistant"
    content: bytearray = field(default_factory=bytearray)
    reasoning: bytearray = field(default_factory=bytearray)
    tool_calls: dict[int, _ToolCall] = field(default_factory=dict)
    last: Json | None = None
    finish_reason: str | None = None


class ChatAssembler(Assembler):
    """Puts a chat completion together.

    Args:
        max_answer_bytes: How much may be kept of the answer.
    """

    def __init__(self, max_answer_bytes: int = MAX_ANSWER_BYTES) -> None:
        super().__init__(max_answer_bytes)
        self._choices: dict[int, _Choice] = {}
        self._ended_choice: _Choice | None = None
        self._done = False

    def _take(self, event: Event) -> None:
        if event.data == "[DONE]":
            self._done = True
            return
        chunk = parse(event)
        choices = chunk.get("choices")
        if choices:
            self._take_choice(chunk, choices[0])
        elif self._ended_choice is not None:
            # The usage, which names no choice: it follows the last chunk of its own.
            self._ended_choice.last = chunk

    def _take_choice(self, chunk: Json, found: Json) -> None:
        choice = self._choices.setdefault(found["index"], _Choice())
        self._take_delta(choice, found["delta"])
        if found.get("finish_reason") is not None:
            choice.finish_reason = found["finish_reason"]
            choice.last = chunk
            self._ended_choice = choice

    def _take_delta(self, choice: _Choice, delta: Json) -> None:
        choice.role = delta.get("role") or choice.role
        choice.content += self._keep(delta.get("content") or "")
        choice.reasoning += self._keep(delta.get("reasoning_content") or "")
        for call in delta.get("tool_calls", ()):
            self._take_tool_call(choice, call)

    def _take_tool_call(self, choice: _Choice, found: Json) -> None:
        call = choice.tool_calls.setdefault(found["index"], _ToolCall())
        function = found.get("function", {})
        # Told again when more of it has become known, and then told whole.
        call.id = found.get("id") or call.id
        call.name = function.get("name") or call.name
        call.arguments += self._keep(function.get("arguments") or "")

    def _is_complete(self) -> bool:
        return (
            self._done
            and bool(self._choices)
            and all(choice.last is not None for choice in self._choices.values())
        )

    def _answer(self) -> object:
        ordered = sorted(self._choices.items())
        # As in the answer in one piece, all that is not a choice is told of the first.
        last = ordered[0][1].last or {}
        answer: Json = {
            "choices": [_choice(index, choice) for index, choice in ordered],
            "created": last.get("created"),
            "model": last.get("model"),
            "system_fingerprint": last.get("system_fingerprint"),
            "object": "chat.completion",
            "usage": last.get("usage"),
            "id": last.get("id"),
        }
        if "timings" in last:
            answer["timings"] = last["timings"]
        return answer


def _choice(index: int, choice: _Choice) -> Json:
    return {
        "finish_reason": choice.finish_reason,
        "index": index,
        "message": _message(choice),
    }


def _message(choice: _Choice) -> Json:
    message: Json = {"role": choice.role, "content": text_of(choice.content)}
    if choice.reasoning:
        message["reasoning_content"] = text_of(choice.reasoning)
    if choice.tool_calls:
        message["tool_calls"] = [_tool_call(call) for _, call in sorted(choice.tool_calls.items())]
    return message


def _tool_call(call: _ToolCall) -> Json:
    found: Json = {
        "type": "function",
        "function": {"name": call.name, "arguments": text_of(call.arguments)},
    }
    if call.id:
        found["id"] = call.id
    return found
