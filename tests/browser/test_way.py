"""Which way `streamChat` takes, and whom it asks with what."""

from __future__ import annotations

import json

import pytest

from tests.browser.chat import BODY, chat, hasten
from tests.browser.chromium import Page
from tests.browser.streams import DONE, ONE, PATHS, WHOLE, data, use, whole
from tests.fakes.scripted_site import (
    EVENT_STREAM,
    End,
    Script,
    ScriptedSite,
    Visit,
    answer,
    hang_up,
    silence,
    stream,
)

HELLO, UNSUPPORTED = {"supported": True}, {"supported": False}


async def test_fast_path_is_taken_where_it_is_offered(opened: Page, site: ScriptedSite) -> None:
    """With the token, once; the main listener is not asked to generate."""
    site.fast = WHOLE
    assert await chat(opened) == whole("fast")
    assert site.names == ["negotiation", "fast"]
    visit = site.visit("fast")
    assert (visit.method, visit.target) == ("POST", "/stream")
    assert visit.fields["x-stream-token"] == "once"


async def test_each_stream_asks_for_an_offer_of_its_own(opened: Page, site: ScriptedSite) -> None:
    """Its token is for one stream: none is taken from a cache, whatever the answer says."""
    site.negotiation = answer(200, site.offer(), "Cache-Control: max-age=600")
    site.fast = WHOLE
    for _ in range(2):
        assert await chat(opened) == whole("fast")
    assert site.names == ["negotiation", "fast"] * 2


@pytest.mark.parametrize("path", PATHS)
async def test_body_is_sent_with_stream_true(opened: Page, site: ScriptedSite, path: str) -> None:
    """Whatever it said of that, and else as it is; as JSON."""
    use(site, path, WHOLE)
    await chat(opened, body={**BODY, "stream": False, "seed": 5})
    visit = site.visit(path)
    assert visit.json == {**BODY, "stream": True, "seed": 5}
    assert visit.fields["content-type"] == "application/json"


async def test_body_that_is_no_object_is_refused(opened: Page, site: ScriptedSite) -> None:
    """JSON already, above all: it would be taken apart into its letters."""
    found = await chat(opened, body=json.dumps(BODY))
    assert found.error is not None
    assert (found.error["name"], site.names) == ("TypeError", [])


BAD_OFFERS = {
    "not supported": answer(200, UNSUPPORTED),
    "404": answer(404, HELLO),
    "401": answer(401, {"error": {"message": "A key is needed."}}),
    "500": answer(500, b""),
    "no JSON": answer(200, b"<html>"),
    "empty": answer(200, b""),
    "null": answer(200, None),
    "a list": answer(200, [HELLO]),
    "no URL": answer(200, {**HELLO, "token": "t"}),
    "broken connection": hang_up,
    "an answer that is cut": stream(b'{"supported":', end=End.CUT, kind="application/json"),
}


@pytest.mark.parametrize("negotiation", BAD_OFFERS.values(), ids=BAD_OFFERS.keys())
async def test_without_an_offer_the_main_listener_streams(
    opened: Page, site: ScriptedSite, negotiation: Script
) -> None:
    """Silently, whatever the reason."""
    site.negotiation = negotiation
    assert await chat(opened) == whole("main")
    assert set(site.names) == {"negotiation", "main"}
    assert site.names.count("main") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"supported": "yes"},
        {"token": None},
        {"token": 5},
        {"token": ""},
        {"token": "a\nb"},
        {"token": "\u20ac"},
        {"stream_url": None},
        {"stream_url": ["http://127.0.0.1:1"]},
        {"stream_url": "/stream"},
        {"stream_url": "http://"},
        {"stream_url": "javascript:alert(1)"},
        {"stream_url": "data:text/event-stream,data: [DONE]%0A%0A"},
        {"stream_url": "http://user:secret@127.0.0.1:1/"},
        # A port that browsers never connect to, and one at which nobody listens.
        {"stream_url": "http://127.0.0.1:1/stream"},
        {"stream_url": "http://127.0.0.1:2/stream"},
    ],
    ids=str,
)
async def test_offer_that_cannot_be_used_leads_to_the_main_listener(
    opened: Page, site: ScriptedSite, changes: dict[str, object]
) -> None:
    """As if there were none."""
    site.negotiation = answer(200, site.offer(**changes))
    assert await chat(opened) == whole("main")
    assert site.names == ["negotiation", "main"]


async def redirect(visit: Visit) -> None:
    """Lead to another path, at which a whole stream is to be had."""
    script = WHOLE if visit.target == "/other" else answer(307, b"", "Location: /other")
    await script(visit)


