"""What one prompt's events of llama-server's own form add up to, in both of its completion routes.

Owns the text and the probabilities of one result, and the four things by which a stream tells less
of them than an answer in one piece:

* text that may be the beginning of a stop string is held back, and never sent when the limit of
  tokens comes before the rest of it. Its tokens are told, and llama-server turns them into text;
* half a character is never sent. An answer in one piece has a replacement character for it;
* the probabilities of as many tokens as the stop string has are left out of an answer in one piece,
  whatever tokens it was made of. llama-server counts them;
* tokens that were drafted have no probabilities. An answer in one piece has empty ones for them.

Source: llama.cpp b11434, `process_token`, `send_final_response` and
`server_task_result_cmpl_final::to_json_non_oaicompat`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from proxy.core.assembly.seam import Json, Question, Raw, encode, text_of

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_LOGARITHMS = ("logprob", "top_logprobs")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request for a completion asks for, as far as its answer's form goes.

    Attributes:
        model: The model that it names; llama-server's router has to be told.
        response_fields: Paths of the members it wants; empty for all.
        verbose: It wants llama-server's own form within OpenAI's.
        probabilities: It wants the tokens' probabilities.
        after_sampling: It wants them as they were after sampling.
    """

    model: str | None
    response_fields: Sequence[str]
    verbose: bool
    probabilities: bool
    after_sampling: bool

    @classmethod
    def of(cls, fields: Mapping[str, object]) -> Asked:
        """Read it from a body."""
        model, paths = fields.get("model"), fields.get("response_fields")
        if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
            # As in llama-server, all are ignored if one of them is no text.
            paths = []
        count = fields.get("n_probs")
        count = fields.get("logprobs") if count is None else count
        return cls(
            model=model if isinstance(model, str) else None,
            response_fields=paths,
            verbose=fields.get("verbose") is True,
            probabilities=isinstance(count, int | float) and count > 0,
            after_sampling=fields.get("post_sampling_probs") is True,
        )


class Generated:
    """One result in the making.

    Args:
        keep: Makes sure that there is room for what is kept (`Assembler`).
        asked: What the request asks for.
    """

    def __init__(self, keep: Callable[[bytes | str], bytes], asked: Asked) -> None:
        self._keep = keep
        self._asked = asked
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
        self._text += self._keep(found["content"])
        if found["stop"]:
            self.last = found
        else:
            self._take_token(found)

    def _take_token(self, found: Json) -> None:
        if self._asked.probabilities:
            told = found.get("completion_probabilities") or [self._drafted(found)]
            self._probabilities += [self._keep(encode(probability)) for probability in told]
        self._tokens_told = found.get("tokens_predicted", 0)
        if found["content"]:
            self._unsent_tokens.clear()
        else:
            self._unsent_tokens += found.get("tokens", ())

    def _drafted(self, found: Json) -> Json:
        value, top = ("prob", "top_probs") if self._asked.after_sampling else _LOGARITHMS
        return {
            "id": next(iter(found.get("tokens", ())), None),
            "token": found["content"],
            "bytes": list(found["content"].encode()),
            value: 1.0 if self._asked.after_sampling else 0.0,
            top: [],
        }

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
        named = {} if self._asked.model is None else {"model": self._asked.model}
        return Question(path, {**fields, **named}, learn)

    def _learn_text(self, answer: Json) -> None:
        text = answer.get("content", "")
        # A token that is never shown, such as the end of a turn, has text there too.
        if any(_ends_with_beginning(text, stop) for stop in self._stops()):
            self._unsent_text = text

    def _learn_count(self, answer: Json) -> None:
        self._tokens_in_stop_word = len(answer.get("tokens", ()))

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

    def answer(self) -> Json:
        """Return the result in llama-server's own form."""
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
        paths = self._asked.response_fields
        return choose(answer, paths) if paths else answer


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
