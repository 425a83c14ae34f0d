"""What a stream token may be made for."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from proxy.core.errors import InvalidRequest
from proxy.core.stream_grants import Grant, TokenPolicy, read_grant

POLICY = TokenPolicy()
NO_LEASE = TokenPolicy(lease_s=0)
PATHS = ("/stream", "/v1/chat/completions", "/completion")


def read(policy: TokenPolicy = POLICY, /, **fields: object) -> Grant:
    """Return the grant that a body with these members asks for."""
    return read_grant(fields, policy, key_name="alice", generation=3, known_paths=PATHS)


def test_read_grant_empty_body_has_the_operators_defaults() -> None:
    """Every member may be left out; the token is then bound to nothing."""
    assert read() == Grant(key_name="alice", generation=3, ttl_s=10.0, lease_s=600.0)


def test_read_grant_defaults_are_not_held_against_the_bounds_of_requests() -> None:
    """The operator's own default was checked where it was given."""
    assert read(TokenPolicy(ttl_s=900.0, lease_s=1e6)).lease_s == 1e6


def test_read_grant_whole_body_is_kept() -> None:
    """Each member has its place, and the order and the number of paths is no matter."""
    grant = read(
        ttl_s=2,
        lease_s=0.5,
        origin="https://app.example",
        paths=["/stream", "/completion", "/stream"],
        max_tokens=7,
    )
    assert grant == Grant(
        "alice", 3, 2.0, 0.5, "https://app.example", frozenset({"/stream", "/completion"}), 7
    )


@pytest.mark.parametrize(
    ("ttl_s", "lease_s", "max_tokens"),
    [
        *[(ttl_s, 1.0, 1) for ttl_s in (0.0, -1.0, math.nan, math.inf)],
        *[(1.0, lease_s, 1) for lease_s in (-1.0, math.nan, math.inf)],
        *[(1.0, 1.0, max_tokens) for max_tokens in (0, -1)],
    ],
)
def test_grant_out_of_bounds_is_an_error(ttl_s: float, lease_s: float, max_tokens: int) -> None:
    """Also one that a program makes by itself: the table relies on it."""
    with pytest.raises(ValueError, match="must be"):
        Grant("alice", 1, ttl_s, lease_s, max_tokens=max_tokens)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ttl_s", 300),
        ("ttl_s", 300.0),
        ("ttl_s", 0.001),
        ("lease_s", 86400),
        ("lease_s", 1e-3),
        ("max_tokens", 1),
        ("max_tokens", 2**31 - 1),
    ],
)
def test_read_grant_number_at_its_bound_is_kept(name: str, value: float) -> None:
    """Bounds are inside."""
    assert getattr(read(**{name: value}), name) == value


@pytest.mark.parametrize("name", ["ttl_s", "lease_s"])
@pytest.mark.parametrize(
    "value",
    [0, -0.0, -1, 86400.1, 10**400, math.nan, math.inf, -math.inf, True, "5", None, [5], {}],
    ids=lambda value: repr(value)[:9],
)
def test_read_grant_seconds_out_of_bounds_are_refused(name: str, value: object) -> None:
    """Also what is no number, what Python counts as one, and what JSON has no word for."""
    with pytest.raises(InvalidRequest, match=rf"^{name} must be a number of seconds over 0 and"):
        read(**{name: value})


@pytest.mark.parametrize("value", [0, 0.0, -0.0])
def test_read_grant_no_lease_where_the_operator_has_none(value: float) -> None:
    """Whose default is none, lets clients say so."""
    assert read(NO_LEASE, lease_s=value).lease_s == 0
    assert read(NO_LEASE).lease_s == 0


@pytest.mark.parametrize("value", [False, -1, None])
def test_read_grant_other_lease_where_the_operator_has_none_is_refused(value: object) -> None:
    """Nothing else than 0 means none, and the message has it."""
    with pytest.raises(InvalidRequest, match=r"up to 86400, or 0 for none\.$"):
        read(NO_LEASE, lease_s=value)


def test_read_grant_lease_where_the_operator_has_none_is_kept() -> None:
    """A client may bind itself."""
    assert read(NO_LEASE, lease_s=60).lease_s == 60


@pytest.mark.parametrize(
    "value",
    [0, -1, 2**31, 10**400, 1.0, 1.5, math.nan, math.inf, True, "5", None, [5]],
    ids=lambda value: repr(value)[:9],
)
def test_read_grant_max_tokens_must_be_a_whole_number(value: object) -> None:
    """From 1, and within what llama-server counts in."""
    with pytest.raises(InvalidRequest, match=r"^max_tokens must be a whole number from 1 to 2"):
        read(max_tokens=value)


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example",
        "http://localhost:3000",
        "http://127.0.0.1:8080",
        "http://[::1]:8080",
        "http://[::1]",
        "http://app.example:443",
        "https://xn--bcher-kva.example",
        f"https://{'a' * 253}:65535",
    ],
)
def test_read_grant_origin_as_browsers_send_it_is_kept(origin: str) -> None:
    """Scheme, host, and a port that is not the scheme's own."""
    assert read(origin=origin).origin == origin


