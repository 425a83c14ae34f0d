"""What browser tests share: one browser for all of them, a page of it, and a site for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.chromium import Page, chromium
from tests.browser.streams import WHOLE
from tests.fakes.scripted_site import ScriptedSite, scripted_site


@pytest.fixture(scope="package")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """Chromium, started by the first test of this folder and ended after the last."""
    with chromium(tmp_path_factory.mktemp("chromium")) as driver:
        yield driver


@pytest.fixture
def page(browser: WebDriver) -> Page:
    """The browser's page; it shows the last test's document until it is opened."""
    return Page(browser)


@pytest.fixture
async def site() -> AsyncIterator[ScriptedSite]:
    """A site of two listeners that answers as the test says."""
    async with scripted_site() as found:
        yield found


@pytest.fixture
async def opened(page: Page, site: ScriptedSite) -> Page:
    """The page, at the site's origin; the site's main listener answers a whole stream."""
    site.main = WHOLE
    await page.open(site.url)
    return page
