"""Chromium, headless, and the code that a test runs in a page of it.

Owns the browser's start and end, and the one way in: `Page.open` an origin, then `Page.run` code in
it. What a test asks of a page is JavaScript with arguments; what comes back is JSON.

The driver's calls block, so each runs in a thread. None blocks for ever: the browser gives code
that does not end up after `PATIENCE_S`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import trio
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

# What a busy machine may need for what takes milliseconds; reached only by a test that fails.
PATIENCE_S = 15.0

# Without a sandbox, for tests may run as root, and load pages of their own only. The rest is what
# a browser would do beside them: ask its maker for updates, or a proxy for the way.
_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)

# The last argument is WebDriver's: it ends the script with a value.
_RUN = """
const [code, names, values, done] = arguments;
const AsyncFunction = (async () => {}).constructor;
Promise.resolve()
    .then(() => new AsyncFunction(...names, code)(...values))
    .then((value) => done({ value }), (error) => done({ error: String(error) }));
"""


class PageError(Exception):
    """The code that ran in a page threw; the message has what."""


@contextmanager
def chromium(profile: Path) -> Iterator[WebDriver]:
    """Run a browser of our own while the block runs.

    Args:
        profile: An empty folder for what it keeps.
    """
    options = Options()
    options.binary_location = _program("chromium")
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    driver = WebDriver(options, Service(_program("chromedriver")))
    try:
        driver.set_script_timeout(PATIENCE_S)
        driver.set_page_load_timeout(PATIENCE_S)
        yield driver
    finally:
        driver.quit()


def _program(name: str) -> str:
    found = shutil.which(name)
    assert found, (
        f"{name} is not on PATH. Install it (on Debian: apt install chromium chromium-driver)."
    )
    return found


class Page:
    """The browser's page, which shows one document at a time.

    Args:
        driver: The browser.
    """

    def __init__(self, driver: WebDriver) -> None:
        self._driver = driver

    async def open(self, url: str) -> None:
        """Show the document at `url`; the one before is gone, with its requests."""
        await trio.to_thread.run_sync(self._driver.get, url)

    async def run(self, code: str, **arguments: Any) -> Any:
        """Run the body of an async function in the page, and return what it returns.

        Args:
            code: The body. It may `import()` modules, and keep what it needs later in `window`.
            arguments: Its arguments by name, of JSON.

        Raises:
            PageError: It threw.
        """
        call = partial(
            self._driver.execute_async_script,
            _RUN,
            code,
            list(arguments),
            list(arguments.values()),
        )
        found = await trio.to_thread.run_sync(call)
        if "error" in found:
            raise PageError(found["error"])
        return found["value"]
