"""How the page looks: in both schemes and at both widths, for every reader, at full speed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.browser.status.scenes import broken, busy, history
from tests.browser.status.view import StatusPage
from tests.fakes.status_scenes import exchange, snapshot
from tests.fakes.status_site import StatusSite

AXE = (Path(__file__).parent / "vendor" / "axe-core" / "axe.min.js").read_text()

# What is seen of each text, in boxes that are cut by whatever scrolls or hides around them. An open
# dialog lies on the rest on purpose: then only it counts.
_TEXTS = """
const root = document.querySelector("dialog[open]") ?? document.body;
const shown = (node, { left, right, top, bottom }) => {
    for (let up = node; up && up !== document.documentElement; up = up.parentElement) {
        const { overflowX, overflowY } = getComputedStyle(up);
        if (overflowX === "visible" && overflowY === "visible") continue;
        const frame = up.getBoundingClientRect();
        left = Math.max(left, frame.left);
        right = Math.min(right, frame.right);
        top = Math.max(top, frame.top);
        bottom = Math.min(bottom, frame.bottom);
    }
    return { left, right, top, bottom };
};
const texts = [];
const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
    const { currentNode: node } = walker;
    const parent = node.parentElement;
    const isSeen = parent.checkVisibility() && !parent.closest(".unseen, .skip");
    if (!isSeen || node.data.trim() === "") continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    for (const rect of range.getClientRects()) {
        const box = shown(parent, rect);
        if (box.right - box.left > 1 && box.bottom - box.top > 1) {
            texts.push({ ...box, parent, text: node.data.slice(0, 40) });
        }
    }
}
"""

# Lines of one text may touch; two texts may not.
_OVERLAPS = (
    _TEXTS
    + """
const found = [];
for (const [index, one] of texts.entries()) {
    for (const other of texts.slice(index + 1)) {
        const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        const isOver = across > 1 && down > 2;
        if (isOver && one.parent !== other.parent) found.push([one.text, other.text]);
    }
}
return found;
"""
)

# What is wider than its place, but where it scrolls or is shortened with dots; texts beyond a side.
_OVERFLOWS = (
    _TEXTS
    + """
const found = texts.filter(({ left, right }) => left < 0 || right > innerWidth + 1)
    .map(({ text }) => `beyond: ${text}`);
