"""A site that plays the proxy for each test, and the page of it, which must break no rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.status.view import StatusPage
from tests.fakes.status_site import StatusSite, status_site


@pytest.fixture
def site() -> Iterator[StatusSite]:
    """What the page is loaded from, and follows."""
    with status_site() as found:
        yield found


@pytest.fixture
def page(browser: WebDriver, site: StatusSite) -> Iterator[StatusPage]:
    """The page, not loaded yet; afterwards its policy has forbidden nothing and no code failed."""
    found = StatusPage(browser, site)
    try:
        yield found
        assert found.run("return window.troubles;") == []
    finally:
        found.forget()
