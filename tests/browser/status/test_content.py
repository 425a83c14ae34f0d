"""What streams in: as text, bounded, and where its reader has it."""

from __future__ import annotations

import pytest

from tests.browser.status.view import StatusPage, card
from tests.fakes.status_scenes import exchange, snapshot
from tests.fakes.status_site import StatusSite

MARKUP = '<img src=x onerror="troubles.push(1)"><script>troubles.push(2)</script><b>&amp;</b>'
BODY = card("r1", ".stream.text .body")


def test_tokens_continue_the_text_so_far(page: StatusPage, site: StatusSite) -> None:
    """Who comes late sees both; text and thoughts are apart."""
    site.status(snapshot(exchange(text="So ", thought="Hm")))
    page.open()
    site.token("r1", "m.", "thought")
    site.token("r1", "far\nand ")
    site.token("r1", "on.")
    page.wait_text(BODY, "So far\nand on.")
    assert page.text(card("r1", ".stream.thought .body")) == "Hmm."


def test_reports_without_text_leave_it_alone(page: StatusPage, site: StatusSite) -> None:
    """Only the first of a connection has it."""
    site.status(snapshot(exchange(text="kept", prompt="asked")))
    page.open()
    site.status(snapshot(exchange(completion_tokens=99)))
    page.wait('[...document.querySelectorAll(".leg-value")].at(-1).textContent === "99 of 512"')
    assert page.text(BODY) == "kept"
    assert page.run('return document.querySelector(".stream.prompt").textContent;') == "asked"


def test_tokens_of_nobody_are_dropped(page: StatusPage, site: StatusSite) -> None:
    """Their exchange is not known."""
    site.status(snapshot(exchange(text="")))
    page.open()
    site.token("unknown", "lost")
    site.token("r1", "seen")
    page.wait_text(BODY, "seen")


def test_thoughts_can_be_folded_away(page: StatusPage, site: StatusSite) -> None:
    """And stay so while more come; without any there is nothing to fold."""
    site.status(snapshot(exchange(text="x", thought="")))
    page.open()
    assert page.all(".fold") == []
    site.token("r1", "Hm", "thought")
    page.wait('document.querySelector(".stream.thought").checkVisibility()')
    page.click(".fold:not([hidden]) summary")
    site.token("r1", "m", "thought")
    page.wait_text(".stream.thought .body", "Hmm")
    assert page.all(".fold", "node.open") == [False]


def test_output_that_is_markup_stays_text(page: StatusPage, site: StatusSite) -> None:
    """Wherever something from outside is shown; the page's fixture sees what it would do."""
    named = exchange(
        MARKUP, text=MARKUP, thought=MARKUP, prompt=MARKUP, key=MARKUP, session=MARKUP, model=MARKUP
    )
    site.status(snapshot(named, tasks={"name": MARKUP, "children": []}))
    page.open()
    site.token(MARKUP, MARKUP)
    page.wait_text(".stream.text .body", MARKUP * 2)
    assert page.text(".stream.thought .body") == MARKUP
    assert page.text(".task-name") == MARKUP
    assert page.all("main img, main script, main b", "1") == []


def test_text_is_cut_at_its_front_and_says_so(page: StatusPage, site: StatusSite) -> None:
    """The last 20,000 characters at most, and no half of one."""
    site.status(snapshot(exchange(text="")))
    page.open()
    for number in range(45):
        site.token("r1", f"{number:03}" + "\U0001f426" * 249 + "x")
    page.wait("document.querySelector(arguments[0]).textContent.includes('044')", BODY)
    text = page.text(BODY)
    units = len(text.encode("utf-16-le")) // 2
    assert 17_000 < units <= 20_000
    assert text[0] in "0123456789x\U0001f426"
    assert text.endswith("044" + "\U0001f426" * 249 + "x")
    assert page.text(card("r1", ".stream.text .cut")) == (
        "Only the last 20,000 characters are shown."
    )


def test_text_that_was_cut_before_anybody_looked_says_so(
    page: StatusPage, site: StatusSite
) -> None:
    """The server keeps no more than it must either."""
    site.status(snapshot(exchange(text="the end of it", text_cut=True)))
    page.open()
    assert len(page.all(card("r1", ".stream.text .cut"))) == 1


def test_text_is_copied_as_it_is(page: StatusPage, site: StatusSite) -> None:
    """However the page divides it: no line more, and none less."""
    text = "\n\n".join(f"{number} " + "word " * number for number in range(60)) + "\n\n\nend"
    site.status(snapshot(exchange(text=text)))
    page.open()
    assert page.run("return document.querySelector(arguments[0]).children.length;", BODY) > 3
    copied = """
        getSelection().selectAllChildren(document.querySelector(arguments[0]));
        return getSelection().toString();
    """
    assert page.run(copied, BODY) == text


def lines(start: int, end: int) -> str:
    """Return some lines."""
    return "".join(f"line {number}\n" for number in range(start, end))


def test_box_follows_its_text(page: StatusPage, site: StatusSite) -> None:
    """Its end stays in sight."""
    site.status(snapshot(exchange(text=lines(0, 100))))
    page.open()
    site.token("r1", lines(100, 150))
    page.wait(
        "((box) => box.textContent.includes('line 149')"
        " && box.scrollTop + box.clientHeight >= box.scrollHeight - 1)"
        "(document.querySelector('.stream.text'))"
    )


@pytest.mark.parametrize("rounds", [1, 12], ids=["short", "cut meanwhile"])
def test_box_whose_reader_scrolled_up_stays_there(
    page: StatusPage, site: StatusSite, rounds: int
) -> None:
    """Also where the text is cut at its front: the same line is at the same place."""
    site.status(snapshot(exchange(text=lines(1000, 2000))))
    page.open()
    page.run(
        """
        const box = document.querySelector(".stream.text");
        box.scrollTop = box.scrollHeight - 4000;
        window.above = () => box.scrollHeight - box.scrollTop;
        """
    )
    # The browser tells of scrolling with the next frame.
    page.driver.execute_async_script(
        "requestAnimationFrame(() => requestAnimationFrame(arguments[0]));"
    )
    before = page.run("return [above(), document.querySelector('.stream.text').scrollHeight];")
    for number in range(rounds):
        site.token("r1", lines(2000 + 100 * number, 2100 + 100 * number))
    last = f"line {1999 + 100 * rounds}"
    page.wait("document.querySelector('.stream.text').textContent.includes(arguments[0])", last)
    line_height = before[1] / 1000.0
    moved = page.run("return above();") - before[0]
    assert moved == pytest.approx(100 * rounds * line_height, rel=0.02)


def test_content_none_says_so_and_why(page: StatusPage, site: StatusSite) -> None:
    """And shows no empty boxes."""
    site.status(snapshot(exchange(), content="none"))
    page.open()
    assert "--status-content full" in page.text("#content-note")
    assert page.all(".card .output") == []
    site.status(snapshot(exchange(text="")))
    page.wait('document.querySelector(".card .output").checkVisibility()')
    assert page.all("#content-note") == []
