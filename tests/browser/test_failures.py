"""What `streamChat` reports when the main listener fails as well."""

from __future__ import annotations

import pytest

from tests.browser.chat import chat
from tests.browser.chromium import Page
from tests.browser.streams import use
from tests.fakes.scripted_site import (
    End,
    Script,
    ScriptedSite,
    answer,
    hang_up,
    stream,
)


async def test_error_of_the_main_listener_is_what_is_reported(
    opened: Page, site: ScriptedSite
) -> None:
    """Of a request that is wrong itself, both listeners say so; the last word counts."""
    site.fast = answer(400, {"error": {"code": 400, "type": "first"}})
    error = {"code": 400, "message": "Bad.", "type": "invalid_request_error"}
    site.main = answer(400, {"error": {**error, "request_id": "r3"}})
    found = await chat(opened)
    assert not found.unlike(path="main", requestId="r3", **error)
    assert (found.events, site.names) == ([], ["negotiation", "fast", "main"])


@pytest.mark.parametrize(
    ("main", "type", "code"),
    [
        pytest.param(answer(502, b"<html>", kind="text/html"), "http_error", 502, id="HTML"),
        pytest.param(answer(404, {"detail": "x"}), "http_error", 404, id="other JSON"),
        pytest.param(answer(503, [1]), "http_error", 503, id="a list"),
        pytest.param(answer(500, b"null"), "http_error", 500, id="null"),
        pytest.param(answer(429, {"error": "slow"}), "http_error", 429, id="a text"),
        pytest.param(answer(204, b""), "http_error", 204, id="another success"),
        pytest.param(answer(200, {}), "invalid_response", None, id="no stream"),
        pytest.param(stream(), "incomplete_stream", None, id="empty"),
        pytest.param(stream(end=End.CUT), "network_error", None, id="cut before the first byte"),
        pytest.param(hang_up, "network_error", None, id="broken connection"),
    ],
)
async def test_failure_of_the_main_listener_has_a_type(
    opened: Page,
    site: ScriptedSite,
    main: Script,
    type: str,  # noqa: A002
    code: int | None,
) -> None:
    """Also where the server says nothing that could be read."""
    use(site, "main", main)
    assert not (await chat(opened)).unlike(path="main", type=type, code=code)


async def test_server_that_is_not_there_is_a_network_error(opened: Page) -> None:
    """The only thing that a browser tells."""
    found = await chat(opened, options={"baseUrl": "http://127.0.0.1:2"})
    assert not found.unlike(path="main", type="network_error", code=None, requestId=None)