@pytest.mark.parametrize(
    ("origin", "as_sent"),
    [
        ("https://App.Example", "https://app.example"),
        ("HTTPS://app.example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://app.example:80", "http://app.example"),
        ("https://app.example:", "https://app.example"),
        ("https://app.example:0", "https://app.example"),
        ("https://app.example:08443", "https://app.example:8443"),
        ("https://app.example.", "https://app.example"),
        ("http://[0:0::1]:3000", "http://[::1]:3000"),
    ],
)
def test_read_grant_origin_spelled_otherwise_is_told_the_spelling(
    origin: str, as_sent: str
) -> None:
    """It would match no request ever: better said now."""
    with pytest.raises(InvalidRequest) as caught:
        read(origin=origin)
    assert caught.value.message == f"origin must be spelled as browsers send it: {as_sent}"


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "*",
        "app.example",
        "https://",
        "https://app.example/",
        "https://app.example/path",
        "https://app.example?q",
        "https://app.example#f",
        "https://user@app.example",
        "https://app.example:65536",
        "https://b\u00fccher.example",
        "https://app.example\n",
        " https://app.example",
        "ftp://app.example",
        "file://",
        "http://[::1",
        "http://[1.2.3.4]",
        f"https://{'a' * 260}",
        None,
        5,
        ["https://app.example"],
    ],
    ids=lambda value: repr(value)[:40],
)
def test_read_grant_origin_that_no_page_has_is_refused(origin: object) -> None:
    """Also `null`, which any sandboxed page has, and what is no text."""
    with pytest.raises(InvalidRequest, match=r"^origin must be the origin of a web page"):
        read(origin=origin)


@pytest.mark.parametrize(
    "paths",
    [[], ["/stream"] * 17, "/stream", None, {}, {"/stream": 1}, 5],
    ids=lambda value: repr(value)[:12],
)
def test_read_grant_paths_must_be_a_short_list(paths: object) -> None:
    """None at all is not a list of none."""
    with pytest.raises(InvalidRequest, match=r"^paths must be a list of 1 to 16 paths\.$"):
        read(paths=paths)


@pytest.mark.parametrize(
    "path", ["/", "stream", "/stream/", "/STREAM", "", 5, None, True, [], {}, ["/stream"]], ids=repr
)
def test_read_grant_unknown_path_is_told_the_known_ones(path: object) -> None:
    """Beside known ones too, and whatever JSON has in the place of a path."""
    with pytest.raises(InvalidRequest) as caught:
        read(paths=["/stream", path])
    assert caught.value.message == (
        "Each of paths must be one of /completion, /stream, /v1/chat/completions."
    )


@pytest.mark.parametrize("known_paths", [PATHS, frozenset(PATHS), dict.fromkeys(PATHS)], ids=type)
def test_read_grant_takes_any_collection_of_paths(known_paths: frozenset[str]) -> None:
    """A list may have what cannot be hashed; a look-up of it must not fail."""
    with pytest.raises(InvalidRequest, match="Each of paths"):
        read_grant({"paths": [[]]}, POLICY, key_name=None, generation=0, known_paths=known_paths)


@pytest.mark.parametrize("name", ["ttl", "TTL_S", "key_name", "generation", "", "scope"])
def test_read_grant_unknown_member_is_named(name: str) -> None:
    """A misspelled bound must not be a bound that is not there."""
    with pytest.raises(InvalidRequest) as caught:
        read(**{"ttl_s": 5, name: 1})
    assert caught.value.message == (
        f"{name!r} is not a member of this request; there are ttl_s, lease_s, paths, origin,"
        " max_tokens."
    )


def test_read_grant_unknown_members_name_is_cut_and_quoted() -> None:
    """It is the client's text, and the message is logged."""
    with pytest.raises(InvalidRequest) as caught:
        read(**{"\n" + "x" * 1000: 1})
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


VALUES: list[object] = [
    None,
    True,
    False,
    -1,
    0,
    1,
    3,
    10**400,
    1.5,
    "",
    "x",
    {},
    *PATHS,
    "https://app.example",
]
NAMES = ["ttl_s", "lease_s", "paths", "origin", "max_tokens", "other"]


@given(
    st.dictionaries(
        st.sampled_from(NAMES),
        st.sampled_from(VALUES) | st.floats() | st.lists(st.sampled_from(VALUES), max_size=3),
    )
)
@example({"ttl_s": 1, "lease_s": 2, "paths": ["/stream"], "origin": "http://a", "max_tokens": 3})
def test_read_grant_any_json_is_a_grant_within_bounds_or_refused(
    fields: dict[str, object],
) -> None:
    """Nothing but `InvalidRequest` comes out, and every grant is within the bounds."""
    try:
        grant = read_grant(
            json.loads(json.dumps(fields)),
            POLICY,
            key_name=None,
            generation=0,
            known_paths=frozenset(PATHS),
        )
    except InvalidRequest:
        return
    assert "other" not in fields
    assert 0 < grant.ttl_s <= POLICY.max_ttl_s
    assert 0 < grant.lease_s <= POLICY.max_lease_s
    assert grant.origin == fields.get("origin")
    assert grant.paths is None or (grant.paths and grant.paths <= set(PATHS))
    assert grant.max_tokens is None or grant.max_tokens >= 1
