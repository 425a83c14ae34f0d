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
from collections.abc import Iterable, Iterator

from proxy.core.errors import InvalidRequest

# Where a body has content: chat and messages; responses, embeddings; messages; completion;
# embeddings.
_CONTENT_FIELDS = ("messages", "input", "system", "prompt", "content")
# Where content has content: a message, a tool result; a function call's output.
_NESTED_FIELDS = ("content", "output")
# A part's media: an object with `url`; those that OpenAI's responses have as a string, or an
# object.
_OBJECT_FIELDS = ("input_image", "input_audio", "input_video", "source")
_URL_FIELDS = ("image_url", "audio_url", "video_url", "file_url")
# Where `data` stands for `url`, and llama-server reads the one as the other. Not `source`: there it
# writes `data:` before it, and a document's is plain text.
_DATA_FIELDS = ("input_image", "input_audio", "input_video")

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
    if isinstance(body, dict):
        for path, part in _parts(body):
            _check_part(path, part)


def _parts(body: dict[str, object]) -> Iterator[tuple[str, dict[str, object]]]:
    """Yield every object that is content, with its path, in the order of the body.

    A stack of iterators and not recursion: a body may be nested deeper than Python's stack. Nor is
    a list copied: a prompt may be a million token numbers.
    """
    pending = [_members("", body, _CONTENT_FIELDS)]
    while pending:
        path, value = next(pending[-1], ("", None))
        if isinstance(value, list):
            pending.append(_items(path, value))
        elif isinstance(value, dict):
            yield path, value
            pending.append(_members(f"{path}.", value, _NESTED_FIELDS))
        else:
            pending.pop()


def _members(
    prefix: str, part: dict[str, object], names: Iterable[str]
) -> Iterator[tuple[str, object]]:
    for name in names:
        if isinstance(part.get(name), list | dict):
            yield f"{prefix}{name}", part[name]


def _items(path: str, values: list[object]) -> Iterator[tuple[str, object]]:
    for n, value in enumerate(values):
        if isinstance(value, list | dict):
            yield f"{path}[{n}]", value


def _check_part(path: str, part: dict[str, object]) -> None:
    for where, url in _urls(path, part):
        if not url.lstrip(_BLANK)[:5].lower() == "data:":
            raise _refusal(where)
    for where, data in _data(path, part):
        if _URL_IN_DATA.match(data.lstrip(_BLANK)):
            raise _refusal(where)


def _urls(path: str, part: dict[str, object]) -> Iterator[tuple[str, str]]:
    for name in _URL_FIELDS:
        url = part.get(name)
        if isinstance(url, str):
            yield f"{path}.{name}", url
    yield from _texts(path, part, (*_URL_FIELDS, *_OBJECT_FIELDS), "url")


def _data(path: str, part: dict[str, object]) -> Iterator[tuple[str, str]]:
    yield from _texts(path, part, _DATA_FIELDS, "data")
    multimodal = part.get("multimodal_data")
    if isinstance(multimodal, list):
        for n, data in enumerate(multimodal):
            if isinstance(data, str):
                yield f"{path}.multimodal_data[{n}]", data


def _texts(
    path: str, part: dict[str, object], names: tuple[str, ...], member: str
) -> Iterator[tuple[str, str]]:
    for name in names:
        media = part.get(name)
        text = media.get(member) if isinstance(media, dict) else None
        if isinstance(text, str):
            yield f"{path}.{name}.{member}", text


def _refusal(path: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} must be a data: URL: this server fetches nothing. Send the media itself."
    )
