"""The connection: its states, its way back, and the key."""

from __future__ import annotations

import re

from tests.browser.status.view import HASTEN, StatusPage, card
from tests.fakes.status_scenes import ended, engine, exchange, snapshot
from tests.fakes.status_site import StatusSite

EVENTS = "/status/events"


def test_stream_that_ends_is_opened_again(page: StatusPage, site: StatusSite) -> None:
    """By itself; the page is as it was, with what happened meanwhile."""
    page.add(HASTEN)
    site.status(snapshot(exchange(text="before")))
    page.open()
    site.is_gone = True
    site.close_streams()
    page.wait_text("#link-state", "Server is gone.")
    site.status(snapshot(exchange(text="before and after")))
    site.is_gone = False
    page.wait_text("#link-state", "Live")
    page.wait_text(card("r1", ".stream.text .body"), "before and after")
    assert page.all("#stale") == []


def test_server_that_is_gone_is_told_with_the_time_of_what_is_shown(
    page: StatusPage, site: StatusSite
) -> None:
    """The countdown is not announced, the change is; a button does not wait for it."""
    site.status(snapshot(exchange()))
    page.open()
    site.is_gone = True
    site.close_streams()
    page.wait_text("#link-state", "Server is gone.")
    assert re.fullmatch(r"Trying again in \d+ s", page.text("#link-countdown"))
    assert page.all('[role="status"]', "node.id") == ["link-state"]
    assert re.fullmatch(r"What is below is as it was at [\d:]+\.", page.text("#stale"))
    assert len(page.all(".card")) == 1
    site.is_gone = False
    page.click("#link-retry")
    page.wait_text("#link-state", "Live")
    assert page.all("#link-countdown, #link-retry", "node.textContent") == [""]


def test_pauses_grow_to_fifteen_seconds(page: StatusPage, site: StatusSite) -> None:
    """Give or take a fifth."""
    page.add(
        """
        window.pauses = [];
        const later = setTimeout;
        window.setTimeout = (call, delay) => {
            if (delay < 40000) pauses.push(delay);
            return later(call, delay / 1000);
        };
        """
    )
    site.is_gone = True
    page.load()
    page.wait("pauses.length >= 7")
    pauses = page.run("return pauses.slice(0, 7);")
    for pause, usual in zip(pauses, (1000, 2000, 4000, 8000, 15000, 15000, 15000), strict=True):
        assert 0.79 * usual < pause < 1.21 * usual


def test_stream_that_falls_silent_is_taken_for_dead(page: StatusPage, site: StatusSite) -> None:
    """After two heartbeats and a half."""
    page.add(
        """
        const later = setTimeout;
        window.setTimeout = (call, delay) => later(call, delay > 30000 ? 50 : delay);
        """
    )
    page.load()
    page.wait_text("#link-state", "Server is gone.")
    assert site.asked.get(timeout=5) == ("GET", EVENTS, None)


def test_proxy_that_was_restarted_has_lost_what_ran(page: StatusPage, site: StatusSite) -> None:
    """Its end was seen by nobody: no cause is made up."""
    page.add(HASTEN)
    site.status(snapshot(exchange()))
    page.open()
    site.is_gone = True
    site.close_streams()
    page.wait_text("#link-state", "Server is gone.")
    site.status(snapshot(perf_history=[ended("another")], total_requests=0))
    site.is_gone = False
    page.wait_text("#ends", "/v1/chat/completions ended: Cause unknown.")


def test_events_are_read_however_they_are_cut(page: StatusPage, site: StatusSite) -> None:
    """Comments, split characters and split lines are no matter."""
    site.status(snapshot(exchange(text="")))
    page.open()
    event = (
        'event: token\r\ndata: {"request_id":"r1","text":"gr\u00fc\u00df","kind":"text"}\r\n\r\n'
    )
    for byte in (": heartbeat\n\n" + event).encode():
        site.raw(bytes([byte]))
    page.wait_text(card("r1", ".stream.text .body"), "gr\u00fc\u00df")


