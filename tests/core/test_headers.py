"""Which header fields cross the proxy."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.headers import Field, request_id, to_client, to_upstream

HOP_BY_HOP = [
    b"Connection",
    b"Keep-Alive",
    b"Proxy-Connection",
    b"Proxy-Authenticate",
    b"Proxy-Authorization",
    b"TE",
    b"Trailer",
    b"Transfer-Encoding",
    b"Upgrade",
]


def upstream(*headers: Field, **options: object) -> list[Field]:
    """Return what reaches llama-server of `headers`, without the three fields that always do."""
    fixed: dict[str, object] = {"authority": "localhost", "api_key": "secret", "request_id": "r1"}
    found = to_upstream(headers, **{**fixed, **options})  # type: ignore[arg-type]
    always = [
        (b"Host", b"localhost"),
        (b"Authorization", b"Bearer secret"),
        (b"X-Request-Id", b"r1"),
    ]
    assert all(found.count(field) == 1 for field in always)
    return [field for field in found if field not in always]


def client(*headers: Field, **options: bool) -> list[Field]:
    """Return what reaches the client of `headers`, without the request id."""
    found = to_client(headers, request_id="r1", **options)
    assert found.count((b"X-Request-Id", b"r1")) == 1
    return [field for field in found if field[0] != b"X-Request-Id"]


def test_to_upstream_empty_gives_what_is_ours_in_order() -> None:
    """Host comes first; our key and the request id follow."""
    assert to_upstream([], authority="127.0.0.1:99", api_key="k", request_id="r") == [
        (b"Host", b"127.0.0.1:99"),
        (b"Authorization", b"Bearer k"),
        (b"X-Request-Id", b"r"),
    ]


def test_to_upstream_without_key_sends_no_authorization() -> None:
    """An upstream without a key gets none, and not the client's either."""
    found = to_upstream(
        [(b"Authorization", b"Bearer client")], authority="a", api_key=None, request_id="r"
    )
    assert found == [(b"Host", b"a"), (b"X-Request-Id", b"r")]


def test_to_upstream_keeps_order_duplicates_and_spelling() -> None:
    """What is end-to-end passes as it is."""
    fields = [(b"X-B", b"1"), (b"accept", b"*/*"), (b"x-b", b"2"), (b"X-Empty", b"")]
    assert upstream(*fields) == fields


@pytest.mark.parametrize("name", HOP_BY_HOP, ids=bytes.decode)
def test_to_upstream_drops_hop_by_hop_in_any_case(name: bytes) -> None:
    """Each hop-by-hop field ends here, however it is spelled."""
    assert upstream((name, b"x"), (name.upper(), b"x"), (name.lower(), b"x")) == []


@pytest.mark.parametrize("name", HOP_BY_HOP, ids=bytes.decode)
def test_to_client_drops_hop_by_hop_in_any_case(name: bytes) -> None:
    """Each hop-by-hop field ends here, however it is spelled."""
    assert client((name, b"x"), (name.upper(), b"x"), (name.lower(), b"x")) == []


@pytest.mark.parametrize(
    "name",
    ["Host", "Expect", "Content-Length", "Authorization", "X-Api-Key", "Cookie", "X-Stream-Token"],
)
def test_to_upstream_drops_framing_and_credentials(name: str) -> None:
    """What frames the body is said anew; a client's credentials end here."""
    assert upstream((name.encode(), b"x"), (name.upper().encode(), b"x")) == []


def test_to_upstream_replaces_the_request_id() -> None:
    """Only our request id is sent, also when the client's was taken for it."""
    assert upstream((b"x-request-id", b"theirs"), (b"X-Request-ID", b"r1")) == []


def test_to_upstream_drops_what_connection_names() -> None:
    """All options of all Connection fields are removed, in any case and with any blanks."""
    found = upstream(
        (b"Connection", b"close, X-One ,,\tx-TWO"),
        (b"connection", b"X-Three"),
        (b"x-one", b"1"),
        (b"X-Two", b"2"),
        (b"X-THREE", b"3"),
        (b"X-Four", b"4"),
    )
    assert found == [(b"X-Four", b"4")]


@pytest.mark.parametrize("name", [b"Content-Type", b"Content-Encoding", b"Cache-Control"])
def test_to_upstream_ignores_a_connection_option_that_is_for_everybody(name: bytes) -> None:
    """A Connection header cannot take away how the body is to be read."""
    assert upstream((b"Connection", name), (name, b"x")) == [(name, b"x")]


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"X-Request-Id"])
def test_to_upstream_connection_cannot_name_what_we_add(name: bytes) -> None:
    """What we add is added after the filter; `upstream` asserts that it is there."""
    assert upstream((b"Connection", name)) == []


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"Content-Type", b"Set-Cookie", b"Date", b"Location", b"Vary"]
)
def test_to_client_ignores_a_connection_option_that_is_for_everybody(name: bytes) -> None:
    """A Connection header cannot take away the length or the meaning of an answer."""
    assert client((b"Connection", name), (name, b"x")) == [(name, b"x")]


