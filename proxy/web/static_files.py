"""The files that pages load from us: the browser's side of the fast path, and the status page.

Owns their paths, and what a browser is told of them. They come with the package and are read once;
what the tag says is their content, so whoever has a file asks whether it is still the same and is
answered without a body. Plain ASGI and free of the web framework: a page does not wait for it.

Source: RFC 9110 sections 8.8.3 and 13.1.2 (entity tags), RFC 9239 (the type of JavaScript).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from proxy.core.errors import NotFound
from proxy.http1.asgi import Message, Receive, Send

_FOLDER = Path(__file__).parent / "static"
_PAGE = _FOLDER / "status"
_TEXT = b"text/plain; charset=utf-8"
_KINDS = {
    ".css": b"text/css; charset=utf-8",
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    # TypeScript has no type of its own that is registered; browsers show it as text.
    ".ts": _TEXT,
}
# What a model writes is text wherever it is shown; should it ever be taken for more, it still can
# load and run nothing.
_PAGE_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self';"
    b" img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_OPAQUE_TAG = re.compile(rb'"[^"]*"')


def _find_files() -> dict[str, Path]:
    found = {f"/{file.name}": file for file in _FOLDER.iterdir() if file.is_file()}
    for file in _PAGE.rglob("*"):
        if file.is_file():
            found[_path_of(file.relative_to(_PAGE).as_posix())] = file
    return found


def _path_of(name: str) -> str:
    """Return the path of a file of the status page, by its name in the page's folder."""
    return "/status" if name == "index.html" else f"/status/static/{name}"


FILES = _find_files()
"""Each path with its file."""

PATHS = frozenset(FILES)


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is answered: its bytes, its type, its tag with the quotes."""

    body: bytes
    kind: bytes
    tag: bytes


class StaticFiles:
    """Answers `PATHS`. Makes no difference between clients: who may ask is the front door's."""

    def __init__(self) -> None:
        self._files = {path: _read(file) for path, file in FILES.items()}

    async def __call__(self, scope: Message, _receive: Receive, send: Send) -> None:
        """Answer one of `PATHS`.

        Raises:
            NotFound: For another method than GET and HEAD.
        """
        if scope["method"] not in ("GET", "HEAD"):
            raise NotFound("This path answers GET only.")
        file = self._files[scope["path"]]
        # `no-cache` is: keep it, and ask each time. A page and its proxy change together.
        headers = [
            (b"ETag", file.tag),
            (b"Cache-Control", b"no-cache"),
            (b"X-Content-Type-Options", b"nosniff"),
        ]
        if _is_known(scope, file.tag):
            await _answer(send, 304, headers, b"")
            return
        headers += [(b"Content-Type", file.kind), (b"Content-Security-Policy", _PAGE_POLICY)]
        headers.append((b"Content-Length", str(len(file.body)).encode()))
        await _answer(send, 200, headers, file.body)


def _read(file: Path) -> _File:
    body, kind = file.read_bytes(), _KINDS.get(file.suffix, _TEXT)
    return _File(body, kind, b'"%b"' % hashlib.sha256(body).hexdigest()[:32].encode())


def _is_known(scope: Message, tag: bytes) -> bool:
    """Tell whether the client has the file: weak tags count too, as it has it byte for byte."""
    values = [value for name, value in scope["headers"] if name.lower() == b"if-none-match"]
    listed = b",".join(values)
    return listed.strip() == b"*" or tag in _OPAQUE_TAG.findall(listed)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})
