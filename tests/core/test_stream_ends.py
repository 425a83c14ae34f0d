"""How a stream says that its answer is whole."""

from __future__ import annotations

import json

import pytest

from proxy.core.stream_ends import end_marks, is_whole

WHOLE = {
    "/v1/chat/completions": b'data: {"choices":[]}\n\ndata: [DONE]\n\n',
    "/v1/completions": b"data: [DONE]\n\n",
    "/completion": b'data: {"content":"","stop":true,"timings":{}}\n\n',
    "/infill": b'data: {"content":"","stop":true}\n\n',
    "/v1/messages": b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    "/v1/responses": b'data: {"response":{"status":"completed","usage":{"input_tokens":1}}}\n\n',
}


@pytest.mark.parametrize("label", WHOLE)
def test_stream_with_its_last_event_is_whole(label: str) -> None:
    """In the dialect of its route."""
    assert is_whole(WHOLE[label], end_marks(label, {}))


@pytest.mark.parametrize("label", WHOLE)
def test_stream_without_its_last_event_is_not(label: str) -> None:
    """Whatever a model wrote: in a JSON string no mark can stand as it is."""
    told = json.dumps({"content": "\n\n".join(map(bytes.decode, WHOLE.values()))})
    assert not is_whole(b"data: %b\n\n" % told.encode(), end_marks(label, {}))


@pytest.mark.parametrize("label", WHOLE)
def test_stream_that_ends_with_an_error_of_llama_servers_is_passed_on(label: str) -> None:
    """The client has been told already."""
    assert is_whole(b'data: {"error":{"code":500,"message":"x"}}\n\n', end_marks(label, {}))


def test_last_event_whose_members_the_client_chose_is_not_looked_at() -> None:
    """It may be empty."""
    assert end_marks("/completion", {"response_fields": []}) == ()


def test_other_routes_have_no_marks() -> None:
    """Their streams are llama-server's business."""
    assert end_marks("/other", {}) == ()