@pytest.mark.parametrize("forward", [False, True])
def test_to_upstream_conversation_id_only_when_forwarded(forward: bool) -> None:
    """X-Conversation-Id keeps a generation alive without its client, so it is off by default."""
    field = (b"X-Conversation-Id", b"c")
    assert upstream(field, forward_conversation_id=forward) == [field] * forward


def test_to_upstream_via_is_appended_to_those_before() -> None:
    """Our Via comes after the client's, which stay."""
    theirs = (b"Via", b"1.0 fred")
    assert upstream(theirs, via=True) == [theirs, (b"Via", b"1.1 llama-proxy")]


@pytest.mark.parametrize(
    ("host", "node"),
    [
        ("192.0.2.7", b"192.0.2.7"),
        ("2001:DB8::1", b'"[2001:db8::1]"'),
        ("", b"unknown"),
        ('x", for=y', b"unknown"),
    ],
)
def test_to_upstream_forwarded_names_the_client(host: str, node: bytes) -> None:
    """IPv6 is quoted in brackets; what is no address is `unknown` and cannot inject anything."""
    theirs = (b"Forwarded", b"for=1.2.3.4")
    assert upstream(theirs, forwarded_for=host) == [theirs, (b"Forwarded", b"for=" + node)]


def test_to_client_keeps_everything_else_as_it_is() -> None:
    """Length, cookies, duplicates and spelling stay."""
    fields = [
        (b"content-type", b"text/event-stream"),
        (b"Content-Length", b"5"),
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
        (b"X-Odd-CASE", b""),
    ]
    assert client(*fields) == fields


def test_to_client_keeps_the_first_date_and_server() -> None:
    """Two of either would be one too many."""
    found = client(
        (b"Date", b"1"), (b"Server", b"llama.cpp"), (b"date", b"2"), (b"SERVER", b"other")
    )
    assert found == [(b"Date", b"1"), (b"Server", b"llama.cpp")]


def test_to_client_replaces_the_request_id() -> None:
    """Exactly one request id is answered: ours."""
    assert client((b"X-Request-ID", b"theirs"), (b"x-request-id", b"more")) == []


def test_to_client_chunked_drops_the_length() -> None:
    """A length beside a transfer coding is removed (RFC 9112 section 6.3)."""
    assert client((b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked")) == []


@pytest.mark.parametrize("own_cors", [True, False])
def test_to_client_cors_of_llama_server_only_when_it_decides(own_cors: bool) -> None:
    """llama-server's CORS headers, which allow every origin, go where CORS is ours."""
    fields = [(b"Access-Control-Allow-Origin", b"*"), (b"access-control-allow-headers", b"*")]
    assert client(*fields, own_cors=own_cors) == fields * (not own_cors)


def test_to_client_via_is_appended() -> None:
    """Our Via is the last."""
    assert client((b"Via", b"1.1 x"), via=True) == [
        (b"Via", b"1.1 x"),
        (b"Via", b"1.1 llama-proxy"),
    ]


@pytest.mark.parametrize("candidate", [b"a", b"!~", b"x" * 128, b"6f9619ff-8b86-d011-b42d"])
def test_request_id_sane_is_taken(candidate: bytes) -> None:
    """1 to 128 visible ASCII characters are taken."""
    assert request_id(candidate, lambda: "made") == candidate.decode()


@pytest.mark.parametrize(
    "candidate",
    [None, b"", b"x" * 129, b"a b", b"a\t", b"a\r\nX: y", b"a\n", b"\xc3\xa9", b"a\0", b"a\x7f"],
)
def test_request_id_other_is_made(candidate: bytes | None) -> None:
    """Anything else is replaced by one of ours."""
    assert request_id(candidate, lambda: "made") == "made"


NAMES = st.sampled_from([*HOP_BY_HOP, b"X-A", b"X-B", b"Accept", b"Cookie", b"Date", b"X-API-Key"])


@given(st.lists(st.tuples(NAMES, st.sampled_from([b"", b"x", b"X-A", b"x-b, close"]))))
def test_both_directions_pass_a_subsequence(fields: list[Field]) -> None:
    """Whatever comes: what passes is in the order of what came, and never hop-by-hop or secret."""
    for passed in (upstream(*fields), client(*fields)):
        rest = iter(fields)
        assert all(field in rest for field in passed)
        assert not {name.lower() for name, _ in passed} & {name.lower() for name in HOP_BY_HOP}
    assert not [name for name, _ in upstream(*fields) if name in (b"Cookie", b"X-API-Key")]
