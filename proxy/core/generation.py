"""What llama-server is asked for in a client's place, and what of its stream is not the client's.

Owns the members that are added to the body of a request that generates, and the filter that takes
out again what they add to a stream. It must never know how an answer is put together
(`core.assembly`) or where the bytes come from.

Every request is asked with `return_progress`: that is what lets llama-server notice a disconnect in
prefill. A client that asked for no stream is asked for with `stream`, for it notices no disconnect
otherwise. Members are written at the end of the client's own text, which stays as it is down to the
digits of its numbers: of two members of one name llama-server takes the last, as Python does.

Source: llama.cpp b11434, `tools/server/server-schema.cpp` and `server-task.cpp`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

CHAT_ROUTES = frozenset({"/chat/completions", "/v1/chat/completions"})
TEXT_ROUTES = frozenset({"/v1/completions"})
NATIVE_ROUTES = frozenset({"/completion", "/completions", "/infill"})
RESPONSES_ROUTES = frozenset({"/responses", "/v1/responses"})
MESSAGES_ROUTES = frozenset({"/v1/messages"})

_PROMPT_ROUTES = TEXT_ROUTES | NATIVE_ROUTES

# One with a path for a model's name is under 5 KiB; the others are 300 bytes.
_MAX_PROGRESS_EVENT = 16 * 1024

_EVENT_END = b"\n\n"
# Cannot be inside a JSON string, where a quotation mark has a backslash before it.
_PROGRESS = b',"prompt_progress":{'
_TIMINGS = b',"timings":{'
_CREATED = b"event: response.created\n"
_IN_PROGRESS = b"event: response.in_progress\n"


def wants_stream(fields: Mapping[str, object]) -> bool:
    """Return whether the client asked for an event stream."""
    return fields.get("stream") is True


def can_be_streamed(label: str, fields: Mapping[str, object]) -> bool:
    """Return whether the stream carries all that the answer in one piece has.

    What it cannot carry, by route:

    * chat with log probabilities: those of a token that shows in no delta are left out, the one
      that ends every answer among them;
    * chat with `verbose`: it has the text as it was before it was parsed;
    * responses of several choices, which their events do not tell apart, and with `logprobs`, which
      llama-server refuses beside tools in a stream;
    * messages that continue one of the assistant's: whether a stream repeats it depends on
      llama-server's version;
    * `return_tokens`: of a character made of several tokens only the last is told;
    * `n_indent`: what is cut from the end was sent before;
    * a member of the wrong type, which llama-server is to refuse itself.

    Args:
        label: The route's (`core.routes`).
        fields: The client's body.
    """
    if not _well_typed(fields) or _number(fields, "n_indent") > 0:
        return False
    if label in _PROMPT_ROUTES:
        return fields.get("return_tokens") is not True
    if label in CHAT_ROUTES:
        return not _wants_probabilities(fields) and fields.get("verbose") is not True
    if label in MESSAGES_ROUTES:
        return not _continues(fields)
    return not fields.get("logprobs") and not _has_choices(fields)


def upstream_body(
    label: str,
    fields: Mapping[str, object],
    original: bytes,
    bounds: Mapping[str, object] | None = None,
) -> bytes:
    """Return the body to send to llama-server.

    Args:
        label: The route's.
        fields: `original`, parsed.
        original: The client's body, a JSON object. It is returned itself where it needs no change.
        bounds: Members that the body is to have besides, whatever the client wrote.
    """
    added = {
        name: value
        for name, value in {**_wanted(label, fields), **(bounds or {})}.items()
        if name not in fields or fields[name] is not value
    }
    if not added:
        return original
    members = json.dumps(added, ensure_ascii=False, separators=(",", ":"))[1:]
    separator = b"," if fields else b""
    return original.rstrip(b" \t\r\n")[:-1] + separator + members.encode()


def stream_filter(label: str, fields: Mapping[str, object]) -> StreamFilter | None:
    """Return the filter for the stream of a client that asked for one; None for another's."""
    if not wants_stream(fields):
        return None
    return StreamFilter(
        responses=label in RESPONSES_ROUTES,
        several=_has_choices(fields) or (label in _PROMPT_ROUTES and _has_list(fields)),
        keep=fields.get("return_progress") is True,
    )


