"""Inputs that do not fit the model."""

from __future__ import annotations

import json

from tests.conformance import rows
from tests.conformance.case import Case, Differs, post, request
from tests.web.wire import Sent


def giving(**members: object) -> Sent:
    """Make a request with these members beside a prompt."""
    return post({"input": {"prompt": "hello", **members}})


def listed(member: str, words: str) -> dict[str, object]:
    """Say what is wrong with one member."""
    detail = [{"loc": ["body", "input", member], "msg": words, "type": "value_error"}]
    return {"body": json.dumps({"detail": detail}, separators=(",", ":"))}


NO_TOOLS = "The output is text, which cannot carry tool calls: use /v1/chat/completions."

CASES = (
    Case("prompt_that_is_a_number_is_refused", request(giving(prompt=5))),
    Case("prompt_that_is_null_is_refused", request(giving(prompt=None))),
    Case("input_that_is_a_list_is_refused", request(post({"input": [1]}))),
    Case("input_that_is_a_text_is_refused", request(post({"input": "s"}))),
    Case("input_that_is_null_lacks_what_is_required", request(post({"input": None})), pair="slots"),
    Case("input_that_is_empty_lacks_what_is_required", request(post({"input": {}})), pair="slots"),
    Case("body_that_is_empty_lacks_what_is_required", request(post({})), pair="slots"),
    Case(
        "request_without_a_body_lacks_what_is_required",
        request(Sent("POST", "/predictions")),
        pair="slots",
    ),
    Case("whole_number_with_a_fraction_is_refused", request(giving(max_tokens=1.5))),
    Case("whole_number_that_is_written_as_a_fraction_is_taken", request(giving(max_tokens=1.0))),
    Case("whole_number_that_is_true_is_refused", request(giving(max_tokens=True))),
    Case("number_below_its_minimum_is_refused", request(giving(max_tokens=-2))),
    Case("number_above_its_maximum_is_refused", request(giving(top_p=2))),
    Case("fraction_below_its_minimum_is_refused", request(giving(temperature=-0.5))),
    Case("list_that_is_a_text_is_refused", request(post({"input": {"messages": "x"}}))),
    Case(
        "list_with_an_element_of_another_type_is_refused",
        request(post({"input": {"messages": [1]}})),
    ),
    Case("object_that_is_a_list_is_refused", request(giving(json_schema=[]))),
    Case(
        "member_of_two_types_that_has_neither_is_refused",
        request(giving(stop=5)),
        (Differs(rows.TWO_TYPES, listed("stop", '5 is not of types "array", "string"')),),
    ),
    Case(
        "mistakes_in_several_members_are_all_told",
        request(giving(prompt=[], max_tokens="x", seed=None)),
    ),
    Case(
        "mistake_and_a_member_that_is_missing_are_both_told",
        request(post({"input": {"max_tokens": "x"}})),
        pair="slots",
    ),
    Case(
        "value_that_is_long_is_quoted_in_part",
        request(giving(max_tokens="x" * 300)),
        (
            Differs(
                rows.WHOLE_VALUE, listed("max_tokens", f'"{"x" * 199}... is not of type "integer"')
            ),
        ),
    ),
    Case("member_that_the_model_does_not_know_is_taken", request(giving(nobody="knows"))),
    Case(
        "tools_are_refused",
        request(giving(tools=[{"type": "function"}])),
        (Differs(rows.STRIPS, {"status": 422, **listed("tools", NO_TOOLS)}),),
    ),
)
