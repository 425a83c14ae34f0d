"""The panels: engine, capacity, proxy, and what has ended."""

from __future__ import annotations

from tests.browser.status.view import StatusPage
from tests.fakes.status_scenes import NOW, ended, engine, exchange, snapshot
from tests.fakes.status_site import StatusSite


def test_engine_crash_and_restart_are_shown(page: StatusPage, site: StatusSite) -> None:
    """The state, how it ended, how often it was restarted, what it said last."""
    page.open()
    facts = page.facts("#engine-facts")
    assert facts.pop("Up").startswith("1 h 10 m")
    assert facts == {
        "Model": "tiny-instruct",
        "Slots": "4",
        "Restarts": "0",
        "Start": "no. 1",
        "Process": "4711",
        "Last end": "none",
    }
    crash = engine("crashed", last_exit="killed by SIGSEGV", log=["first", "last words"])
    site.status(snapshot(engine=crash))
    page.wait_text("#engine-state", "crashed")
    assert page.text("#link-state") == "Live, llama-server is crashed"
    assert page.text("#engine-log") == "first\nlast words"
    assert page.facts("#engine-facts")["Last end"] == "killed by SIGSEGV"
    site.status(snapshot(engine=engine(restarts=1, generation=2, uptime_s=0.2)))
    page.wait_text("#engine-state", "ready")
    facts = page.facts("#engine-facts")
    assert (facts["Restarts"], facts["Start"], facts["Up"]) == ("1", "no. 2", "0 s")


def test_engine_that_failed_says_why(page: StatusPage, site: StatusSite) -> None:
    """In its own words."""
    failed = engine("failed", failure="It crashed 3 times in 60 s.", model=None, slots=None)
    site.status(snapshot(engine=failed))
    page.open()
    assert page.text("#engine-failure") == "It crashed 3 times in 60 s."
    assert page.facts("#engine-facts")["Slots"] == "\u2013"


def test_restart_asks_and_then_tells_the_server(page: StatusPage, site: StatusSite) -> None:
    """No does nothing."""
    page.open()
    site.asked.get(timeout=5)
    page.click("#engine-restart")
    page.click("dialog[open] [value=no]")
    page.wait_count("dialog[open]", 0)
    page.click("#engine-restart")
    page.click("dialog[open] [value=yes]")
    assert site.asked.get(timeout=5) == ("POST", "/proxy/restart", None)
    assert site.asked.empty()


def test_engine_that_is_not_ours_cannot_be_restarted(page: StatusPage, site: StatusSite) -> None:
    """It says so in the button's place."""
    site.status(snapshot(engine=engine(managed=False)))
    page.open()
    assert page.all("#engine-restart") == []
    assert len(page.all("#engine-unmanaged")) == 1


def test_log_follows_its_end(page: StatusPage, site: StatusSite) -> None:
    """The last line is in sight."""
    page.open()
    assert page.run(
        """
        const log = document.querySelector("#engine-log");
        return log.scrollHeight > log.clientHeight
            && log.scrollTop + log.clientHeight >= log.scrollHeight - 1;
        """
    )


def test_capacity_shows_gates_tokens_and_predictions(page: StatusPage, site: StatusSite) -> None:
    """One meter for each gate; with router mode each has its model's name."""
    site.status(snapshot(exchange(), exchange("q", phase="queued")))
    page.open()
    assert page.text(".gate-head .number") == "1 of 4 taken, 1 queued"
    assert page.all(".gate [role=meter]", "node.ariaValueNow") == ["1"]
    gates = [
        {"model": "a", "permits": 2, "admitted": 2, "queued": 5},
        {"model": "b", "permits": None, "admitted": 0, "queued": 0},
    ]
    predictions = {"starting": 0, "processing": 1, "succeeded": 1234, "failed": 2, "canceled": 0}
    tokens = {"waiting": 3, "running": 1}
    site.status(snapshot(gates=gates, predictions=predictions, stream_tokens=tokens))
    page.wait_count(".gate", 2)
    assert page.all(".gate-head") == [
        "a2 of 2 taken, 5 queued",
        "b0 of any number taken, 0 queued",
    ]
    assert page.facts("#predictions")["Succeeded"] == "1,234"
    assert page.facts("#stream-tokens") == {"Waiting": "3", "Running": "1"}


