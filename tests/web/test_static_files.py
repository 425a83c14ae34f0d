"""The files that pages load from us."""

from __future__ import annotations

from pathlib import Path

import pytest

import proxy.web.static_files
from proxy.core.errors import NotFound
from proxy.web.static_files import FILES, PATHS, StaticFiles
from tests.http1.asgi_client import Field, Reply, ask, scope_of

FOLDER = Path(proxy.web.static_files.__file__).parent / "static"
MODULE = "/fastpath.js"
HOST = (b"Host", b"localhost")
every_path = pytest.mark.parametrize("path", sorted(PATHS))


async def get(path: str = MODULE, *fields: Field, method: str = "GET") -> Reply:
    """Ask for a file."""
    return await ask(StaticFiles(), scope_of(method, path, (HOST, *fields)))


async def tag_of(path: str = MODULE) -> bytes:
    """Return the tag that a file has."""
    return (await get(path)).one(b"ETag")


@every_path
async def test_file_is_answered_as_it_is_in_the_package(path: str) -> None:
    """Byte for byte, with its length."""
    reply = await get(path)
    assert (reply.status, reply.complete) == (200, True)
    assert reply.body == FILES[path].read_bytes()
    assert reply.one(b"Content-Length") == b"%d" % len(reply.body)


def test_every_file_of_the_folder_is_answered() -> None:
    """Nothing lies in the package that nobody gets."""
    assert {path for path in FOLDER.rglob("*") if path.is_file()} == set(FILES.values())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (MODULE, b"text/javascript; charset=utf-8"),
        ("/fastpath.d.ts", b"text/plain; charset=utf-8"),
        ("/status", b"text/html; charset=utf-8"),
        ("/status/static/status.css", b"text/css; charset=utf-8"),
    ],
)
async def test_type_is_said_and_not_to_be_guessed(path: str, kind: bytes) -> None:
    """A browser runs a module only of its own type."""
    reply = await get(path)
    assert reply.one(b"Content-Type") == kind
    assert reply.one(b"X-Content-Type-Options") == b"nosniff"


@every_path
async def test_file_that_the_client_has_is_not_sent_again(path: str) -> None:
    """304 with the tag, and no body; it may go on to keep it."""
    tag = await tag_of(path)
    reply = await get(path, (b"if-none-match", tag))
    assert (reply.status, reply.body, reply.complete) == (304, b"", True)
    assert reply.one(b"ETag") == tag
    assert reply.one(b"Cache-Control") == b"no-cache"


@pytest.mark.parametrize(
    ("listed", "status"),
    [
        pytest.param([b"%b"], 304, id="the tag"),
        pytest.param([b"W/%b"], 304, id="weak, from a cache that compressed it"),
        pytest.param([b'"a", %b'], 304, id="among others"),
        pytest.param([b'"a"', b"%b"], 304, id="in a second field"),
        pytest.param([b"*"], 304, id="any"),
        pytest.param([b'"a"'], 200, id="another"),
        pytest.param([b""], 200, id="none"),
    ],
)
async def test_tags_are_compared_as_the_rfc_has_it(listed: list[bytes], status: int) -> None:
    """A list, in one field or more, weakly."""
    tag = await tag_of()
    fields = [(b"If-None-Match", value.replace(b"%b", tag)) for value in listed]
    assert (await get(MODULE, *fields)).status == status


async def test_tags_of_two_files_differ() -> None:
    """The tag is the content's."""
    assert await tag_of("/fastpath.js") != await tag_of("/fastpath.d.ts")


async def test_file_is_asked_for_anew_each_time() -> None:
    """A new proxy's page does not run with an old proxy's module."""
    assert (await get()).one(b"Cache-Control") == b"no-cache"


@every_path
async def test_head_has_the_same_head(path: str) -> None:
    """The server leaves the body out."""
    assert (await get(path, method="HEAD")).headers == (await get(path)).headers


@every_path
async def test_file_answers_get_only(path: str) -> None:
    """Nothing else has a meaning here."""
    with pytest.raises(NotFound, match="GET only"):
        await get(path, method="POST")
