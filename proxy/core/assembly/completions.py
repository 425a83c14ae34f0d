"""A text completion in OpenAI's form, put together from its chunks.

Owns the mapping of the chunks of `/v1/completions` onto one `text_completion`. They are asked for
with `verbose`, so that each has its token in llama-server's own form inside.

Source: llama.cpp b11434, `server_task_result_cmpl_final::to_json_oaicompat` and
`server_task_result_cmpl_partial::to_json_oaicompat`.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.core.assembly.completion import CompletionAssembler
from proxy.core.assembly.generated import Generated
from proxy.core.assembly.seam import Json, parse
from proxy.core.sse import Event

_VERBOSE = "__verbose"


class CompletionsAssembler(CompletionAssembler):
    """Puts a text completion together.

    Args:
        model: The model that the request names.
        response_fields: What the client wants of the verbose form; empty for all.
        verbose: The client asked for the verbose form.
    """

    def __init__(
        self,
        model: str | None = None,
        response_fields: Sequence[str] = (),
        *,
        verbose: bool = False,
    ) -> None:
        super().__init__(model, response_fields)
        self._verbose = verbose
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
        if self._verbose:
            timings = answer.pop("timings", None)
            answer[_VERBOSE] = self._results[first].answer(self._response_fields)
            answer["timings"] = timings
        return answer

    def _choice(self, index: int) -> Json:
        result: Generated = self._results[index]
        probabilities = result.probabilities()
        return {
            **self._last[index]["choices"][0],
            "text": result.text(),
            "logprobs": None if probabilities is None else {"content": probabilities},
        }