class StreamFilter:
    """Takes the progress of prefill out of an event stream for a client that did not ask for it.

    Whole events are passed on or taken out; nothing else is changed. It stands aside at the first
    event of decode, but for a request of several prompts or choices, of which one may still be in
    prefill while another decodes; there an event costs two searches of its bytes. Nothing is ever
    parsed. At most 16 KiB are held.

    Args:
        responses: The stream is of `/v1/responses`, where the first progress is told within an
            event that the client is to get.
        several: The request has several prompts or choices.
        keep: The client asked for progress itself: only the end of prefill is looked for.

    Attributes:
        decoding: Whether the first event of decode has come.
        finished: Whether all that is fed from now on is returned as it is.
    """

    def __init__(
        self, *, responses: bool = False, several: bool = False, keep: bool = False
    ) -> None:
        self._responses = responses
        self._several = several and not keep
        self._keep = keep
        self._held = b""
        self._after_created = False
        # An event too large to be of progress is passed on in pieces.
        self._inside_large = False
        self.decoding = False
        self.finished = False

    def feed(self, data: bytes) -> bytes:
        """Return what of `data`, and of what was held before, the client is to get."""
        return data if self.finished else self._filter(data)

    def finish(self) -> bytes:
        """Return what is held when the stream has ended: an event without its end, or nothing."""
        held, self._held = self._held, b""
        return held

    def _filter(self, data: bytes) -> bytes:
        data, self._held = self._held + data, b""
        passed: list[bytes] = []
        start = 0
        while (end := data.find(_EVENT_END, start)) >= 0:
            end += len(_EVENT_END)
            passed.append(self._pass(data[start:end]))
            start = end
            if self.finished:
                break
        passed.append(self._hold(data[start:]))
        return b"".join(passed)

    def _pass(self, event: bytes) -> bytes:
        if self._inside_large:
            self._inside_large = False
            return event
        after_created, self._after_created = self._after_created, False
        if event.startswith(b":"):
            self._after_created = after_created
            return event
        if _PROGRESS in event:
            return self._pass_progress(event, after_created)
        if self._responses and event.startswith((_CREATED, _IN_PROGRESS)):
            self._after_created = event.startswith(_CREATED)
            return event
        self._begin_decode()
        return event

    def _pass_progress(self, event: bytes, after_created: bool) -> bytes:
        if self._keep:
            return event
        return _without_progress(event) if after_created else b""

    def _begin_decode(self) -> None:
        self.decoding = True
        self.finished = not self._several

    def _hold(self, rest: bytes) -> bytes:
        """Hold the beginning of an event; return what can be passed on at once."""
        if self.finished:
            return rest
        if not self._inside_large and len(rest) <= _MAX_PROGRESS_EVENT:
            self._held = rest
            return b""
        self._inside_large = True
        self._begin_decode()
        # The first half of its end, unless nobody is to look for it any more.
        kept = 1 if rest.endswith(b"\n") and not self.finished else 0
        self._held = rest[len(rest) - kept :]
        return rest[: len(rest) - kept]


def _without_progress(event: bytes) -> bytes:
    """Return an event `response.in_progress` as it is for those who did not ask for progress."""
    end = event.find(_TIMINGS)
    if end < 0:
        end = event.find(_PROGRESS)
    return event[:end] + b"}" + _EVENT_END


def _wanted(label: str, fields: Mapping[str, object]) -> dict[str, object]:
    """Return the members that the body is to have."""
    if wants_stream(fields):
        return {"return_progress": True} if _well_typed(fields) else {}
    if not can_be_streamed(label, fields):
        return {}
    wanted: dict[str, object] = {"stream": True, "return_progress": True}
    if label in CHAT_ROUTES:
        wanted["stream_options"] = {**_stream_options(fields), "include_usage": True}
        if _continues(fields):
            # The answer in one piece begins with the message it continues; a stream only so.
            wanted["echo"] = True
    if label in TEXT_ROUTES:
        # Tells the stop word and the tokens, which the form of OpenAI has no place for.
        wanted["verbose"] = True
    if label in _PROMPT_ROUTES and "response_fields" in fields:
        # They are chosen from the answer that is put together; a last event may be cut down to
        # nothing.
        wanted["response_fields"] = None
    return wanted


def _stream_options(fields: Mapping[str, object]) -> dict[str, object]:
    options = fields.get("stream_options")
    return options if isinstance(options, dict) else {}


def _well_typed(fields: Mapping[str, object]) -> bool:
    """Return whether what would be written over is something llama-server takes."""
    written_over = (
        *(fields.get(name) for name in ("stream", "return_progress", "echo", "verbose")),
        _stream_options(fields).get("include_usage"),
    )
    return all(value is None or isinstance(value, bool) for value in written_over)


def _wants_probabilities(fields: Mapping[str, object]) -> bool:
    return bool(fields.get("logprobs")) or _number(fields, "n_probs") > 0


def _has_choices(fields: Mapping[str, object]) -> bool:
    return _number(fields, "n") > 1 or _number(fields, "n_cmpl") > 1


def _continues(fields: Mapping[str, object]) -> bool:
    messages = fields.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    by_assistant = isinstance(last, dict) and last.get("role") == "assistant"
    return by_assistant or bool(fields.get("continue_final_message"))


def _has_list(fields: Mapping[str, object]) -> bool:
    return isinstance(fields.get("prompt"), list)


def _number(fields: Mapping[str, object], name: str) -> float:
    value = fields.get(name)
    return value if isinstance(value, int | float) else 0
