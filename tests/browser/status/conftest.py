"""A site that plays the proxy for each test, and the page of it, which must break no rule."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver

from tests.browser.status.view import StatusPage
from tests.fakes.status_site import StatusSite, status_site


@pytest.fixture(scope="package")
def shared_site() -> Iterator[StatusSite]:
    """One site for all tests, so that the browser reads the page's files once."""
    with status_site(max_age_s=600) as found:
        yield found


@pytest.fixture
def site(shared_site: StatusSite) -> StatusSite:
    """What the page is loaded from, and follows; nothing is left of the test before."""
    shared_site.reset()
    return shared_site


@pytest.fixture
def page(browser: WebDriver, site: StatusSite) -> Iterator[StatusPage]:
    """The page, not loaded yet; afterwards its policy has forbidden nothing and no code failed."""
    found = StatusPage(browser, site)
    try:
        yield found
        assert found.run("return window.troubles;") == []
    finally:
        found.forget()