REFUSED = {"error": {"code": 401, "message": "no", "type": "authentication_error"}}
BEFORE_THE_FIRST_BYTE = {
    "401": answer(401, REFUSED),
    "401 that the page may not read": answer(401, REFUSED, cors=False),
    "400": answer(400, {}),
    "429": answer(429, {}, "Retry-After: 1"),
    "500": answer(500, b"<html>", kind="text/html"),
    "503, and its body never ends": stream(b"{", end=End.STAYS_OPEN, status=503),
    "202": answer(202, data(ONE) + DONE, kind=EVENT_STREAM),
    "204": answer(204, b""),
    "a whole stream that the page may not read": answer(
        200, data(ONE) + DONE, kind=EVENT_STREAM, cors=False
    ),
    "a redirect": redirect,
    "another type": answer(200, b"<html>", kind="text/html"),
    "JSON": answer(200, {"choices": []}),
    "a type that only begins like it": answer(200, data(ONE) + DONE, kind="text/event-streams"),
    "an empty body": stream(),
    "a body that is cut before its first byte": stream(end=End.CUT),
    "a broken connection": hang_up,
}


@pytest.mark.parametrize("fast", BEFORE_THE_FIRST_BYTE.values(), ids=BEFORE_THE_FIRST_BYTE.keys())
async def test_failure_before_the_first_byte_leads_to_the_main_listener(
    opened: Page, site: ScriptedSite, fast: Script
) -> None:
    """Once, and silently: the page sees one whole stream."""
    site.fast = fast
    assert await chat(opened) == whole("main")
    # A browser itself sends a request again on another connection when one broke at once.
    assert list(dict.fromkeys(site.names)) == ["negotiation", "fast", "main"]
    assert (site.names.count("negotiation"), site.names.count("main")) == (1, 1)
    assert site.visit("main").json == {**BODY, "stream": True}


async def test_preflight_that_is_refused_leads_to_the_main_listener(
    opened: Page, site: ScriptedSite
) -> None:
    """The fast path did not even get the request."""
    site.preflight_status = 403
    assert await chat(opened) == whole("main")
    assert site.names == ["negotiation", "main"]


async def test_fast_path_that_is_left_is_left_at_once(opened: Page, site: ScriptedSite) -> None:
    """The server learns that nobody waits for the rest of what it answers."""
    site.fast = stream(b"{", end=End.STAYS_OPEN, status=503)
    assert await chat(opened) == whole("main")
    await site.visit("fast").wait_left()


async def test_question_where_the_fast_path_is_is_bounded_in_time(
    opened: Page, site: ScriptedSite
) -> None:
    """A black hole costs five seconds; the page's clock runs a hundred times faster here."""
    site.negotiation = silence
    bound = await opened.run('return (await import("/fastpath.js")).NEGOTIATION_TIMEOUT_MS')
    assert bound == 5000
    await hasten(opened)
    assert await chat(opened) == whole("main")
    await site.visit("negotiation").wait_left()


async def test_key_goes_to_the_main_listener_only(opened: Page, site: ScriptedSite) -> None:
    """And the token to the fast path only."""
    await chat(opened, options={"apiKey": "sk-1"})
    sent = {visit.name: visit.fields for visit in site.visits}
    assert sent["negotiation"]["authorization"] == sent["main"]["authorization"] == "Bearer sk-1"
    assert "authorization" not in sent["fast"]
    assert "x-stream-token" not in sent["negotiation"] | sent["main"]


async def test_headers_go_everywhere_but_for_credentials(opened: Page, site: ScriptedSite) -> None:
    """What identifies a request does; a key in a header is a key."""
    headers = {"X-Request-Id": "r9", "X-Api-Key": "sk-1", "Content-Type": "x/y"}
    await chat(opened, options={"headers": headers})
    sent = {visit.name: visit.fields for visit in site.visits}
    assert {fields["x-request-id"] for fields in sent.values()} == {"r9"}
    assert [name for name, fields in sent.items() if "x-api-key" in fields] == [
        "negotiation",
        "main",
    ]
    assert sent["main"]["content-type"] == "application/json"


@pytest.mark.parametrize("options", [{}, {"baseUrl": "{url}/"}], ids=["module", "baseUrl"])
async def test_page_of_another_origin_asks_the_one_that_served_the_module(
    page: Page, site: ScriptedSite, options: dict[str, str]
) -> None:
    """Unless it names another; a slash at the end makes no difference."""
    site.main = WHOLE
    await page.open(site.fast_url + "/page")
    given = {name: value.format(url=site.url) for name, value in options.items()}
    found = await chat(page, module=f"{site.url}/fastpath.js", options=given)
    assert found == whole("main")
