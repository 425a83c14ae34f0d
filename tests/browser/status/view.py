"""The status page in a browser, and what a test looks at in it.

Conditions are JavaScript expressions in the page; a test waits for one and never for a time.
"""

from __future__ import annotations

from typing import Any

from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.chromium import PATIENCE_S
from tests.fakes.status_site import StatusSite

# Kept from the first line of the page on: what its policy forbade, and what went wrong in it.
_WATCH = """
window.troubles = [];
const keep = (text) => window.troubles.push(String(text));
document.addEventListener("securitypolicyviolation",
    (event) => keep(`${event.violatedDirective} ${event.blockedURI}`));
addEventListener("error", (event) => keep(event.message), true);
addEventListener("unhandledrejection", (event) => keep(event.reason));
"""

# The page waits a hundredth of the time, for what takes seconds in it.
HASTEN = """
const timeout = setTimeout;
window.setTimeout = (call, delay) => timeout(call, delay / 100);
"""

# The page's clock can be put forward: by `skip`.
_CLOCK = """
window.skipped = 0;
const time = performance.now.bind(performance);
performance.now = () => time() + window.skipped;
"""

_POLL_S = 0.02


class StatusPage:
    """The page.

    Args:
        driver: The browser.
        site: What it is loaded from.
    """

    def __init__(self, driver: WebDriver, site: StatusSite) -> None:
        self.driver = driver
        self.site = site
        self._added: list[str] = []
        self._emulates = False
        self.add(_WATCH + _CLOCK)

    def add(self, source: str) -> None:
        """Run code in every page that is opened from now on, before its own."""
        added = self.cdp("Page.addScriptToEvaluateOnNewDocument", source=source)
        self._added.append(added["identifier"])

    def skip(self, seconds: float) -> None:
        """Let so much time have passed in the page."""
        self.run("window.skipped += 1000 * arguments[0];", seconds)

    def forget(self) -> None:
        """Leave the browser as it was."""
        for identifier in self._added:
            self.cdp("Page.removeScriptToEvaluateOnNewDocument", identifier=identifier)
        if self._emulates:
            self.cdp("Emulation.setEmulatedMedia", features=[])
            self.cdp("Emulation.clearDeviceMetricsOverride")
        self.run("sessionStorage.clear();")
        self.driver.get("about:blank")

    def cdp(self, command: str, **arguments: Any) -> Any:
        """Tell the browser something that WebDriver has no word for."""
        return self.driver.execute_cdp_cmd(command, arguments)

    def look(self, scheme: str, width: int) -> None:
        """Show what is opened from now on in a colour scheme, and in a window of a width."""
        self.prefer("prefers-color-scheme", scheme)
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, feature: str, value: str) -> None:
        """Have somebody with a preference look, as style sheets know it."""
        self._emulates = True
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": feature, "value": value}])

    def open(self) -> None:
        """Load the page, and wait for its first report."""
        self.load()
        # What a report's drawing ends with.
        self.wait('document.querySelector("#proxy-facts").children.length > 0')

    def load(self) -> None:
        """Load the page."""
        self.driver.get(self.site.url)

    def run(self, code: str, *arguments: Any) -> Any:
        """Run code in the page; it gets `arguments` and returns JSON."""
        return self.driver.execute_script(code, *arguments)

    def all(self, selector: str, what: str = "node.textContent") -> list[Any]:
        """Return something of every `node` that is shown."""
        return self.run(
            f"""return [...document.querySelectorAll(arguments[0])]
                .filter((node) => node.checkVisibility({{ visibilityProperty: true }}))
                .map((node) => {what});""",
            selector,
        )

    def text(self, selector: str) -> str:
        """Return the text of the only element that is shown and matches."""
        (found,) = self.all(selector)
        return str(found)

    def facts(self, selector: str) -> dict[str, str]:
        """Return the names and values of a list."""
        pairs = self.all(f"{selector} > div", "[...node.children].map((part) => part.textContent)")
        return dict(pairs)

    def wait(self, condition: str, *arguments: Any) -> Any:
        """Wait until an expression is true in the page, and return it."""
        return WebDriverWait(self.driver, PATIENCE_S, _POLL_S).until(
            lambda driver: driver.execute_script(f"return {condition};", *arguments),
            f"Never so: {condition}",
        )

    def wait_text(self, selector: str, text: str) -> None:
        """Wait until an element says exactly this."""
        self.wait(
            "document.querySelector(arguments[0])?.textContent === arguments[1]", selector, text
        )

    def wait_count(self, selector: str, number: int) -> None:
        """Wait until there are so many elements."""
        self.wait(
            "document.querySelectorAll(arguments[0]).length === arguments[1]", selector, number
        )

    def click(self, selector: str) -> None:
        """Click where an element is."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def type(self, selector: str, keys: str) -> None:
        """Type into an element."""
        self.driver.find_element(By.CSS_SELECTOR, selector).send_keys(keys)


def card(request_id: str, inside: str = "") -> str:
    """Return the selector of the card of an exchange, or of something inside of it."""
    return f'[data-exchange="{request_id}"] {inside}'.rstrip()
