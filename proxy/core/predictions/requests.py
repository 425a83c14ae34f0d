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
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn
from urllib.parse import urlsplit

from proxy.core.predictions.json_types import is_type, not_one_of, wrong_type
from proxy.core.predictions.refusals import (
    MAX_PROBLEMS,
    InvalidPrediction,
    MalformedBody,
    Problem,
    WrongContentType,
)

WEBHOOK_EVENTS = ("start", "output", "logs", "completed")

# An id names things in paths, logs and tasks. Room for two UUIDs and a prefix.
_ID = re.compile(r"(?!\.\.?\Z)[A-Za-z0-9._-]{1,128}")
_ID_RULE = "an id is 1 to 128 letters, digits, dots, dashes and underscores, not . or .."

# What servers commonly take of a URL, and no more than is worth keeping per prediction.
_MAX_URL = 2048
_URL_RULE = "the webhook has to be an http or https URL with a host, of at most 2048 characters"

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
        webhook: Where to report to.
        webhook_events_filter: What to report; None for everything.
    """

    id: str | None
    input: dict[str, object]
    webhook: str | None
    webhook_events_filter: frozenset[str] | None


def read_request(body: bytes, content_type: str | None, path_id: str | None) -> PredictionRequest:
    """Read a request for a prediction.

    Without a body and a content type the input is empty, which is enough to join a prediction.

    Args:
        body: The whole body.
        content_type: Its type as the header has it; None if there is none.
        path_id: The id in the path, decoded; None if the path has no place for it.

    Raises:
        WrongContentType: It is not said to be JSON, or has a body and does not say.
        MalformedBody: It is not JSON.
        InvalidPrediction: It is no request for a prediction.
    """
    found = _read_object(body, content_type)
    problems = list(islice(_problems(found, path_id), MAX_PROBLEMS))
    if problems:
        raise InvalidPrediction(problems)
    own_id, webhook = found.get("id"), found.get("webhook")
    wanted = found.get("webhook_events_filter")
    given = found.get("input")
    return PredictionRequest(
        id=path_id if path_id is not None else _text_or_none(own_id),
        input=given if isinstance(given, dict) else {},
        webhook=_text_or_none(webhook),
        webhook_events_filter=frozenset(wanted) if isinstance(wanted, list) else None,
    )


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


def _problems(found: dict[str, object], path_id: str | None) -> Iterator[Problem]:
    own_id = found.get("id")
    if own_id is not None and not isinstance(own_id, str):
        yield Problem(("body", "id"), wrong_type(own_id, "string"))
    elif path_id is not None and own_id not in (None, path_id):
        yield Problem(("body", "id"), "prediction ID must match the ID supplied in the URL")
    elif own_id is not None and not _ID.fullmatch(own_id):
        yield Problem(("body", "id"), _ID_RULE)
    elif path_id is not None and not _ID.fullmatch(path_id):
        yield Problem(("path", "prediction_id"), _ID_RULE)
    yield from _problems_of_object(("body", "context"), found.get("context", {}))
    if found.get("input") is not None:
        yield from _problems_of_object(("body", "input", "__root__"), found["input"])
    yield from _problems_of_webhook(found.get("webhook"))
    yield from _problems_of_filter(found.get("webhook_events_filter", []))


def _problems_of_object(loc: tuple[str, ...], value: object) -> Iterator[Problem]:
    if not is_type(value, "object"):
        yield Problem(loc, wrong_type(value, "object"))


def _problems_of_webhook(value: object) -> Iterator[Problem]:
    if value is None:
        return
    if not isinstance(value, str):
        yield Problem(("body", "webhook"), wrong_type(value, "string"))
    elif not _is_url(value):
        yield Problem(("body", "webhook"), _URL_RULE)


def _is_url(value: str) -> bool:
    # `urlsplit` silently takes out what no URL has: line ends, and blanks around it.
    if len(value) > _MAX_URL or not value.isprintable() or " " in value:
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and port != 0


def _problems_of_filter(value: object) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem(("body", "webhook_events_filter"), wrong_type(value, "array"))
        return
    for place, name in enumerate(value):
        if name not in WEBHOOK_EVENTS:
            loc = ("body", f"webhook_events_filter/{place}")
            yield Problem(loc, not_one_of(name, WEBHOOK_EVENTS))


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
