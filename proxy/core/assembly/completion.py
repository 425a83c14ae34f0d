"""llama-server's own completion and infill, put together from their events.

Owns the mapping of the events of `/completion` and `/infill` onto one object, or a list of them for
several prompts or choices.

Source: llama.cpp b11434, `server_task_result_cmpl_final::to_json_non_oaicompat` and
`server_task_result_cmpl_partial::to_json_non_oaicompat`.
"""

from __future__ import annotations

from collections.abc import Mapping

from proxy.core.assembly.generated import Asked, Generated
from proxy.core.assembly.seam import MAX_ANSWER_BYTES, Assembler, Json, Question, parse
from proxy.core.sse import Event


class CompletionAssembler(Assembler):
    """Puts a completion of llama-server's own form together.

    Args:
        fields: The client's body.
        max_answer_bytes: How much may be kept of the answer.
    """

    def __init__(
        self, fields: Mapping[str, object], max_answer_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        super().__init__(max_answer_bytes)
        self._asked = Asked.of(fields)
        self._results: dict[int, Generated] = {}

    def _take(self, event: Event) -> None:
        self._take_native(parse(event))

    def _take_native(self, found: Json) -> None:
        index = found["index"]
        if index not in self._results:
            self._results[index] = Generated(self._keep, self._asked)
        self._results[index].take(found)

    def questions(self) -> list[Question]:
        """Return what to ask llama-server before `finish`."""
        return [question for result in self._results.values() for question in result.questions()]

    def _is_complete(self) -> bool:
        results = self._results.values()
        return bool(results) and all(result.last is not None for result in results)

    def _answer(self) -> object:
        answers = [result.answer() for _, result in sorted(self._results.items())]
        return answers[0] if len(answers) == 1 else answers
