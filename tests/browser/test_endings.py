"""How the page ends a stream: by its signal, in every phase, and by its handler."""

from __future__ import annotations

import pytest

from tests.browser.chat import abort, begin, chat, first_event, outcome
from tests.browser.chromium import Page
from tests.browser.streams import DONE, ONE, PATHS, TWO, WHOLE, asked_for, data, use
from tests.fakes.scripted_site import (
    End,
    Script,
    ScriptedSite,
    silence,
    stream,
)

# Counts what runs and listens, and how much of it there ever was.
_COUNT = """
const counts = { timers: 0, listeners: 0, most: 0 };
const count = (target, name, what, by) => {
    const real = target[name];
    target[name] = function (...given) {
        counts[what] += by;
        counts.most = Math.max(counts.most, counts.timers + counts.listeners);
        return real.apply(this, given);
    };
};
count(window, "setTimeout", "timers", 1);
count(window, "clearTimeout", "timers", -1);
count(AbortSignal.prototype, "addEventListener", "listeners", 1);
count(AbortSignal.prototype, "removeEventListener", "listeners", -1);
window.counts = counts;
"""

PHASES = {
    "negotiation": ("negotiation", silence),
    "negotiation, half answered": (
        "negotiation",
        stream(b"{", end=End.STAYS_OPEN, kind="application/json"),
    ),
    "fast, before the head": ("fast", silence),
    "fast, before the first byte": ("fast", stream(end=End.STAYS_OPEN)),
    "main, before the head": ("main", silence),
    "main, before the first byte": ("main", stream(end=End.STAYS_OPEN)),
    "main, in an error's body": ("main", stream(b"{", end=End.STAYS_OPEN, status=500)),
}


@pytest.mark.parametrize(("name", "script"), PHASES.values(), ids=PHASES.keys())
async def test_abort_before_the_first_byte_ends_the_request_at_the_server(
    opened: Page, site: ScriptedSite, name: str, script: Script
) -> None:
    """Whatever is under way; nothing else is asked instead."""
    if name in PATHS:
        use(site, name, script)
    else:
        site.negotiation = script
    await begin(opened)
    visit = await site.wait_asked(name)
    await abort(opened)
    await visit.wait_left()
    found = await outcome(opened)
    assert (found.unlike(name="AbortError"), found.events) == ({}, [])
    assert site.visits[-1] is visit


@pytest.mark.parametrize("path", PATHS)
async def test_abort_in_the_middle_ends_the_stream_at_the_server(
    opened: Page, site: ScriptedSite, path: str
) -> None:
    """And is no failure of the stream's."""
    use(site, path, stream(data(ONE), end=End.STAYS_OPEN))
    await begin(opened)
    await first_event(opened)
    await abort(opened)
    await site.visit(path).wait_left()
    found = await outcome(opened)
    assert (found.unlike(name="AbortError"), found.events) == ({}, [ONE])
    assert site.names == asked_for(path)


async def test_call_with_a_signal_that_is_aborted_asks_nobody(
    opened: Page, site: ScriptedSite
) -> None:
    """It is rejected at once."""
    name = await opened.run(
        """
        const { streamChat } = await import("/fastpath.js");
        return streamChat({}, { signal: AbortSignal.abort() }).catch((error) => error.name);
        """
    )
    assert (name, site.names) == ("AbortError", [])


@pytest.mark.parametrize("reason", ["'enough'", "new TypeError('x')", "null"])
async def test_abort_is_an_abort_error_whatever_its_reason(
    opened: Page, site: ScriptedSite, reason: str
) -> None:
    """Callers look at the name."""
    site.fast = silence
    await begin(opened)
    await site.wait_asked("fast")
    await abort(opened, reason)
    found = await outcome(opened)
    assert not found.unlike(name="AbortError")


async def test_abort_by_an_event_keeps_back_what_came_with_it(
    opened: Page, site: ScriptedSite
) -> None:
    """Whoever has had enough gets no more, and no clean end either."""
    site.fast = stream(data(ONE) + data(TWO) + DONE)
    found = await chat(opened, on_event="chat.stop.abort()")
    assert (found.unlike(name="AbortError"), found.events) == ({}, [ONE])


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "on_event",
    ["throw new RangeError('no more')", "return Promise.reject(new RangeError('no more'))"],
    ids=["throws", "rejects"],
)
async def test_handler_that_fails_ends_the_stream_and_the_call(
    opened: Page, site: ScriptedSite, path: str, on_event: str
) -> None:
    """With its own error; the server learns of it, and nothing is repeated."""
    use(site, path, stream(data(ONE) + data(TWO), end=End.STAYS_OPEN))
    found = await chat(opened, on_event=on_event)
    await site.visit(path).wait_left()
    assert found.error is not None
    assert (found.error["name"], found.error["message"]) == ("RangeError", "no more")
    assert (found.events, site.names) == ([ONE], asked_for(path))


async def test_handler_that_takes_its_time_gets_one_event_at_a_time(
    opened: Page, site: ScriptedSite
) -> None:
    """The next event waits for its promise."""
    site.fast = stream(data(ONE) + data(TWO), DONE)
    slow = """
        chat.busy = (chat.busy ?? 0) + 1;
        if (chat.busy > 1) throw new Error("two at a time");
        return new Promise((resolve) => setTimeout(() => { chat.busy -= 1; resolve(); }));
    """
    assert (await chat(opened, on_event=slow)).events == [ONE, TWO]


@pytest.mark.parametrize("path", PATHS)
async def test_call_that_has_ended_leaves_nothing_in_the_page(
    opened: Page, site: ScriptedSite, path: str
) -> None:
    """No timer runs on, and the signal, which may live for long, holds nothing of it."""
    await opened.run(_COUNT)
    use(site, path, WHOLE)
    assert (await chat(opened)).result is not None
    assert await opened.run("return counts") == {"timers": 0, "listeners": 0, "most": 2}


async def test_call_without_a_handler_waits_for_the_end(opened: Page, site: ScriptedSite) -> None:
    """Options are optional."""
    result = await opened.run('return (await import("/fastpath.js")).streamChat({ messages: [] });')
    assert result == {"path": "main", "finished": True, "requestId": "r1"}
