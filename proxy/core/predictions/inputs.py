"""The input of a prediction: its members, what may be wrong with them, and what they ask for.

Owns the one table of members, from which an input is checked and the OpenAPI document is made, and
the translation of an input into a request to llama-server. It must never read an answer.

A member that is not in the table goes to llama-server as it is, so that all of its parameters can
be used; Cog would strip it. What an output of text cannot carry is refused: a member that is
silently without effect is found out too late.

Source: coglet 0.23.1 for the words (those of the `jsonschema` crate); llama.cpp b11434,
`tools/server/README.md` and `server-schema.cpp` for the members.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from proxy.core.errors import InvalidRequest
from proxy.core.media import refuse_foreign_media
from proxy.core.predictions.json_types import is_type, out_of_bounds, wrong_type
from proxy.core.predictions.refusals import InvalidPrediction, Problem

CHAT_PATH = "/v1/chat/completions"
NATIVE_PATH = "/completion"

# What llama-server's own members can hold: `int32_t` and, for the seed, `uint32_t`.
_MAX_INT = 2**31 - 1
_MAX_SEED = 2**32 - 1

# A body of a few megabytes can have a million wrong elements; nobody reads more than the first.
_MAX_PROBLEMS = 100

_WHERE = ("body", "input")


@dataclass(frozen=True, slots=True)
class Member:
    """One member of the input.

    Attributes:
        name: Its name, llama-server's.
        types: The JSON types that it may have, in the order of the alphabet.
        description: What it does, for a person.
        minimum: The least value of a number; None for no bound.
        maximum: The largest; None for no bound.
        items: The type of an array's elements.
    """

    name: str
    types: tuple[str, ...]
    description: str
    minimum: int | None = None
    maximum: int | None = None
    items: str | None = None


MEMBERS = (
    Member(
        "prompt",
        ("string",),
        "Text to continue, given to the model as it is. Either this or messages.",
    ),
    Member(
        "messages",
        ("array",),
        "A chat, as of /v1/chat/completions; the model's chat template is applied.",
        items="object",
    ),
    Member(
        "system_prompt",
        ("string",),
        "With a prompt: the two become a chat of a system's and a user's message.",
    ),
    Member(
        "max_tokens",
        ("integer",),
        "Tokens of the output at most; -1: until the model ends it or the context is full.",
        -1,
        _MAX_INT,
    ),
    Member("temperature", ("number",), "Randomness; 0 always takes the likeliest token.", 0),
    Member("top_p", ("number",), "Only the likeliest tokens that have this probability.", 0, 1),
    Member(
        "top_k", ("integer",), "Only so many of the likeliest tokens; 0 or -1: all.", -1, _MAX_INT
    ),
    Member("min_p", ("number",), "Only tokens that have this share of the likeliest's.", 0, 1),
    Member(
        "seed", ("integer",), "Start of the random numbers; -1: another each time.", -1, _MAX_SEED
    ),
    Member("stop", ("array", "string"), "Texts at which the output ends.", items="string"),
    Member("presence_penalty", ("number",), "Against tokens that are there already."),
    Member("frequency_penalty", ("number",), "The same, the more often they are there."),
    Member("repeat_penalty", ("number",), "Against repeated sequences; 1: off.", 0),
    Member("grammar", ("string",), "A GBNF grammar that the output has to follow."),
    Member("json_schema", ("object",), "A JSON schema that the output has to follow."),
    Member("response_format", ("object",), "The same in OpenAI's form; with messages only."),
)

# Said by us on every request, whatever the client wrote.
_OURS = frozenset({"stream", "stream_options", "return_progress", "response_fields"})

_NO_CHOICES = "A prediction has one output: leave it out, or send a prediction for each."
_NO_TOOLS = "The output is text, which cannot carry tool calls: use /v1/chat/completions."
_NO_TOKENS = "The output is text, which cannot carry this: use /completion or /v1/chat/completions."

_REFUSED: dict[str, tuple[Callable[[object], bool], str]] = {
    "n": (lambda value: value not in (None, 1), _NO_CHOICES),
    "n_cmpl": (lambda value: value not in (None, 1), _NO_CHOICES),
    "tools": (bool, _NO_TOOLS),
    "functions": (bool, _NO_TOOLS),
    "logprobs": (bool, _NO_TOKENS),
    "top_logprobs": (bool, _NO_TOKENS),
    "n_probs": (bool, _NO_TOKENS),
    "return_tokens": (bool, _NO_TOKENS),
}


@dataclass(frozen=True, slots=True)
class UpstreamRequest:
    """What llama-server is asked.

    Attributes:
        path: The route.
        fields: The body.
    """

    path: str
    fields: Mapping[str, object]

    def as_body(self) -> bytes:
        """Return the body as JSON."""
        return json.dumps(self.fields, ensure_ascii=False, separators=(",", ":")).encode()


def upstream_request(
    given: Mapping[str, object], *, allow_remote_media: bool = False
) -> UpstreamRequest:
    """Return the request that answers a prediction: a stream, with its progress and its counts.

    Args:
        given: The input, as its JSON was read.
        allow_remote_media: Whether messages may name media by any URL.

    Raises:
        InvalidPrediction: It cannot be answered; all that is wrong is told.
    """
    found = islice(_problems(given, allow_remote_media), _MAX_PROBLEMS)
    problems = sorted(found, key=lambda problem: problem.loc[-1].partition("/")[0])
    if "prompt" not in given and "messages" not in given:
        problems.append(Problem.missing(*_WHERE, "prompt"))
    if problems:
        raise InvalidPrediction(problems)
    fields = {name: value for name, value in given.items() if name not in _OURS}
    fields |= {"stream": True, "return_progress": True}
    messages = _messages(fields)
    for name in ("messages", "system_prompt"):
        fields.pop(name, None)
    if messages is None:
        # Whole, the last event repeats the prompt.
        fields["response_fields"] = ["content", "stop", "timings"]
        return UpstreamRequest(NATIVE_PATH, fields)
    fields.pop("prompt", None)
    fields |= {"messages": messages, "stream_options": {"include_usage": True}}
    return UpstreamRequest(CHAT_PATH, fields)


def _is_by_messages(given: Mapping[str, object]) -> bool:
    """Return whether the messages count; beside a prompt, empty ones do not."""
    return bool(given.get("messages")) or "prompt" not in given


def _messages(fields: Mapping[str, object]) -> object | None:
    """Return the chat that is asked for; None if it is a text to continue."""
    if _is_by_messages(fields):
        return fields["messages"]
    if fields.get("system_prompt"):
        return [
            {"role": "system", "content": fields["system_prompt"]},
            {"role": "user", "content": fields["prompt"]},
        ]
    return None


def _problems(given: Mapping[str, object], allow_remote_media: bool) -> Iterator[Problem]:
    for member in MEMBERS:
        if member.name in given:
            yield from _problems_of(member, given[member.name])
    for name, (is_wanted, sentence) in _REFUSED.items():
        if is_wanted(given.get(name)):
            yield _problem(name, sentence)
    yield from _problems_together(given)
    if not allow_remote_media:
        yield from _foreign_media(given)


def _problems_of(member: Member, value: object) -> Iterator[Problem]:
    if not any(is_type(value, name) for name in member.types):
        yield _problem(member.name, wrong_type(value, *member.types))
    elif isinstance(value, list):
        items = member.items or ""
        for place, element in enumerate(value):
            if not is_type(element, items):
                yield _problem(f"{member.name}/{place}", wrong_type(element, items))
    elif isinstance(value, int | float):
        words = out_of_bounds(value, member.minimum, member.maximum)
        if words is not None:
            yield _problem(member.name, words)


def _problems_together(given: Mapping[str, object]) -> Iterator[Problem]:
    if _is_by_messages(given):
        if given.get("prompt"):
            yield _problem("messages", "Send either prompt or messages, not both.")
        if given.get("system_prompt") and "messages" in given:
            yield _problem("system_prompt", "Send it as the first of the messages.")
    elif given.get("response_format") and not given.get("system_prompt"):
        yield _problem("response_format", "It needs messages; with a prompt use json_schema.")


def _foreign_media(given: Mapping[str, object]) -> Iterator[Problem]:
    for name, value in given.items():
        try:
            refuse_foreign_media({name: value})
        except InvalidRequest as error:
            yield _problem(name, error.message)


def _problem(name: str, words: str) -> Problem:
    return Problem((*_WHERE, name), words)
