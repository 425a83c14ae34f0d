"""The cards: an exchange on its way through queue, prefill and decode, and how it ends."""

from __future__ import annotations

from selenium.webdriver.common.keys import Keys

from tests.browser.status.view import StatusPage, card
from tests.fakes.status_scenes import NOW, ended, exchange, snapshot
from tests.fakes.status_site import StatusSite

CAUSES = {
    "finished": "good",
    "client_disconnected": "calm",
    "client_too_slow": "bad",
    "upstream_error": "bad",
    "upstream_crashed": "bad",
    "token_expired": "bad",
    "token_revoked": "calm",
    "superseded": "calm",
    "deadline_exceeded": "bad",
    "queue_timeout": "bad",
    "cancelled_by_admin": "calm",
    "cancelled_by_client": "calm",
    "shutting_down": "calm",
    "internal_error": "bad",
}


def values(page: StatusPage) -> list[str]:
    """Return what the three parts of the only card's bar say."""
    return page.all(".leg-value")


def test_idle_page_says_that_nothing_runs(page: StatusPage) -> None:
    """No card, and a sentence in its place."""
    page.open()
    assert page.all(".card") == []
    assert page.text("#live-empty").startswith("Nothing is running.")
    assert page.facts("#figures")["Phase"] == "Idle"


def test_queued_exchange_shows_its_place(page: StatusPage, site: StatusSite) -> None:
    """And moves up with each report."""
    site.status(snapshot(exchange(phase="queued", position=3)))
    page.open()
    assert page.text(".card .badge") == "Queued"
    assert values(page)[0] == "place 3"
    site.status(snapshot(exchange(phase="queued", position=2)))
    page.wait_text(".leg-value", "place 2")
    assert page.facts("#figures")["Queued"] == "1"


def test_prefill_shows_how_much_is_processed_and_cached(page: StatusPage, site: StatusSite) -> None:
    """In words, in the bar, and to who cannot see it."""
    progress = {"total": 8192, "processed": 4096, "cached": 1024}
    site.status(snapshot(exchange(phase="prefill", progress=progress)))
    page.open()
    assert values(page) == ["12 ms", "4,096 of 8,192", "\u2013"]
    assert page.facts(".card .stats")["Cached"] == "1,024"
    parts = page.all(".leg.prefill .fill", 'node.style.getPropertyValue("--part")')
    assert parts == ["0.5", "0.125"]
    bar = '[role="progressbar"][aria-label="Progress"]'
    assert page.all(bar, "node.ariaValueText") == ["Prefill, 4,096 of 8,192"]
    assert page.all(bar, "node.ariaValueNow") == ["50"]


def test_decode_shows_tokens_and_rates(page: StatusPage, site: StatusSite) -> None:
    """Live, with the first token's time and the draft's acceptance."""
    site.status(snapshot(exchange(completion_tokens=256, acceptance=0.711)))
    page.open()
    assert values(page)[1:] == ["640", "256 of 512"]
    facts = page.facts(".card .stats")
    del facts["Elapsed"]
    assert facts == {
        "tok/s": "43.2",
        "First token": "420 ms",
        "Tokens": "256",
        "Cached": "128",
        "Accepted": "71 %",
    }


def test_decode_without_a_bound_is_a_bar_of_unknown_length(
    page: StatusPage, site: StatusSite
) -> None:
    """It goes on, and nobody knows how far."""
    site.status(snapshot(exchange(parameters={"max_tokens": None})))
    page.open()
    assert page.all(".leg.decode[data-unknown]", "1") == [1]
    assert page.all('.legs[role="progressbar"]', "node.ariaValueNow") == [None]


def test_card_tells_what_was_asked_and_by_whom(page: StatusPage, site: StatusSite) -> None:
    """Model, request id, key, session, parameters and features."""
    asked = exchange(key="alice", session="s1", tags=["stream", "cache_hit", "speculative"])
    site.status(snapshot(asked))
    page.open()
    assert page.text(".route") == "/v1/chat/completions"
    assert page.text(".who") == "tiny-instruct \u00b7 r1 \u00b7 key alice \u00b7 session s1"
    wanted = ["max 512", "temperature 0.7", "top-p 0.95", "top-k 40", "tools 2"]
    assert page.text(".parameters").split(" \u00b7 ") == wanted
    assert page.all(".tags li") == ["stream", "cache hit", "speculative"]


def test_exchanges_are_in_order_of_arrival(page: StatusPage, site: StatusSite) -> None:
    """One card for each, also where a client uses an id twice."""
    site.status(snapshot(exchange("b"), exchange("a"), exchange("a", phase="queued")))
    page.open()
    assert page.all(".card", "node.dataset.exchange") == ["b", "a", "a (2)"]


def test_end_is_told_on_the_card_by_its_cause(page: StatusPage, site: StatusSite) -> None:
    """Whichever it is, and whether it is anybody's fault; with the history's numbers."""
    site.status(snapshot(*map(exchange, CAUSES)))
    page.open()
    site.status(snapshot(perf_history=[ended(cause, cause) for cause in CAUSES]))
    page.wait_count(".card[data-ended]", len(CAUSES))
    told = [cause.replace("_", " ").capitalize() for cause in CAUSES]
    assert page.all(".card .badge") == told
    assert page.all(".card .badge", "node.dataset.tone") == list(CAUSES.values())
    assert page.all("#history .cause") == told[::-1]
    assert page.facts(card("finished", ".stats"))["Elapsed"] == "6.1 s"


