"""The body of a request for a prediction.

Owns what is JSON, what is an id, and the members beside `input`. What is in `input` is looked at by
`inputs` alone, for it is not checked when a prediction that runs is joined.

Cog answers a wrong member beside `input` with plain text, in the words of its parser; here it is
told as everything else that is wrong, by the list with its place.

Source: coglet 0.23.1, as it answers.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import NoReturn

from proxy.core.predictions.json_types import wrong_type
from proxy.core.predictions.refusals import (
    InvalidPrediction,
    MalformedBody,
    Problem,
    WrongContentType,
)
from proxy.core.predictions.webhooks import (
    ALL_EVENTS,
    InvalidFilter,
    InvalidUrl,
    WebhookEvent,
    WebhookUrl,
    check_url,
    parse_filter,
)

# An id names things in paths, logs and tasks. Room for two UUIDs and a prefix.
_ID = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,128}")
_ID_RULE = "an id is 1 to 128 letters, digits, dots, dashes and underscores, not . or .."

# As Cog's parser: whatever is read here can be written again, however deep the stack is then.
_MAX_DEPTH = 127

_JSON_TYPE = re.compile(r"application/(?:[^;\s/]+\+)?json", re.IGNORECASE)
# Half a character, written as an escape; a whole one has two of them and is found in order.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """What a client asks for.

    Attributes:
        id: The id that it gives to the prediction; None to have one made.
        input: The input, not checked.
        webhook: Where to report to; None for nowhere.
        webhook_events_filter: What to report.
    """

    id: str | None
    input: dict[str, object]
    webhook: WebhookUrl | None
    webhook_events_filter: frozenset[WebhookEvent]


def read_request(
    body: bytes,
    content_type: str | None,
    path_id: str | None,
    *,
    allow_private_webhooks: bool = False,
) -> PredictionRequest:
    """Read a request for a prediction.

    Without a body and a content type the input is empty, which is enough to join a prediction.

    Args:
        body: The whole body.
        content_type: Its type as the header has it; None if there is none.
        path_id: The id in the path, decoded; None if the path has no place for it.
        allow_private_webhooks: Whether to report to this machine and to private networks.

    Raises:
        WrongContentType: It is not said to be JSON, or has a body and does not say.
        MalformedBody: It is not JSON.
        InvalidPrediction: It is no request for a prediction.
    """
    found = _read_object(body, content_type)
    problems: list[Problem] = []
    own_id = _read_id(found.get("id"), path_id, problems)
    given = _read_input(found, problems)
    webhook = _read_webhook(found.get("webhook"), allow_private_webhooks, problems)
    events = _read_filter(found, problems)
    if problems:
        raise InvalidPrediction(problems)
    return PredictionRequest(own_id, given, webhook, events)


def _read_object(body: bytes, content_type: str | None) -> dict[str, object]:
    if content_type is None and not body:
        return {}
    if content_type is None or not _JSON_TYPE.fullmatch(content_type.partition(";")[0].strip()):
        raise WrongContentType
    found = _parse(body)
    if not isinstance(found, dict):
        raise InvalidPrediction([Problem(("body",), wrong_type(found, "object"))])
    return found


def _parse(body: bytes) -> object:
    try:
        text = body.decode()
        found = json.loads(text, parse_constant=_refuse_constant, parse_float=_read_float)
    except UnicodeDecodeError as error:
        raise MalformedBody(f"invalid UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise MalformedBody(f"{error.msg} at {where}") from error
    except RecursionError as error:
        raise MalformedBody("recursion limit exceeded") from error
    except ValueError as error:
        # An integer of more digits than Python converts.
        raise MalformedBody("number out of range") from error
    if _is_deeper(found, _MAX_DEPTH):
        raise MalformedBody("recursion limit exceeded")
    if _HALF.search(text):
        _refuse_half_characters(found)
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise MalformedBody(f"{name} is not a value of JSON")


def _read_float(digits: str) -> float:
    found = float(digits)
    if math.isinf(found):
        raise MalformedBody("number out of range")
    return found


def _is_deeper(found: object, depth: int) -> bool:
    """Return whether more than `depth` objects and lists are inside each other."""
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(depth):
        level = [
            each
            for outer in level
            for each in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(each, dict | list)
        ]
        if not level:
            return False
    return bool(level)


def _refuse_half_characters(found: object) -> None:
    try:
        json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise MalformedBody("lone surrogate in hex escape") from error


def _read_id(own: object, path_id: str | None, problems: list[Problem]) -> str | None:
    found = path_id if own is None else own
    if found is None:
        return None
    if not isinstance(found, str):
        problems.append(Problem(("body", "id"), wrong_type(found, "string")))
    elif path_id not in (None, found):
        words = "prediction ID must match the ID supplied in the URL"
        problems.append(Problem(("body", "id"), words))
    elif not _ID.fullmatch(found):
        where = ("path", "prediction_id") if own is None else ("body", "id")
        problems.append(Problem(where, _ID_RULE))
    else:
        return found
    return None


def _read_input(found: dict[str, object], problems: list[Problem]) -> dict[str, object]:
    context = found.get("context", {})
    if not isinstance(context, dict):
        problems.append(Problem(("body", "context"), wrong_type(context, "object")))
    given = found.get("input")
    if given is None or isinstance(given, dict):
        return given or {}
    problems.append(Problem(("body", "input", "__root__"), wrong_type(given, "object")))
    return {}


def _read_webhook(given: object, allow_private: bool, problems: list[Problem]) -> WebhookUrl | None:
    if given is None:
        return None
    words = wrong_type(given, "string")
    if isinstance(given, str):
        try:
            return check_url(given, allow_private=allow_private)
        except InvalidUrl as error:
            words = str(error)
    problems.append(Problem(("body", "webhook"), words))
    return None


def _read_filter(found: dict[str, object], problems: list[Problem]) -> frozenset[WebhookEvent]:
    name = "webhook_events_filter"
    if name not in found:
        return ALL_EVENTS
    given = found[name]
    if not isinstance(given, list):
        problems.append(Problem(("body", name), wrong_type(given, "array")))
        return ALL_EVENTS
    try:
        return parse_filter(given)
    except InvalidFilter as error:
        problems.append(Problem(("body", f"{name}/{error.index}"), str(error)))
        return ALL_EVENTS
