"""Bodies that are no request, and what is taken for one."""

from __future__ import annotations

import json

from tests.conformance import rows
from tests.conformance.case import ID, Case, Differs, post, prompt, put, request
from tests.web.wire import Sent

ID_RULE = "an id is 1 to 128 letters, digits, dots, dashes and underscores, not . or .."
ONE_OF_THEM = "expected one of `start`, `output`, `logs`, `completed`"
PRIVATE = "URL leads to this machine or a private network, which is not allowed"
# What is answered where all is well.
TAKEN = {
    "status": 200,
    "content-type": "application/json",
    "body": '{"id":"MADE","logs":"","metrics":{"predict_time":TIME},'
    '"output":["t0 ","t1 ","t2 ","t3 ","t4 "],"status":"succeeded"}',
}
WELL = b'{"input":{"prompt":"hello"}}'


def of_type(content_type: str | None, body: bytes | None = WELL, *fields: str) -> Sent:
    """Make a request with a body of some type."""
    types = () if content_type is None else (f"Content-Type: {content_type}",)
    return Sent("POST", "/predictions", (*types, *fields), body)


def said(words: str) -> dict[str, object]:
    """Say what is wrong with JSON, in other words than Cog's."""
    return {"body": f"Failed to parse the request body as JSON: {words}"}


def listed(place: str, words: str, root: str = "body") -> dict[str, object]:
    """Say what is wrong with a request, as a list."""
    where = [root, place] if place else [root]
    detail = [{"loc": where, "msg": words, "type": "value_error"}]
    body = json.dumps({"detail": detail}, separators=(",", ":"))
    return {"content-type": "application/json", "body": body}


def refused(place: str, words: str, root: str = "body") -> dict[str, object]:
    """Say it where Cog has another status."""
    return {"status": 422, **listed(place, words, root)}