if (document.documentElement.scrollWidth > innerWidth) found.push("the page scrolls sideways");
for (const node of root.querySelectorAll("*:not(.unseen, .skip)")) {
    const { overflowX, textOverflow, display } = getComputedStyle(node);
    const may = overflowX === "auto" || textOverflow === "ellipsis" || display === "inline";
    const { scrollWidth, clientWidth } = node;
    if (!may && clientWidth > 0 && scrollWidth > clientWidth + 1) {
        found.push(`${node.tagName} ${node.id || node.className}: ${scrollWidth} > ${clientWidth}`);
    }
}
return found;
"""
)

_SERIOUS = """
const done = arguments[arguments.length - 1];
const isSerious = ({ impact }) => impact === "serious" || impact === "critical";
axe.run(document, { resultTypes: ["violations"] }).then(
    ({ violations }) => done(violations.filter(isSerious)
        .map(({ id, nodes }) => [id, nodes.map((node) => node.html.slice(0, 120))])),
    (error) => done(String(error)),
);
"""


def show_busy(page: StatusPage, site: StatusSite) -> None:
    """Every slot is taken."""
    site.status(busy())
    page.open()


def show_numbers_only(page: StatusPage, site: StatusSite) -> None:
    """The same without content."""
    site.status(busy("none"))
    page.open()


def show_trouble(page: StatusPage, site: StatusSite) -> None:
    """llama-server has failed, a command was refused, and then the proxy is gone."""
    site.status(broken())
    page.open()
    site.refuse(503, "llama-server has failed: it ended 3 times within 60 s.")
    page.click("#engine-restart")
    page.click("dialog[open] [value=yes]")
    page.wait('document.querySelector("#failure").checkVisibility()')
    site.is_gone = True
    site.close_streams()
    page.wait_text("#link-state", "Server is gone.")


def show_key_dialog(page: StatusPage, site: StatusSite) -> None:
    """A key is asked for, and nothing else is known."""
    site.require_key("k")
    page.load()
    page.wait('document.querySelector("#key-dialog").open')


def show_question(page: StatusPage, site: StatusSite) -> None:
    """Somebody is about to cancel."""
    show_busy(page, site)
    page.click(".cancel")


Scene = Callable[[StatusPage, StatusSite], None]
LOOKS = [("light", 360), ("dark", 1600), ("dark", 360), ("light", 1600)]
# The fullest scene in every look, the others in each scheme and at each width once.
SCENES: list[tuple[Scene, str, int]] = [
    *[(show_busy, *look) for look in LOOKS],
    *[(show_numbers_only, *look) for look in LOOKS[:2]],
    *[(show_trouble, *look) for look in LOOKS[2:]],
    *[(show_key_dialog, *look) for look in LOOKS[:2]],
    *[(show_question, *look) for look in LOOKS[2:]],
]


@pytest.mark.parametrize(
    ("scene", "scheme", "width"), SCENES, ids=lambda value: getattr(value, "__name__", None)
)
def test_page_is_whole_and_accessible(
    page: StatusPage, site: StatusSite, scene: Scene, scheme: str, width: int
) -> None:
    """No text lies on another or is beyond an edge, and axe-core finds nothing serious."""
    page.look(scheme, width)
    scene(page, site)
    page.run("scrollTo(0, 0);")
    assert page.run(_OVERLAPS) == []
    assert page.run(_OVERFLOWS) == []
    page.run(AXE)
    assert page.driver.execute_async_script(_SERIOUS) == []


def heights(page: StatusPage) -> Any:
    """Return where every card and panel is."""
    return page.all(".card, .panel, section", "JSON.stringify(node.getBoundingClientRect())")


@pytest.mark.parametrize("width", [360, 1600])
def test_nothing_moves_while_tokens_stream(page: StatusPage, site: StatusSite, width: int) -> None:
    """From the first thought to the last word, whatever the numbers are."""
    page.look("light", width)
    begun = exchange(text="", thought="", completion_tokens=0, tags=["stream", "thinking"])
    site.status(snapshot(begun))
    page.open()
    before = heights(page)
    site.token("r1", "Hm. " * 200, "thought")
    for _ in range(20):
        site.token("r1", "And so on. " * 100)
    going = {"completion_tokens": 31_072, "elapsed_s": 754.2, "tokens_per_second": 1234.5}
    site.status(snapshot(begun | going | {"text": None, "thought": None, "acceptance": 0.5}))
    page.wait("document.querySelector('.stream.text').textContent.includes('Only the last')")
    page.wait("document.querySelector('.leg.decode + *, .stats').textContent.includes('31,072')")
    assert heights(page) == before


def test_first_card_takes_the_place_of_the_empty_list(page: StatusPage, site: StatusSite) -> None:
    """What is below stays where it is."""
    page.look("light", 1600)
    page.open()
    place = "document.querySelector('#rates-title').getBoundingClientRect().top"
    before = page.run(f"return {place};")
    site.status(snapshot(exchange(text="x", tags=["stream"])))
    page.wait_count(".card", 1)
    assert page.run(f"return {place};") == before


def test_motion_is_reduced_where_somebody_wants_that(page: StatusPage, site: StatusSite) -> None:
    """Nothing is animated."""
    site.status(snapshot(exchange(parameters={"max_tokens": None})))
    for wanted, running in (("no-preference", 1), ("reduce", 0)):
        page.prefer("prefers-reduced-motion", wanted)
        page.open()
        animations = "document.getAnimations().filter((each) => each.animationName).length"
        assert page.run(f"return {animations};") == running


@contextmanager
def streaming(site: StatusSite, *request_ids: str) -> Iterator[None]:
    """Stream three thousand tokens a second to each, in batches as the proxy's, with reports."""
    over = threading.Event()

    def stream() -> None:
        batch = "".join(f"tok{number} " for number in range(120)) + "\n" + "and " * 30
        number = 0
        while not over.wait(0.05):
            number += 1
            for request_id in request_ids:
                site.token(request_id, batch)
            if number % 5 == 0:
                speeds = [exchange(name, tokens_per_second=3000.0 + number) for name in request_ids]
                site.status(snapshot(*speeds, perf_history=history(50)))

    thread = threading.Thread(target=stream)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


_WINDOW_MS = """
const [frames, done] = arguments;
const start = performance.now();
let number = 0;
const count = () => (++number > frames ? done(performance.now() - start)
    : requestAnimationFrame(count));
requestAnimationFrame(count);
"""


def test_four_streams_at_full_speed_leave_thirty_frames_a_second(
    page: StatusPage, site: StatusSite
) -> None:
    """Once the texts are as long as they get; a busy machine gets some more tries."""
    names = ["a", "b", "c", "d"]
    full = "word " * 4000
    site.status(snapshot(*[exchange(name, text=full) for name in names], perf_history=history(50)))
    page.look("light", 1600)
    page.open()
    frames = 60
    windows: list[float] = []
    with streaming(site, *names):
        page.wait_count(".stream.text .cut:not([hidden])", 4)
        while len(windows) < 8 and min(windows, default=frames) >= frames / 30:
            windows.append(page.driver.execute_async_script(_WINDOW_MS, frames) / 1000)
    assert min(windows) < frames / 30
