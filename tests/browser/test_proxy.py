"""A page, the module and a real proxy: the fast path as a browser sees it.

`/livez` is the page here: any document of the origin will do, and this one needs no key.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

import proxy
from proxy import EndCause
from proxy.core.keyring import ApiKey
from tests.browser.chat import Outcome, abort, begin, chat, first_event, outcome
from tests.browser.chromium import Page, PageError
from tests.conftest import Running
from tests.fakes.scripted_site import ScriptedSite
from tests.promises.observe import FREE_WITHIN_S, idle_after_s, until

SHORT = {"messages": [{"role": "user", "content": "Hi."}], "max_tokens": 8, "ignore_eos": True}
ENDLESS = {**SHORT, "max_tokens": 1_000_000}
KEY = ApiKey.from_text("sk-page", name="page")

Causes = Callable[[], list[EndCause]]


@pytest.fixture
def causes(caplog: pytest.LogCaptureFixture) -> Causes:
    """Return why the exchanges that generate ended, in this process so far."""
    caplog.set_level("INFO", "proxy.exchange")

    def found() -> list[EndCause]:
        ended = [each.__dict__ for each in caplog.records if each.name == "proxy.exchange"]
        return [EndCause(each["cause"]) for each in ended if each["method"] == "POST"]

    return found


@asynccontextmanager
async def running_with(**options: Any) -> AsyncIterator[Running]:
    """Run an engine and a proxy with options."""
    async with (
        proxy.open_llama_server() as engine,
        proxy.open_proxy(engine, port=0, drain_s=5, **options) as server,
    ):
        yield Running(engine, server)


def text_of(found: Outcome) -> str:
    """Return the text that the events had."""
    choices = (choice for event in found.events for choice in event["choices"])
    return "".join(choice["delta"].get("content") or "" for choice in choices)


def is_whole(found: Outcome, path: str) -> bool:
    """Tell whether a call got all of its text, on a path."""
    return found.result is not None and found.result["path"] == path and bool(text_of(found))


async def test_page_of_the_proxys_own_streams_on_the_fast_path(
    page: Page, running: Running, causes: Causes
) -> None:
    """Another port is another origin to a browser; it is let through."""
    await page.open(f"{running.url}/livez")
    assert is_whole(await chat(page, body=SHORT), "fast")
    await until(lambda: causes() == [EndCause.FINISHED])


async def test_page_of_a_listed_origin_streams_on_the_fast_path(
    page: Page, site: ScriptedSite
) -> None:
    """With the module that the proxy serves."""
    async with running_with(cors_origins=(site.url,)) as running:
        await page.open(site.url)
        found = await chat(page, module=f"{running.url}/fastpath.js", body=SHORT)
    assert is_whole(found, "fast")


async def test_page_of_another_origin_gets_neither_module_nor_stream(
    page: Page, running: Running, site: ScriptedSite, causes: Causes
) -> None:
    """Also with a module of its own: nothing is generated."""
    await page.open(site.url)
    with pytest.raises(PageError, match="TypeError"):
        await begin(page, module=f"{running.url}/fastpath.js")
    found = await chat(page, body=SHORT, options={"baseUrl": running.url})
    assert not found.unlike(path="main", type="network_error")
    assert (found.events, causes()) == ([], [])


async def test_page_without_a_key_gets_the_module_but_no_stream(page: Page) -> None:
    """A browser sends no key with a module; the stream needs one, which is said."""
    async with running_with(api_keys=(KEY,)) as running:
        await page.open(f"{running.url}/livez")
        refused = await chat(page, body=SHORT)
        assert not refused.unlike(path="main", type="authentication_error", code=401)
        assert is_whole(await chat(page, body=SHORT, options={"apiKey": "sk-page"}), "fast")


async def test_proxy_without_a_fast_path_streams_on_its_main_listener(page: Page) -> None:
    """The page sees no difference."""
    async with running_with(fast_port=None) as running:
        await page.open(f"{running.url}/livez")
        assert is_whole(await chat(page, body=SHORT), "main")


async def test_request_that_is_wrong_is_reported_in_the_servers_words(
    page: Page, running: Running
) -> None:
    """llama-server's, with the request id that the proxy's log has."""
    await page.open(f"{running.url}/livez")
    found = await chat(page, body={"messages": 5})
    assert not found.unlike(path="main", code=400, type="invalid_request_error")
    assert found.error is not None
    assert found.error["requestId"]


async def test_abort_frees_the_slot(page: Page, running: Running, causes: Causes) -> None:
    """Within 250 ms, as for any client that leaves."""
    await page.open(f"{running.url}/livez")
    await begin(page, body=ENDLESS)
    await first_event(page)
    await abort(page)
    assert await idle_after_s(running.engine) < FREE_WITHIN_S
    assert not (await outcome(page)).unlike(name="AbortError")
    await until(lambda: causes() == [EndCause.CLIENT_DISCONNECTED])


async def test_page_that_is_left_frees_the_slot(
    page: Page, running: Running, causes: Causes
) -> None:
    """Nobody has to call anything."""
    await page.open(f"{running.url}/livez")
    await begin(page, body=ENDLESS)
    await first_event(page)
    await page.open("about:blank")
    assert await idle_after_s(running.engine) < FREE_WITHIN_S
    await until(lambda: causes() == [EndCause.CLIENT_DISCONNECTED])


async def test_fast_listener_that_is_killed_in_the_middle_is_an_error_and_nothing_is_repeated(
    page: Page, running: Running, causes: Causes
) -> None:
    """The model has spoken; the main listener, which lives, is not asked to say it again."""
    await page.open(f"{running.url}/livez")
    await begin(page, body=ENDLESS)
    await first_event(page)
    running.server._guards[1].abort()
    found = await outcome(page)
    assert not found.unlike(path="fast", type="network_error")
    await until(lambda: running.server.in_flight == 0)
    assert len(causes()) == 1


async def test_cancel_by_the_operator_is_told_in_the_stream(page: Page, running: Running) -> None:
    """The error event with its type, code and request id."""
    await page.open(f"{running.url}/livez")
    await begin(page, body=ENDLESS)
    await first_event(page)
    running.server._backend.exchanges.end_all(EndCause.CANCELLED_BY_ADMIN)
    found = await outcome(page)
    assert not found.unlike(path="fast", type="unavailable_error", code=503)
    assert found.error is not None
    assert found.error["requestId"]