CASES = (
    Case(
        "body_that_is_no_json_is_refused",
        request(post(b"{bad")),
        (
            Differs(
                rows.RUST,
                said("Expecting property name enclosed in double quotes at line 1 column 2"),
            ),
        ),
    ),
    Case(
        "body_that_is_empty_and_said_to_be_json_is_refused",
        request(post(b"")),
        (Differs(rows.RUST, said("Expecting value at line 1 column 1")),),
    ),
    Case(
        "body_with_something_after_the_json_is_refused",
        request(post(b'{"input":{}} x')),
        (Differs(rows.RUST, said("Extra data at line 1 column 14")),),
    ),
    Case(
        "body_that_is_not_utf_8_is_refused",
        request(post(b'{"input":{"prompt":"\xff"}}')),
        (Differs(rows.RUST, said("invalid UTF-8 at byte 20")),),
    ),
    Case(
        "body_without_a_type_is_refused",
        request(of_type(None)),
        (
            Differs(
                rows.NO_TYPE,
                {
                    "status": 415,
                    "content-type": "text/plain; charset=utf-8",
                    "body": "Expected request with `Content-Type: application/json`",
                },
            ),
        ),
    ),
    Case("body_that_is_text_is_refused", request(of_type("text/plain"))),
    Case(
        "body_that_is_a_form_is_refused",
        request(of_type("application/x-www-form-urlencoded", b"a=b")),
    ),
    Case("body_with_a_charset_is_taken", request(of_type("application/json; charset=utf-8"))),
    Case("body_whose_type_is_in_capitals_is_taken", request(of_type("APPLICATION/JSON"))),
    Case("body_of_a_type_made_of_json_is_taken", request(of_type("application/cloudevents+json"))),
    Case(
        "body_in_chunks_is_taken",
        request(of_type("application/json", WELL, "Transfer-Encoding: chunked")),
    ),
    Case(
        "body_that_is_null_is_refused",
        request(post(None)),
        (Differs(rows.PLAIN_TEXT, listed("", 'null is not of type "object"')),),
    ),
    Case(
        "body_that_is_a_list_is_refused",
        request(post([])),
        (Differs(rows.PLAIN_TEXT, listed("", '[] is not of type "object"')),),
    ),
    Case(
        "body_that_is_a_text_is_refused",
        request(post("x")),
        (Differs(rows.PLAIN_TEXT, listed("", '"x" is not of type "object"')),),
    ),
    Case(
        "id_that_is_a_number_is_refused",
        request(post(prompt(id=5))),
        (Differs(rows.PLAIN_TEXT, listed("id", '5 is not of type "string"')),),
    ),
    Case("id_that_is_null_is_made", request(post(prompt(id=None)))),
    Case(
        "id_with_a_space_is_refused",
        request(post(prompt(id=f"{ID} x"))),
        (Differs(rows.ANY_ID, refused("id", ID_RULE)),),
    ),
    Case(
        "id_with_a_space_in_the_path_is_refused",
        request(put(prompt(), target=f"/predictions/{ID}%20x")),
        (Differs(rows.ANY_ID, refused("prediction_id", ID_RULE, "path")),),
    ),
    Case(
        "id_that_is_longer_than_128_is_refused",
        request(post(prompt(id=ID + "x" * 120))),
        (Differs(rows.ANY_ID, refused("id", ID_RULE)),),
    ),
    Case("id_of_the_longest_length_is_taken", request(post(prompt(id=ID + "x" * 115)))),
    Case("id_unlike_the_one_in_the_path_is_refused", request(put(prompt(id="other")))),
    Case("id_like_the_one_in_the_path_is_taken", request(put(prompt(id=ID)))),
    Case("webhook_that_is_null_is_none", request(post(prompt(webhook=None)))),
    Case(
        "webhook_that_is_a_number_is_refused",
        request(post(prompt(webhook=5))),
        (Differs(rows.PLAIN_TEXT, listed("webhook", '5 is not of type "string"')),),
    ),
    Case(
        "webhook_that_is_no_url_is_refused",
        request(post(prompt(webhook="not a url"))),
        (
            Differs(
                rows.ANY_WEBHOOK,
                refused("webhook", "URL has characters that must be percent-encoded"),
            ),
        ),
    ),
    Case(
        "webhook_to_this_machine_is_refused",
        request(post(prompt(webhook="http://127.0.0.1:9/", webhook_events_filter=["start"]))),
        (Differs(rows.ANY_ADDRESS, refused("webhook", PRIVATE)),),
        pair="slots",
    ),
    Case(
        "filter_with_an_unknown_event_is_refused",
        request(post(prompt(webhook_events_filter=["nope"]))),
        (
            Differs(
                rows.PLAIN_TEXT,
                listed(
                    "webhook_events_filter/0",
                    f"unknown variant `nope`, {ONE_OF_THEM}",
                ),
            ),
        ),
    ),
    Case(
        "filter_that_is_null_is_refused",
        request(post(prompt(webhook_events_filter=None))),
        (Differs(rows.PLAIN_TEXT, listed("webhook_events_filter", 'null is not of type "array"')),),
    ),
    Case(
        "filter_that_is_a_text_is_refused",
        request(post(prompt(webhook_events_filter="start"))),
        (
            Differs(
                rows.PLAIN_TEXT, listed("webhook_events_filter", '"start" is not of type "array"')
            ),
        ),
    ),
    Case(
        "filter_with_a_number_is_refused",
        request(post(prompt(webhook_events_filter=[5]))),
        (
            Differs(
                rows.FILTER_400,
                refused(
                    "webhook_events_filter/0",
                    "expected one of `start`, `output`, `logs`, `completed`",
                ),
            ),
        ),
    ),
    Case("filter_that_is_empty_is_taken", request(post(prompt(webhook_events_filter=[])))),
    Case(
        "filter_with_the_same_event_twice_is_taken",
        request(post(prompt(webhook_events_filter=["start", "start"]))),
    ),
    Case("context_of_texts_is_taken", request(post(prompt(context={"a": "b"})))),
    Case(
        "context_of_other_values_is_taken",
        request(post(prompt(context={"a": 5}))),
        (Differs(rows.CONTEXT, TAKEN),),
    ),
    Case(
        "context_that_is_a_number_is_refused",
        request(post(prompt(context=5))),
        (Differs(rows.PLAIN_TEXT, listed("context", '5 is not of type "object"')),),
    ),
    Case(
        "member_that_is_there_twice_counts_as_it_last_stands",
        request(post(b'{"input":{"prompt":5},"input":{"prompt":"hello"}}')),
        (Differs(rows.DUPLICATES, TAKEN),),
    ),
    Case(
        "members_that_nobody_knows_are_ignored", request(post(prompt(nobody="knows", version="x")))
    ),
)
