"""The OpenAPI document."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.predictions.inputs import MEMBERS, Member
from proxy.core.predictions.openapi import openapi_document


def document() -> Any:
    """Return the document as a reader of JSON has it."""
    return json.loads(json.dumps(openapi_document("1.2")))


def test_document_says_that_predictions_can_be_streamed() -> None:
    """Where Cog says it."""
    assert document()["paths"]["/predictions"]["post"]["x-cog-streaming"] is True


def test_document_names_the_version() -> None:
    """The proxy's."""
    assert document()["info"] == {"title": "Cog", "version": "1.2"}


def test_document_has_every_route_of_predictions() -> None:
    """With their methods."""
    found = {path: set(methods) for path, methods in document()["paths"].items()}
    assert found == {
        "/health-check": {"get"},
        "/predictions": {"post"},
        "/predictions/{prediction_id}": {"get", "put"},
        "/predictions/{prediction_id}/cancel": {"post"},
    }


def test_document_has_no_reference_to_nothing() -> None:
    """Each schema that is referred to is there."""
    text = json.dumps(document())
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= document()["components"]["schemas"].keys()


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_document_has_each_member_of_the_input(member: Member) -> None:
    """With what is checked."""
    found = document()["components"]["schemas"]["Input"]["properties"][member.name]
    forms = found.get("anyOf", [found])
    assert tuple(form["type"] for form in forms) == member.types
    assert found.get("minimum") == member.minimum
    assert found.get("maximum") == member.maximum
    assert found["description"] == member.description


def test_document_has_the_output_as_an_iterator_of_text() -> None:
    """What tells Cog's tools that it comes in pieces, which belong together."""
    assert document()["components"]["schemas"]["Output"] == {
        "title": "Output",
        "type": "array",
        "items": {"type": "string"},
        "x-cog-array-type": "iterator",
        "x-cog-array-display": "concatenate",
    }
