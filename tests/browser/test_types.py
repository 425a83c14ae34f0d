"""The module's types are those of the module."""

from __future__ import annotations

import re

from tests.browser.chat import chat
from tests.browser.chromium import Page
from tests.fakes.scripted_site import MODULE, ScriptedSite

TYPES = MODULE.with_suffix(".d.ts").read_text()


def members(name: str) -> set[str]:
    """Return the names of the properties that a class or an interface declares."""
    found = re.search(
        rf"export (?:declare class|interface) {name}\b.*?{{\n(.*?)\n}}", TYPES, re.DOTALL
    )
    assert found is not None, name
    return set(re.findall(r"^  (\w+)\??:", found[1], re.MULTILINE))


async def test_types_declare_what_the_module_exports(opened: Page) -> None:
    """Each name, and what kind of thing it is."""
    exported = await opened.run(
        """
        const kind = (value) => typeof value !== "function" ? "const"
            : /^class\\b/.test(String(value)) ? "class" : "function";
        const module = await import("/fastpath.js");
        return Object.fromEntries(Object.keys(module).map((name) => [name, kind(module[name])]));
        """
    )
    declared = re.findall(r"^export declare (const|class|function) (\w+)", TYPES, re.MULTILINE)
    assert {name: kind for kind, name in declared} == exported


async def test_types_declare_the_properties_of_what_is_handed_over(
    opened: Page, site: ScriptedSite
) -> None:
    """Of a result, an error and an event; no more and no fewer."""
    found = await chat(opened)
    assert found.result is not None
    assert members("StreamResult") == set(found.result)
    error, event = await opened.run(
        """
        const { EventParser, StreamError } = await import("/fastpath.js");
        const bytes = new TextEncoder().encode("data: x\\n\\n");
        const error = new StreamError("x", { type: "t", path: "fast" });
        return [Object.keys(error), Object.keys(new EventParser().feed(bytes)[0])];
        """
    )
    # An error has its name from us, and its other own properties from the platform.
    assert members("StreamError") == set(error) - {"name"}
    assert members("ParsedEvent") == set(event)
