"""Media in a request's body must be in the body.

llama-server fetches whatever `http(s)` URL a message names, from where it stands and with no
check of the address, and reads `file:` URLs below its `--media-path`. Through it a client could
reach what only this machine can reach. So a body may name `data:` URLs and nothing else.

Owns where in a body media can be: the parts of message content, in the shapes of the chat,
responses, messages and completion routes. It must never look at plain text, at tool schemas or at
the arguments of tool calls: nothing there is fetched.

Source: llama.cpp `tools/server/server-common.cpp`, `handle_media`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from proxy.core.errors import InvalidRequest

# Where a body has content: chat and messages; responses, embeddings; messages; completion;
# embeddings.
_CONTENT_FIELDS = ("messages", "input", "system", "prompt", "content")
# Where content has content: a message, a tool result; a function call's output.
_NESTED_FIELDS = ("content", "output")
# A part's media: a string, or an object with `url` or `data`.
_MEDIA_FIELDS = (
    "image_url",
    "audio_url",
    "video_url",
    "file_url",
    "input_image",
    "input_audio",
    "input_video",
    "source",
)

# WHATWG URL, "basic URL parser", step 1: leading C0 controls and spaces are not part of a URL.
_BLANK = "".join(map(chr, range(0x21)))
# What stands where base64 is expected and is none: llama-server takes all that begins with "http"
# for a URL. No colon is in base64.
_URL_IN_DATA = re.compile(r"http|(?!data:)[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def refuse_foreign_media(body: object) -> None:
    """Check that every media URL in a parsed request body is a `data:` URL.

    Args:
        body: The JSON value; anything but an object has no media.

    Raises:
        InvalidRequest: One is not; the message names its field.
    """
    if not isinstance(body, dict):
        return
    # A stack and not recursion: a body may be nested deeper than Python's stack.
    pending = [(name, body[name]) for name in _CONTENT_FIELDS if name in body]
    while pending:
        path, value = pending.pop()
        if isinstance(value, list):
            pending += ((f"{path}[{n}]", item) for n, item in enumerate(value))
        elif isinstance(value, dict):
            _check_part(path, value)
            pending += ((f"{path}.{name}", value[name]) for name in _NESTED_FIELDS if name in value)


def _check_part(path: str, part: dict[str, object]) -> None:
    for name in _MEDIA_FIELDS:
        for where, url in _urls(f"{path}.{name}", part.get(name)):
            if not url.lstrip(_BLANK)[:5].lower() == "data:":
                raise _refusal(where)
    for where, data in _data(path, part):
        if _URL_IN_DATA.match(data.lstrip(_BLANK)):
            raise _refusal(where)


def _urls(path: str, media: object) -> Iterator[tuple[str, str]]:
    if isinstance(media, str):
        yield path, media
    elif isinstance(media, dict) and isinstance(media.get("url"), str):
        yield f"{path}.url", media["url"]


def _data(path: str, part: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name in _MEDIA_FIELDS:
        media = part.get(name)
        if isinstance(media, dict) and isinstance(media.get("data"), str):
            yield f"{path}.{name}.data", media["data"]
    multimodal = part.get("multimodal_data")
    if isinstance(multimodal, list):
        for n, data in enumerate(multimodal):
            if isinstance(data, str):
                yield f"{path}.multimodal_data[{n}]", data


def _refusal(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} must be a data: URL: this server fetches nothing. Send the media itself."
    )
