"""The documentation is complete: each option, route, error and end cause has its line in docs/.

What is asked for is read from the tables that the program itself uses: whoever adds to one of them
without writing about it is told here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import OPTIONS, Option
from proxy.core import routes
from proxy.core.causes import EndCause
from proxy.core.errors import HttpError

DOCS = Path(__file__).parents[1] / "docs"


def documented_lines() -> list[str]:
    """Every line of every page."""
    return [line for page in sorted(DOCS.glob("*.md")) for line in page.read_text().splitlines()]


def has_line_with(*words: str) -> bool:
    """Whether one line of the documentation has all of these words."""
    return any(all(word in line for word in words) for line in documented_lines())


def every_error() -> list[type[HttpError]]:
    """The errors that clients get, each once, in the order of their status."""
    found: set[type[HttpError]] = set()
    unseen = [HttpError]
    while unseen:
        unseen.extend(unseen.pop().__subclasses__())
        found.update(unseen)
    ours = (error for error in found if error.__module__.startswith("proxy."))
    return sorted(ours, key=lambda error: (error.status, error.__name__))


def every_route_label() -> list[str]:
    """The labels of every route that the proxy knows, ours and llama-server's."""
    plain = [route.label for route in routes._PLAIN.values()]
    return sorted({*plain, *(route.label for _, route in routes._PARAMETRISED)})


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option.name)
def test_option_in_the_table_has_its_line(option: Option) -> None:
    """Each option's flag and environment variable stand together on one line."""
    assert has_line_with(f"`{option.flag}", f"`{option.variable}`")


@pytest.mark.parametrize("label", every_route_label())
def test_route_in_the_table_has_its_line(label: str) -> None:
    """Each route that the proxy treats in its own way is named."""
    assert has_line_with(f"`{label}`") or has_line_with(f" {label}`")


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.__name__)
def test_error_that_clients_get_has_its_line(error: type[HttpError]) -> None:
    """Each status stands on one line with the type that its body has."""
    assert has_line_with(f"| {error.status} ", f"`{error.type}`")


@pytest.mark.parametrize("cause", list(EndCause))
def test_end_cause_has_its_line(cause: EndCause) -> None:
    """Each word that logs, metrics and replies use for an end is explained."""
    assert has_line_with(f"| `{cause.value}` |")