def test_proxy_panel_shows_what_the_proxy_takes(page: StatusPage, site: StatusSite) -> None:
    """In units for people; what is not known is a dash."""
    page.open()
    assert page.facts("#proxy-facts") == {
        "Version": "1.0.0",
        "Up": "1 d 01 h",
        "Memory": "58.5 MiB",
        "Tasks": "9",
        "Connections": "3",
        "Viewers": "1",
    }
    site.status(snapshot(proxy=snapshot()["proxy"] | {"rss_bytes": None, "viewers": 2}))
    page.wait('document.querySelector("#proxy-facts").lastChild.lastChild.textContent === "2"')
    assert page.facts("#proxy-facts")["Memory"] == "\u2013"


def test_charts_show_the_latest_and_say_the_highest(page: StatusPage, site: StatusSite) -> None:
    """A full cache hit is nothing prefilled, and an exchange without a draft has no acceptance."""
    hit = ended("c", prefill_tokens_per_second=0, acceptance=None, ended_at=NOW + 2)
    site.status(snapshot(perf_history=[ended("a"), ended("b", ended_at=NOW + 1), hit]))
    page.open()
    assert page.all(".chart-value") == ["0", "41.7", "\u2013"]
    assert page.all(".chart [role=img]", "node.ariaLabel") == [
        "Prefill, tok/s: latest 0, highest 812, of 3 exchanges",
        "Decode, tok/s: latest 41.7, highest 41.7, of 3 exchanges",
        "Draft tokens accepted: latest 71 %, highest 71 %, of 2 exchanges",
    ]


def test_charts_draw_in_the_colours_of_the_scheme(page: StatusPage, site: StatusSite) -> None:
    """Also when it changes while they are shown."""
    site.status(snapshot(perf_history=[ended(str(number)) for number in range(50)]))
    page.look("light", 1600)
    page.open()
    colours = """((canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        const found = new Set();
        for (let at = 0; at < data.length; at += 4) {
            if (data[at + 3] === 255) found.add(data.slice(at, at + 3).join());
        }
        return found;
    })(document.querySelectorAll(".chart canvas")[1])"""
    page.wait(f'{colours}.has("11,122,107")')
    page.look("dark", 1600)
    page.wait(f'{colours}.has("76,201,176")')
    assert not page.run(f'return {colours}.has("11,122,107");')


def test_table_has_the_latest_first_and_keeps_its_rows(page: StatusPage, site: StatusSite) -> None:
    """A row is never made again."""
    first = [ended("a"), ended("b", "upstream_crashed", ended_at=NOW + 1)]
    site.status(snapshot(perf_history=first))
    page.open()
    assert page.all("#history .cause") == ["Upstream crashed", "Finished"]
    assert page.all("#history tr:last-child td")[3:] == [
        "812",
        "41.7",
        "512 + 230",
        "71 %",
        "440 ms",
        "6.1 s",
    ]
    page.run('document.querySelector("#history tr").id = "same";')
    site.status(snapshot(perf_history=[*first, ended("c", ended_at=NOW + 2)]))
    page.wait_count("#history tr", 3)
    assert page.all("#history tr", "node.id") == ["", "same", ""]


def test_sparkline_draws_the_live_rate(page: StatusPage, site: StatusSite) -> None:
    """A line of what was reported."""
    site.status(snapshot(exchange()))
    page.open()
    for speed in (40.0, 44.0, 38.0):
        site.status(snapshot(exchange(tokens_per_second=speed)))
    page.wait(
        """((canvas) => canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
            .data.some((value) => value > 0))(document.querySelector(".spark canvas"))"""
    )
    page.wait_text(".card .stats dd", "38.0")
