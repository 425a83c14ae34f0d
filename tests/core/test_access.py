"""Who may do what: hosts, web pages, keys and ranks, from the head of a request alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.access import (
    AccessPolicy,
    Admitted,
    ApiKey,
    Decision,
    Keyring,
    Preflight,
    Refused,
    decide,
)

Field = tuple[bytes, bytes]

ALICE = ApiKey.from_text("sk-alice", name="alice")
ROOT = ApiKey.from_text("sk-root", name="root", admin=True)
APP = "https://app.example"

OPEN = AccessPolicy(Keyring())
LISTED = AccessPolicy(Keyring(), cors_origins=frozenset({APP}))
KEYED = AccessPolicy(Keyring([ALICE]))
RANKED = AccessPolicy(Keyring([ALICE, ROOT]), cors_origins=frozenset({APP}))

CORS = [
    (b"Access-Control-Allow-Origin", APP.encode()),
    (b"Access-Control-Expose-Headers", b"X-Request-Id, Retry-After"),
    (b"Vary", b"Origin"),
]


PREFLIGHT = {"method": "OPTIONS", "access_control_request_method": "POST"}


def ask(
    policy: AccessPolicy,
    *,
    method: str = "POST",
    path: str = "/v1/chat/completions",
    secure: bool = False,
    key: str | None = None,
    host: str | None = "localhost:8080",
    **fields: str,
) -> Decision:
    """Decide on a request; `fields` are headers with underscores for dashes."""
    headers: list[Field] = [
        (name.replace("_", "-").title().encode(), value.encode("latin-1"))
        for name, value in fields.items()
    ]
    if host is not None:
        headers.append((b"Host", host.encode()))
    if key is not None:
        headers.append((b"Authorization", b"Bearer " + key.encode()))
    return decide(policy, method=method, path=path, headers=headers, secure=secure)


def status(decision: Decision) -> int:
    """Return what the client gets; 200 stands for whatever the answer is."""
    if isinstance(decision, Refused):
        return decision.error.status
    return 204 if isinstance(decision, Preflight) else 200


# -- Host ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("ui.localhost:8080", 200),
        ("127.0.0.1:8080", 200),
        ("127.8.8.8", 200),
        ("[::1]:8080", 200),
        (None, 200),
        ("evil.example", 421),
        ("evil.example:8080", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.nip.io", 421),
        ("192.168.1.5", 421),
        ("0.0.0.0", 421),
        ("", 400),
        ("a b", 400),
    ],
)
def test_host_without_keys_must_be_loopback(host: str | None, answer: int) -> None:
    """A page on a name that was rebound to us is told that it is not us."""
    assert status(ask(OPEN, host=host)) == answer


@pytest.mark.parametrize("keyring", [Keyring(), Keyring([ALICE])], ids=["open", "keyed"])
@pytest.mark.parametrize(
    ("host", "answer"),
    [
        ("gpu.lan", 200),
        ("GPU.lan.:9", 200),
        ("[2001:db8:0::1]", 200),
        ("127.0.0.1", 200),
        ("other.lan", 421),
        ("[2001:db8::2]", 421),
    ],
)
def test_host_that_is_allowed_is_taken_beside_loopback(
    keyring: Keyring, host: str, answer: int
) -> None:
    """What the operator allows is compared without case, port and brackets; keys change nothing."""
    policy = AccessPolicy(keyring, allowed_hosts=frozenset({"Gpu.Lan", "[2001:DB8::1]"}))
    assert status(ask(policy, host=host, key="sk-alice")) == answer


def test_host_star_allows_any() -> None:
    """With `*` no host is looked at."""
    policy = replace(OPEN, allowed_hosts=frozenset({"*"}))
    assert status(ask(policy, host="anything at all")) == 200


def test_host_with_keys_and_none_allowed_is_any() -> None:
    """Who has a key may call us what he likes."""
    assert status(ask(KEYED, host="evil.example", key="sk-alice")) == 200


def test_host_given_twice_is_malformed() -> None:
    """Two hosts are none."""
    headers = [(b"Host", b"localhost"), (b"host", b"evil.example")]
    found = decide(OPEN, method="GET", path="/", headers=headers, secure=False)
    assert status(found) == 400


def test_host_is_checked_before_the_key_and_on_public_paths() -> None:
    """A rebound page learns nothing, not even whether we live."""
    assert status(ask(OPEN, method="GET", path="/health", host="evil.example")) == 421


# -- web pages without keys ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "answer"),
    [
        ("http://localhost:8080", 200),
        ("http://LOCALHOST:8080", 200),
        ("http://localhost:3000", 403),
        ("http://127.0.0.1:8080", 403),
        ("http://localhost", 403),
        ("https://evil.example", 403),
        ("null", 403),
        ("", 403),
        ("file://", 403),
        (APP, 403),
    ],
)
def test_origin_without_keys_must_be_our_own(origin: str, answer: int) -> None:
    """Only a page that we served may use the model."""
    assert status(ask(OPEN, origin=origin)) == answer


def test_origin_given_twice_is_foreign() -> None:
    """No browser sends two; neither counts."""
    headers = [(b"Host", b"localhost"), (b"Origin", b"http://localhost"), (b"Origin", APP.encode())]
    found = decide(LISTED, method="POST", path="/", headers=headers, secure=False)
    assert status(found) == 403
    assert isinstance(found, Refused)
    assert found.cors_headers == [(b"Vary", b"Origin")]


@pytest.mark.parametrize(("site", "answer"), [("cross-site", 403), ("same-origin", 200)])
def test_image_of_another_site_is_refused_without_keys(site: str, answer: int) -> None:
    """It has no Origin, but the browser says where it stands."""
    assert status(ask(OPEN, method="GET", path="/slots", sec_fetch_site=site)) == answer


def test_listed_page_is_admitted_with_cors_headers() -> None:
    """The browser shows it the answer, the request id and when to come again."""
    assert ask(LISTED, origin=APP) == Admitted(None, CORS)


def test_reply_varies_by_origin_once_any_is_listed() -> None:
    """Else a cache would hand a listed page a reply without its headers."""
    assert ask(LISTED) == Admitted(None, [(b"Vary", b"Origin")])
    assert ask(OPEN) == Admitted(None, [])


# -- keys ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "says"), [(None, "is needed"), ("wrong", "not one that this server knows")]
)
def test_key_missing_or_unknown_is_401_that_says_which(key: str | None, says: str) -> None:
    """The two mistakes need different cures; neither message has the key."""
    found = ask(KEYED, key=key)
    assert isinstance(found, Refused)
    assert (found.error.status, found.error.type) == (401, "authentication_error")
    assert says in found.error.message
    assert "wrong" not in found.error.message


def test_key_known_is_the_principal() -> None:
    """Who asks is known from here on."""
    assert ask(RANKED, key="sk-root") == Admitted(ROOT, [(b"Vary", b"Origin")])


def test_foreign_page_with_a_key_is_admitted_without_cors_headers() -> None:
    """It was given the key; but its browser does not show it the answer."""
    assert ask(KEYED, origin="https://evil.example", key="sk-alice") == Admitted(ALICE, [])


@pytest.mark.parametrize(
    "fields", [{"origin": "https://evil.example"}, {"sec_fetch_site": "cross-site"}]
)
def test_foreign_page_without_the_key_is_unauthenticated(fields: dict[str, str]) -> None:
    """With keys the key decides, not the page."""
    assert status(ask(KEYED, **fields)) == 401  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/livez", "/readyz", "/status"])
def test_public_path_needs_no_key_to_be_read(path: str) -> None:
    """Probes and the page without content have none; to change something takes a key."""
    assert status(ask(RANKED, method="GET", path=path)) == 200
    assert status(ask(RANKED, method="HEAD", path=path)) == 200
    assert status(ask(RANKED, method="POST", path=path)) == 401


def test_public_path_still_knows_who_asks() -> None:
    """A key that is sent along is recognised."""
    assert ask(KEYED, method="GET", path="/health", key="sk-alice") == Admitted(ALICE, [])


@pytest.mark.parametrize(
    "path",
    ["/index.htm", "/_app", "/health/", "/%68ealth", "/v1/models", "/status/json", "/metrics"],
)
def test_other_path_needs_a_key(path: str) -> None:
    """Public is what is listed, spelled like that."""
    assert status(ask(KEYED, method="GET", path=path)) == 401


@pytest.mark.parametrize("path", ["/", "/index.html", "/favicon.ico", "/_app/immutable/b.1.js"])
def test_web_page_of_llama_server_needs_no_key(path: str) -> None:
    """A browser cannot send a key with a page; the page sends one with its calls."""
    assert status(ask(KEYED, method="GET", path=path)) == 200
    assert status(ask(KEYED, method="POST", path=path)) == 401


def test_public_paths_are_the_policys() -> None:
    """An operator may have others."""
    policy = replace(KEYED, public_paths=frozenset({"/v1/models"}))
    assert status(ask(policy, method="GET", path="/v1/models")) == 200
    assert status(ask(policy, method="GET", path="/health")) == 401


@pytest.mark.parametrize(
    "path",
    [
        "/proxy/restart",
        "/proxy/",
        "/proxy",
        "/proxy/exchanges/r1",
        "/status/json",
        "/status/events",
        "/%70roxy/restart",
        "/proxy%2Frestart",
        "//proxy//restart",
    ],
)
def test_operators_path_needs_an_admin_key_once_there_is_one(path: str) -> None:
    """However it is spelled: no key 401, another's key 403, an admin's passes."""
    assert status(ask(RANKED, path=path)) == 401
    assert status(ask(RANKED, path=path, key="sk-alice")) == 403
    assert status(ask(RANKED, path=path, key="sk-root")) == 200
    assert status(ask(KEYED, path=path, key="sk-alice")) == 200
    assert status(ask(OPEN, path=path)) == 200


@pytest.mark.parametrize("path", ["/v1/models", "/proxyx", "/status", "/x/proxy/restart", "/slots"])
def test_other_path_needs_no_admin_key(path: str) -> None:
    """Every key may use the model."""
    assert status(ask(RANKED, path=path, key="sk-alice")) == 200


@pytest.mark.parametrize(
    ("fields", "answer"),
    [({}, 401), ({"key": "sk-alice", "path": "/proxy/tasks"}, 403), ({"host": "a b"}, 400)],
)
def test_refusal_of_a_listed_page_can_be_read_by_it(fields: dict[str, str], answer: int) -> None:
    """A 401 without CORS headers would look like a broken network to the page."""
    policy = replace(RANKED, allowed_hosts=frozenset({"gpu.lan"}))
    found = ask(policy, origin=APP, **fields)  # type: ignore[arg-type]
    assert isinstance(found, Refused)
    assert (found.error.status, found.cors_headers) == (answer, CORS)


# -- beside another listener ---------------------------------------------------------------------

SISTER = "http://localhost:8080"
SISTER_CORS = [(b"Access-Control-Allow-Origin", SISTER.encode()), *CORS[1:]]
BESIDE_OPEN, BESIDE_KEYED = (
    replace(
        policy,
        public_paths=frozenset[str](),
        sister_ports=frozenset({8080}),
        takes_stream_tokens=True,
    )
    for policy in (OPEN, KEYED)
)


def test_page_of_the_sister_listener_is_admitted_with_cors_headers() -> None:
    """To its browser our other port is another origin: without the headers it could not read."""
    assert ask(BESIDE_OPEN, host="localhost:8081", origin=SISTER) == Admitted(None, SISTER_CORS)


@pytest.mark.parametrize("policy", [BESIDE_OPEN, BESIDE_KEYED], ids=["open", "keyed"])
def test_preflight_of_the_sister_listeners_page_is_answered(policy: AccessPolicy) -> None:
    """It sends a token in a field that browsers ask about first."""
    found = ask(
        policy,
        host="localhost:8081",
        origin=SISTER,
        access_control_request_headers="x-stream-token,content-type",
        **PREFLIGHT,  # type: ignore[arg-type]
    )
    assert isinstance(found, Preflight)
    allowed = (b"Access-Control-Allow-Headers", b"x-stream-token, content-type")
    assert {*SISTER_CORS, allowed} <= set(found.headers)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://localhost:3000", "localhost:8081"),
        ("https://localhost:8080", "localhost:8081"),
        ("http://evil.example:8080", "localhost:8081"),
        ("http://127.0.0.1:8080", "localhost:8081"),
    ],
)
def test_page_on_another_port_host_or_scheme_is_no_sister(origin: str, host: str) -> None:
    """A stream token does not make a foreign page ours, where no key is needed."""
    assert status(ask(BESIDE_OPEN, host=host, origin=origin)) == 403
    assert status(ask(BESIDE_OPEN, host=host, origin=origin, x_stream_token="t")) == 403


def test_reply_varies_by_origin_where_there_is_a_sister() -> None:
    """Her pages are told more than others."""
    assert ask(BESIDE_OPEN) == Admitted(None, [(b"Vary", b"Origin")])


def test_stream_token_stands_for_a_key_where_it_is_taken() -> None:
    """Whoever answers redeems it; elsewhere it is nothing."""
    assert ask(BESIDE_KEYED, x_stream_token="t") == Admitted(None, [(b"Vary", b"Origin")])
    assert status(ask(KEYED, x_stream_token="t")) == 401
    assert ask(BESIDE_KEYED, key="sk-alice") == Admitted(ALICE, [(b"Vary", b"Origin")])


def test_stream_token_makes_nobody_of_who_has_a_key_as_well() -> None:
    """The token says whose it is when it is redeemed; the key beside it is not looked at."""
    both = ask(BESIDE_KEYED, key="sk-alice", x_stream_token="t")
    assert both == Admitted(None, [(b"Vary", b"Origin")])
    wrong = ask(BESIDE_KEYED, key="wrong", x_stream_token="t")
    assert wrong == Admitted(None, [(b"Vary", b"Origin")])


@pytest.mark.parametrize(("host", "answer"), [("evil.example", 421), ("a b", 400)])
def test_stream_token_does_not_stand_for_the_host(host: str, answer: int) -> None:
    """A page on a rebound name is refused before its token is looked at."""
    policy = replace(BESIDE_KEYED, allowed_hosts=frozenset({"gpu.lan"}))
    assert status(ask(policy, host=host, x_stream_token="t")) == answer


@pytest.mark.parametrize(
    ("policy", "key", "says"),
    [
        (BESIDE_KEYED, None, "A stream token is needed, as `X-Stream-Token: TOKEN`, or an API key"),
        (BESIDE_KEYED, "wrong", "not one that this server knows"),
        (KEYED, None, "An API key is needed"),
    ],
)
def test_credential_missing_is_401_that_says_what_would_do(
    policy: AccessPolicy, key: str | None, says: str
) -> None:
    """A token helps only where it is taken."""
    found = ask(policy, key=key)
    assert isinstance(found, Refused)
    assert (found.error.status, found.error.type) == (401, "authentication_error")
    assert says in found.error.message


# -- preflight -----------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [LISTED, RANKED], ids=["open", "keyed"])
def test_preflight_of_a_listed_page_is_answered_without_a_key(policy: AccessPolicy) -> None:
    """Browsers send no credentials with a preflight."""
    found = ask(
        policy,
        origin=APP,
        access_control_request_headers="authorization, content-type,\tx-stainless-os",
        **PREFLIGHT,  # type: ignore[arg-type]
    )
    assert found == Preflight(
        [
            *CORS,
            (b"Access-Control-Allow-Methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
            (b"Access-Control-Allow-Headers", b"authorization, content-type, x-stainless-os"),
            (b"Access-Control-Max-Age", b"600"),
        ]
    )


@pytest.mark.parametrize("policy", [OPEN, LISTED, KEYED, RANKED])
@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
def test_preflight_of_a_foreign_page_is_refused(policy: AccessPolicy, origin: str) -> None:
    """Its browser never sends the request."""
    assert status(ask(policy, origin=origin, **PREFLIGHT)) == 403  # type: ignore[arg-type]


def test_options_that_is_no_preflight_is_a_request_like_any_other() -> None:
    """It needs a key, and may be llama-server's to answer."""
    assert status(ask(KEYED, method="OPTIONS")) == 401
    assert status(ask(KEYED, method="OPTIONS", origin=APP)) == 401
    assert status(ask(KEYED, method="OPTIONS", access_control_request_method="POST")) == 401
    assert ask(LISTED, method="OPTIONS", origin=APP) == Admitted(None, CORS)


