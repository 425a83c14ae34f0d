"""One call of `streamChat` in a page: begun, aborted, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tests.browser.chromium import Page

BODY = {"messages": [{"role": "user", "content": "Hi."}]}

# What is called `chat` in the page stays there, for what is asked of it later.
_BEGIN = """
const { streamChat } = await import(module);
const chat = { stop: new AbortController(), events: [] };
chat.began = new Promise((resolve) => { chat.begin = resolve; });
const react = new Function("event", "chat", onEvent);
chat.ended = streamChat(body, {
    signal: chat.stop.signal,
    onEvent: (event) => {
        chat.events.push(event);
        chat.begin();
        return react(event, chat);
    },
    ...options,
}).then(
    (result) => ({ result }),
    ({ name, message, type, code, requestId, path }) =>
        ({ error: { name, message, type, code, requestId, path } }),
);
window.chat = chat;
"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call.

    Attributes:
        events: What `onEvent` got.
        result: What the call resolved with; None if it was rejected.
        error: The properties of what it was rejected with; None if it resolved.
    """

    events: list[Any]
    result: dict[str, Any] | None = None
    error: dict[str, Any] | None = None

    def unlike(self, **wanted: object) -> dict[str, object]:
        """Return the properties of the error that are not as wanted; its name is `StreamError`."""
        found = self.error or {}
        named = {"name": "StreamError", **wanted}
        return {name: found.get(name) for name in named if found.get(name) != named[name]}


async def begin(
    page: Page,
    *,
    module: str = "/fastpath.js",
    body: object = None,
    on_event: str = "",
    options: dict[str, object] | None = None,
) -> None:
    """Call `streamChat` in a page, and do not wait for it.

    Args:
        page: The page; one call at a time.
        module: The module's URL.
        body: What is streamed; `BODY` unless given.
        on_event: What to do with each event, as the body of a function of `event` and `chat`.
        options: More options.
    """
    given = BODY if body is None else body
    await page.run(_BEGIN, module=module, body=given, onEvent=on_event, options=options or {})


async def first_event(page: Page) -> None:
    """Wait until the call has handed over an event."""
    await page.run("await chat.began")


async def abort(page: Page, reason: str = "undefined") -> None:
    """Abort the call, for a reason in JavaScript."""
    await page.run(f"chat.stop.abort({reason})")


async def outcome(page: Page) -> Outcome:
    """Wait for the call's end."""
    return Outcome(**await page.run("return { ...await chat.ended, events: chat.events }"))


async def hasten(page: Page) -> None:
    """Let the page's clock run a hundred times faster, for what takes seconds on it."""
    await page.run(
        "const real = setTimeout; window.setTimeout = (call, time) => real(call, time / 100);"
    )


async def chat(page: Page, **how: Any) -> Outcome:
    """Call `streamChat`, as `begin` does, and wait for its end."""
    await begin(page, **how)
    return await outcome(page)
