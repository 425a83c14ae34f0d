"""A text completion in OpenAI's form, put together from its chunks.

Owns the mapping of the chunks of `/v1/completions` onto one `text_completion`. They are asked for
with `verbose`, so that each has its token in llama-server's own form inside.

Source: llama.cpp b11434, `server_task_result_cmpl_final::to_json_oaicompat` and
`server_task_result_cmpl_partial::to_json_oaicompat`.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.core.assembly.completion import CompletionAssembler
from proxy.core.assembly.seam import MAX_ANSWER_BYTES, Json, parse
from proxy.core.sse import Event

_VERBOSE = "__verbose"


class CompletionsAssembler(CompletionAssembler):
    """Puts a text completion together.

    Args:
        fields: The client's body.
        max_answer_bytes: How much may be kept of the answer.
    """

    def __init__(
        self, fields: Mapping[str, object], max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        super().__init__(fields, max_answer_bytes)
        self._last: dict[int, Json] = {}
        self._done = False

    def _take(self, event: Event) -> None:
        if event.data == "[DONE]":
            self._done = True
            return
        chunk = parse(event)
        if "prompt_progress" in chunk:
            return
        choice = chunk["choices"][0]
        native = {**chunk.pop(_VERBOSE, {}), "index": choice["index"], "content": choice["text"]}
        native["stop"] = choice["finish_reason"] is not None
        if choice.get("logprobs"):
            native["completion_probabilities"] = choice["logprobs"]["content"]
        if native["stop"]:
            self._last[choice["index"]] = chunk
        self._take_native(native)

    def _is_complete(self) -> bool:
        return self._done and super()._is_complete()

    def _answer(self) -> object:
        first = min(self._last)
        answer = {**self._last[first], "choices": [self._choice(i) for i in sorted(self._last)]}
        if self._asked.verbose:
            timings = answer.pop("timings", None)
            answer[_VERBOSE] = self._results[first].answer()
            answer["timings"] = timings
        return answer

    def _choice(self, index: int) -> Json:
        result = self._results[index]
        probabilities = result.probabilities()
        return {
            **self._last[index]["choices"][0],
            "text": result.text(),
            "logprobs": None if probabilities is None else {"content": probabilities},
        }
