"""What a request asks for, as the status page tells it.

Owns which members of a body that is, under each route's names. A member of the wrong type is left
out: whether a request is right is llama-server's to say. Texts of people are read only where they
may be shown.

Source: llama.cpp `tools/server/README.md`; OpenAI's and Anthropic's references for their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from proxy.core.generation import MESSAGES_ROUTES, NATIVE_ROUTES, RESPONSES_ROUTES, wants_stream
from proxy.core.sound_text import sound_text
from proxy.core.status.members import count_in, number_in, object_in, text_in

MAX_PROMPT_LENGTH = 2000

# A path of a model is the longest of what is shown.
_MAX_NAME_LENGTH = 256

_NATIVE_BOUNDS = ("n_predict", "max_tokens")
_RESPONSES_BOUNDS = ("max_output_tokens",)
_MESSAGES_BOUNDS = ("max_tokens",)
# What llama-server takes of two, `n_predict` last.
_OPENAI_BOUNDS = ("max_completion_tokens", "max_tokens", "n_predict")


@dataclass(frozen=True, slots=True)
class RequestAbout:
    """What a request asks for.

    Attributes:
        model: The model that it names.
        parameters: `stream`, `max_tokens`, `temperature`, `top_p`, `top_k`, `tools` (how many),
            `response_format`; None for what it does not say.
        session: Whose conversation it is of.
        tags: Of `stream`, `fast_path`, `prediction`, `thinking` and `tools`, in this order.
        prompt: The last text of a user; None where texts are not shown.
    """

    model: str | None = None
    parameters: dict[str, object] = field(default_factory=dict)
    session: str | None = None
    tags: tuple[str, ...] = ()
    prompt: str | None = None


def describe_request(
    label: str,
    fields: Mapping[str, object],
    *,
    session: str | None,
    fast_path: bool,
    prediction: bool,
    content: bool,
) -> RequestAbout:
    """Return what a request asks for.

    Args:
        label: The route's that llama-server is asked (`core.routes`); one that generates.
        fields: The client's body.
        session: Whose conversation it is of, where that is known.
        fast_path: Whether it came by the fast listener.
        prediction: Whether it is a prediction's.
        content: Whether texts of people may be shown.
    """
    tools = _tools(fields)
    tags = {
        "stream": wants_stream(fields),
        "fast_path": fast_path,
        "prediction": prediction,
        "thinking": _thinks(fields),
        "tools": tools > 0,
    }
    return RequestAbout(
        model=text_in(fields, "model", _MAX_NAME_LENGTH),
        parameters={
            "stream": tags["stream"],
            "max_tokens": _max_tokens(label, fields),
            "temperature": number_in(fields, "temperature"),
            "top_p": number_in(fields, "top_p"),
            "top_k": number_in(fields, "top_k"),
            "tools": tools,
            "response_format": _response_format(label, fields),
        },
        session=None if session is None else sound_text(session[:_MAX_NAME_LENGTH]),
        tags=tuple(name for name, has in tags.items() if has),
        prompt=_prompt(label, fields) if content else None,
    )


def _max_tokens(label: str, fields: Mapping[str, object]) -> int | None:
    """Return the bound; None for none, which llama-server has -1 for."""
    asked = (count_in(fields, name) for name in _bounds(label))
    return next((count for count in asked if count is not None), None)


def _bounds(label: str) -> tuple[str, ...]:
    if label in NATIVE_ROUTES:
        return _NATIVE_BOUNDS
    if label in RESPONSES_ROUTES:
        return _RESPONSES_BOUNDS
    return _MESSAGES_BOUNDS if label in MESSAGES_ROUTES else _OPENAI_BOUNDS


def _tools(fields: Mapping[str, object]) -> int:
    tools = fields.get("tools")
    return len(tools) if isinstance(tools, list) else 0


def _response_format(label: str, fields: Mapping[str, object]) -> str | None:
    """Return the format's name, also of a form that is only native to llama-server."""
    if label in RESPONSES_ROUTES:
        found = object_in(object_in(fields, "text"), "format")
    else:
        found = object_in(fields, "response_format")
    return (
        text_in(found, "type", _MAX_NAME_LENGTH)
        or ("json_schema" if object_in(fields, "json_schema") else None)
        or ("grammar" if text_in(fields, "grammar", 1) else None)
    )


def _thinks(fields: Mapping[str, object]) -> bool:
    """Return whether it asks for thinking; what the model does unasked is not told here."""
    told = object_in(fields, "chat_template_kwargs").get("enable_thinking")
    if isinstance(told, bool):
        return told
    if object_in(fields, "thinking"):
        return object_in(fields, "thinking").get("type") in ("enabled", "adaptive")
    reasoning = object_in(fields, "reasoning")
    effort = reasoning.get("effort", fields.get("reasoning_effort"))
    return effort != "none" if isinstance(effort, str) else bool(reasoning)


# -- the prompt --


def _prompt(label: str, fields: Mapping[str, object]) -> str | None:
    said = _prompts(fields) if "prompt" in fields else _said_by_user(label, fields)
    last = next((text for text in said if text), None)
    return None if last is None else sound_text(last[:MAX_PROMPT_LENGTH])


def _said_by_user(label: str, fields: Mapping[str, object]) -> Iterator[str]:
    """Return the texts of users, the last one first."""
    messages = fields.get("input" if label in RESPONSES_ROUTES else "messages")
    if isinstance(messages, str):
        yield messages
    for message in reversed(messages) if isinstance(messages, list) else ():
        if isinstance(message, dict) and message.get("role") == "user":
            yield _text_of(message.get("content"))
    # What infill has instead.
    yield _text_of(fields.get("input_prefix"))


def _text_of(content: object) -> str:
    """Return the text of a message, without its media."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    texts = (part.get("text") for part in parts if isinstance(part, dict))
    return "\n".join(text for text in texts if isinstance(text, str))


def _prompts(fields: Mapping[str, object]) -> Iterator[str]:
    """Return the prompts, the last one first; of one that is tokens there is no text."""
    prompt = fields.get("prompt")
    for found in reversed(prompt) if isinstance(prompt, list) else [prompt]:
        # With media it is an object.
        text = found.get("prompt_string") if isinstance(found, dict) else found
        if isinstance(text, str):
            yield text
    yield _text_of(fields.get("input_prefix"))
