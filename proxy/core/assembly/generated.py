"""What one prompt's events of llama-server's own form add up to, in both of its completion routes.

Owns the text and the probabilities of one result, and the three things by which a stream tells less
of them than an answer in one piece:

* text that may be the beginning of a stop string is held back, and never sent when the limit of
  tokens comes before the rest of it. Its tokens are told, and llama-server turns them into text;
* half a character is never sent. An answer in one piece has a replacement character for it;
* the probabilities of as many tokens as the stop string has are left out of an answer in one piece,
  whatever tokens it was made of. llama-server counts them.

Source: llama.cpp b11434, `process_token`, `send_final_response` and
`server_task_result_cmpl_final::to_json_non_oaicompat`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from proxy.core.assembly.seam import Json, Question, Raw, encode, text_of

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class Generated:
    """One result in the making.

    Args:
        keep: Makes sure that there is room for what is kept (`Assembler`).
        model: The model that the request names; llama-server's router asks for it.
    """

    def __init__(self, keep: Callable[[bytes | str], bytes], model: str | None) -> None:
        self._keep = keep
        self._model = model
        self._text = bytearray()
        self._probabilities: list[bytes] = []
        self._unsent_tokens: list[int] = []
        self._unsent_text = ""
        self._tokens_told = 0
        self._tokens_in_stop_word = 0
        self.last: Json | None = None

    def take(self, found: Json) -> None:
        """Take one event's object in llama-server's own form."""
        if "prompt_progress" in found:
            return
        if found["stop"]:
            self.last = found
        else:
            self._take_tokens(found)
        self._text += self._keep(found["content"])
        for probability in found.get("completion_probabilities", ()):
            self._probabilities.append(self._keep(encode(probability)))

    def _take_tokens(self, found: Json) -> None:
        self._tokens_told = found.get("tokens_predicted", 0)
        if found["content"]:
            self._unsent_tokens.clear()
        else:
            self._unsent_tokens += found.get("tokens", ())

    def questions(self) -> list[Question]:
        """Return what to ask llama-server when the last event has come."""
        last = self.last or {}
        asked = []
        if self._unsent_tokens and last.get("stop_type") == "limit" and self._stops():
            asked.append(
                self._question("/detokenize", self._learn_text, tokens=self._unsent_tokens)
            )
        if self._probabilities and last.get("stop_type") == "word":
            word = last.get("stopping_word", "")
            asked.append(
                self._question(
                    "/tokenize",
                    self._learn_count,
                    content=word,
                    add_special=False,
                    parse_special=False,
                )
            )
        return asked

    def _question(self, path: str, learn: Callable[[Json], None], **fields: object) -> Question:
        named = {} if self._model is None else {"model": self._model}
        return Question(path, {**fields, **named}, learn)

    def _learn_text(self, answer: Json) -> None:
        text = answer["content"]
        # A token that is never shown, such as the end of a turn, has text there too.
        if any(_ends_with_beginning(text, stop) for stop in self._stops()):
            self._unsent_text = text

    def _learn_count(self, answer: Json) -> None:
        self._tokens_in_stop_word = len(answer["tokens"])

    def _stops(self) -> Sequence[str]:
        found: Sequence[str] = (self.last or {}).get("generation_settings", {}).get("stop", ())
        return found

    def text(self) -> str:
        """Return the whole text."""
        last = self.last or {}
        is_cut = last.get("tokens_predicted", 0) > self._tokens_told
        return text_of(self._text) + self._unsent_text + (_REPLACEMENT if is_cut else "")

    def probabilities(self) -> Raw | None:
        """Return the list of the tokens' probabilities; None if they were not asked for."""
        if not self._probabilities:
            return None
        told = len(self._probabilities) - self._tokens_in_stop_word
        return Raw(b"[%b]" % b",".join(self._probabilities[: max(0, told)]))

    def answer(self, response_fields: Sequence[str]) -> Json:
        """Return the result in llama-server's own form.

        Args:
            response_fields: The members to choose, as paths; empty for all.
        """
        last = self.last or {}
        settings = last.get("generation_settings", {})
        answer = {
            **last,
            "content": self.text(),
            # The second depends on the first in one of the forms of reasoning.
            "generation_settings": {**settings, "stream": False, "reasoning_in_content": False},
        }
        probabilities = self.probabilities()
        if probabilities is not None:
            answer["completion_probabilities"] = probabilities
        return choose(answer, response_fields) if response_fields else answer


def choose(found: Json, paths: Sequence[str]) -> Json:
    """Return the members of `found` at `paths`, each by its path; those it has not are left out.

    Source: llama.cpp `json_get_nested_values`.
    """
    chosen: Json = {}
    for path in paths:
        current: object = found
        for name in path.split("/"):
            if not isinstance(current, dict) or name not in current:
                break
            current = current[name]
        else:
            chosen[path] = current
    return chosen


def _ends_with_beginning(text: str, stop: str) -> bool:
    return any(text.endswith(stop[:length]) for length in range(1, len(stop)))
