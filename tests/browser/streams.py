"""What a scripted site streams to `streamChat`, and what is to come of it."""

from __future__ import annotations

import json

from tests.browser.chat import Outcome
from tests.fakes.scripted_site import Script, ScriptedSite, answer, stream

PATHS = ["fast", "main"]
ONE, TWO = {"n": 1, "text": "gr\u00fc\u00df"}, {"n": 2}
DONE = b"data: [DONE]\n\n"


def data(value: object) -> bytes:
    """Return an event with JSON."""
    return b"data: " + json.dumps(value, ensure_ascii=False).encode() + b"\n\n"


WHOLE = stream(data(ONE), data(TWO), DONE, fields=("X-Request-Id: r1",))


def whole(path: str) -> Outcome:
    """Return what becomes of a call that gets `WHOLE` on a path."""
    return Outcome([ONE, TWO], {"path": path, "finished": True, "requestId": "r1"})


def use(site: ScriptedSite, path: str, script: Script) -> None:
    """Let a stream take a path, and be answered there by `script`."""
    if path == "main":
        site.negotiation = answer(200, {"supported": False})
    setattr(site, path, script)


def asked_for(path: str) -> list[str]:
    """Return who is asked when a stream takes a path at the first attempt."""
    return ["negotiation", path]