def test_ends_are_told_aloud(page: StatusPage, site: StatusSite) -> None:
    """One by its route and cause; many at once by their number."""
    site.status(snapshot(*map(exchange, "abcd")))
    page.open()
    site.status(snapshot(*map(exchange, "bcd"), perf_history=[ended("a", "queue_timeout")]))
    page.wait_text("#ends", "/v1/chat/completions ended: Queue timeout.")
    site.status(snapshot())
    page.wait_text("#ends", "3 exchanges ended.")


def test_end_that_is_being_told_shows_its_cause_at_once(page: StatusPage, site: StatusSite) -> None:
    """Before the history has it, and also while its phase is still another."""
    late = exchange("late", cause="cancelled_by_admin")
    site.status(snapshot(exchange(phase="ended", cause="queue_timeout", status=503), late))
    page.open()
    assert page.all(".card .badge") == ["Queue timeout (503)", "Cancelled by admin"]
    assert page.facts("#figures")["Running"] == "0"


def test_card_goes_ten_seconds_after_the_end(page: StatusPage, site: StatusSite) -> None:
    """By itself."""
    site.status(snapshot(exchange()))
    page.open()
    page.wait_count(".card", 1)
    site.status(snapshot(perf_history=[ended("r1")]))
    page.wait_count(".card[data-ended]", 1)
    page.skip(11)
    page.wait_count(".card", 0)
    assert len(page.all("#live-empty")) == 1


def test_card_whose_reader_is_in_it_stays(page: StatusPage, site: StatusSite) -> None:
    """Until the focus leaves it."""
    site.status(snapshot(exchange("a", text="x"), exchange("b")))
    page.open()
    page.wait_count(".card", 2)
    page.run("document.querySelector(arguments[0]).focus();", card("a", ".stream.text"))
    site.status(snapshot(perf_history=[ended("a"), ended("b")]))
    page.wait_count(".card[data-ended]", 2)
    page.skip(11)
    page.wait_count(card("b"), 0)
    assert page.run("return document.activeElement.className;") == "stream text"
    page.run("document.activeElement.blur();")
    page.wait_count(".card", 0)


def test_card_that_was_cancelled_goes_and_leaves_the_focus_at_its_list(
    page: StatusPage, site: StatusSite
) -> None:
    """Its button has the focus after the question; nobody is thrown back to the page's top."""
    site.status(snapshot(exchange()))
    page.open()
    page.click(".cancel")
    page.click("dialog[open] [value=yes]")
    site.status(snapshot(perf_history=[ended("r1", "cancelled_by_admin")]))
    page.wait_count(".card[data-ended]", 1)
    page.skip(11)
    page.wait_count(".card", 0)
    assert page.run("return document.activeElement.id;") == "live-title"


def test_exchange_with_the_id_of_one_that_ended_gets_a_card_of_its_own(
    page: StatusPage, site: StatusSite
) -> None:
    """With nothing left of the other."""
    site.status(snapshot(exchange(text="old")))
    page.open()
    page.wait_text(card("r1", ".stream.text .body"), "old")
    site.status(snapshot(perf_history=[ended("r1")]))
    page.wait_count(".card[data-ended]", 1)
    site.status(snapshot(exchange(started_at=NOW + 1, text=""), perf_history=[ended("r1")]))
    page.wait_count(".card:not([data-ended])", 1)
    assert page.all(".card .stream.text .body") == [""]


def test_cancel_asks_and_then_tells_the_server(page: StatusPage, site: StatusSite) -> None:
    """No is the answer that is offered first, and Escape is one; yes ends this one and no other."""
    site.status(snapshot(exchange("a/b c"), exchange("other")))
    page.open()
    site.asked.get(timeout=5)
    page.click(card("a/b c", ".cancel"))
    assert page.run("return document.activeElement.value;") == "no"
    page.click("dialog[open] [value=no]")
    page.wait_count("dialog[open]", 0)
    assert page.run("return document.activeElement.className;") == "cancel"
    page.click(card("a/b c", ".cancel"))
    page.type("dialog[open] [value=no]", Keys.ESCAPE)
    page.wait_count("dialog[open]", 0)
    page.click(card("a/b c", ".cancel"))
    page.click("dialog[open] [value=yes]")
    assert site.asked.get(timeout=5) == ("DELETE", "/proxy/exchanges/a%2Fb%20c", None)
    assert site.asked.empty()


def test_cancel_that_comes_too_late_is_no_failure(page: StatusPage, site: StatusSite) -> None:
    """The exchange had ended by itself; what else goes wrong is told."""
    site.status(snapshot(exchange()))
    page.open()
    for status, shown in ((404, []), (403, ["Not with this key."])):
        site.refuse(status, "Not with this key.")
        page.click(card("r1", ".cancel"))
        page.click("dialog[open] [value=yes]")
        page.wait_count("dialog[open]", 0)
        if shown:
            page.wait_text("#failure", shown[0])
        assert page.all("#failure") == shown