def test_server_that_is_loading_is_told(page: StatusPage, site: StatusSite) -> None:
    """With the model's progress; it is neither gone nor ready."""
    site.status(snapshot(engine=engine("starting")))
    page.open()
    assert page.text("#link-state") == "Live, loading the model"
    assert page.all("#engine-progress", "node.ariaValueNow") == ["43"]
    site.status(snapshot())
    page.wait_text("#link-state", "Live")
    assert page.all("#engine-progress") == []


def test_refusal_while_loading_is_told_as_such(page: StatusPage, site: StatusSite) -> None:
    """A proxy before this one answers so."""
    site.refuse(503, "Loading model")
    page.load()
    page.wait_text("#link-state", "Loading the model.")


def test_other_refusal_is_told_in_the_words_of_the_server(
    page: StatusPage, site: StatusSite
) -> None:
    """And tried again."""
    site.refuse(429, "Too many viewers.")
    page.load()
    page.wait_text("#link-state", "Too many viewers.")
    assert len(page.all("#link-retry")) == 1


def test_key_is_asked_for_and_sent_in_a_header_only(page: StatusPage, site: StatusSite) -> None:
    """Then it is kept for this tab: with the next load, and for what the page asks for."""
    site.require_key("s3cret")
    site.status(snapshot(exchange()))
    page.load()
    page.wait('document.querySelector("#key-dialog").open')
    assert page.text("#link-state") == "Key needed"
    page.type("#key-input", " s3cret\n")
    page.wait_count(".card", 1)
    page.load()
    page.wait_count(".card", 1)
    page.click(".cancel")
    page.click("dialog[open] [value=yes]")
    asked = [site.asked.get(timeout=5) for _ in range(4)]
    bearer = "Bearer s3cret"
    assert asked == [
        ("GET", EVENTS, None),
        ("GET", EVENTS, bearer),
        ("GET", EVENTS, bearer),
        ("DELETE", "/proxy/exchanges/r1", bearer),
    ]
    assert page.run("return [location.href, document.cookie];") == [site.url, ""]
    assert "s3cret" not in page.run("return document.documentElement.outerHTML;")


def test_key_that_is_refused_is_asked_for_again(page: StatusPage, site: StatusSite) -> None:
    """It says which of the two it is."""
    site.require_key("right")
    page.load()
    page.wait('document.querySelector("#key-dialog").open')
    page.type("#key-input", "wrong\n")
    page.wait_text("#link-state", "Key refused")
    page.wait('document.querySelector("#key-dialog").open')
    assert page.text("#key-text") == "The server refused this key."
    page.type("#key-input", "right\n")
    page.wait_text("#link-state", "Live")


def test_key_that_is_no_admin_key_is_told_so(page: StatusPage, site: StatusSite) -> None:
    """Whoever does not have one can close the question, and ask for it again."""
    site.refuse(403)
    page.load()
    page.wait('document.querySelector("#key-dialog").open')
    assert page.text("#link-state") == "Needs an admin key"
    page.click("#key-cancel")
    assert page.all("dialog[open]") == []
    page.click("#key-enter")
    assert len(page.all("dialog[open]")) == 1


def test_key_that_no_header_can_carry_is_not_taken(page: StatusPage, site: StatusSite) -> None:
    """It says why, and the question stays."""
    site.require_key("right")
    page.load()
    page.wait('document.querySelector("#key-dialog").open')
    page.type("#key-input", "sch\u00f6n\n")
    assert page.run('return document.querySelector("#key-input").validationMessage;') == (
        "A key has no spaces and no letters beyond ASCII."
    )
    page.type("#key-input", "\ue009a\ue000right\n")
    page.wait_text("#link-state", "Live")


def test_key_can_be_forgotten(page: StatusPage, site: StatusSite) -> None:
    """Then there is none in the tab, and it is asked for."""
    site.require_key("right")
    page.load()
    page.wait('document.querySelector("#key-dialog").open')
    assert page.all("#key-forget") == []
    page.type("#key-input", "right\n")
    page.wait_text("#link-state", "Live")
    page.click("#key-forget")
    page.wait_text("#link-state", "Key needed")
    assert page.run("return sessionStorage.length;") == 0