# -- CORS left to llama-server -------------------------------------------------------------------


def test_cors_by_upstream_neither_checks_nor_adds() -> None:
    """Origins are llama-server's to judge; hosts and keys stay ours."""
    open_, keyed = (replace(policy, cors_by_upstream=True) for policy in (OPEN, KEYED))
    assert ask(open_, origin="https://evil.example") == Admitted(None, [])
    assert ask(keyed, origin=APP, **PREFLIGHT) == Admitted(None, [])  # type: ignore[arg-type]
    assert status(ask(keyed, origin=APP)) == 401
    assert status(ask(open_, host="evil.example")) == 421


# -- whatever comes ------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        b"Host",
        b"Origin",
        b"Authorization",
        b"X-Api-Key",
        b"X-Stream-Token",
        b"Sec-Fetch-Site",
        b"X-Other",
        b"Access-Control-Request-Method",
        b"Access-Control-Request-Headers",
    ]
)
VALUES = st.sampled_from([b"localhost", b"http://localhost", b"null", APP.encode()]) | st.binary(
    max_size=12
)
METHODS = st.sampled_from(["GET", "POST", "OPTIONS"])


@given(METHODS, st.text(max_size=12), st.lists(st.tuples(NAMES, VALUES), max_size=6), st.booleans())
def test_nobody_without_a_key_gets_past_it(
    method: str, path: str, headers: list[Field], secure: bool
) -> None:
    """Any head at all: a decision, and never an admission without a key."""
    found = decide(RANKED, method=method, path=path, headers=headers, secure=secure)
    assert not isinstance(found, Admitted) or path in RANKED.public_paths


@given(METHODS, st.lists(st.tuples(NAMES, VALUES), max_size=6), st.booleans())
def test_no_foreign_origin_gets_in_without_keys(
    method: str, headers: list[Field], secure: bool
) -> None:
    """Any head with an origin that is neither listed nor ours is refused."""
    rest = [field for field in headers if field[0] not in (b"Origin", b"Sec-Fetch-Site")]
    head = [*rest, (b"Origin", b"https://evil.example")]
    assert isinstance(decide(LISTED, method=method, path="/", headers=head, secure=secure), Refused)
