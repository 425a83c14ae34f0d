"""The two fields of a request that webhooks have: which events, and where to."""

from __future__ import annotations

import pytest

from proxy.core.predictions.webhooks import (
    ALL_EVENTS,
    MAX_URL_BYTES,
    InvalidFilter,
    InvalidUrl,
    WebhookEvent,
    check_url,
    parse_filter,
)

# -- the filter ------------------------------------------------------------------------------------


def test_filter_that_is_absent_asks_for_all() -> None:
    """Cog's default."""
    assert parse_filter(None) == ALL_EVENTS == frozenset(WebhookEvent)


def test_filter_that_is_empty_asks_for_none() -> None:
    """A list that names nothing."""
    assert parse_filter([]) == frozenset()


@pytest.mark.parametrize("event", WebhookEvent, ids=lambda event: event.value)
def test_filter_names_an_event(event: WebhookEvent) -> None:
    """Each by its own name; twice is as good as once."""
    assert parse_filter([event.value, event.value]) == {event}


@pytest.mark.parametrize(
    ("value", "index"),
    [
        (["nope"], 0),
        (["start", "Start"], 1),
        (["start", "logs", ""], 2),
        ([5], 0),
        ([None], 0),
        ([["start"]], 0),
        (["start", {}], 1),
    ],
    ids=["unknown", "case", "empty", "number", "null", "list", "object"],
)
def test_filter_with_a_wrong_entry_is_refused_with_its_place(value: list, index: int) -> None:
    """What Cog's answer names: the entry."""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(value)
    assert (caught.value.index, caught.value.value) == (index, value[index])


@pytest.mark.parametrize("value", ["start", 5, {}, True, 0, ""])
def test_filter_that_is_no_list_is_refused(value: object) -> None:
    """As a whole; what is false is no absence."""
    with pytest.raises(InvalidFilter, match=r"^expected a sequence$") as caught:
        parse_filter(value)
    assert (caught.value.index, caught.value.value) == (None, value)


def test_unknown_event_is_told_in_the_words_of_cog() -> None:
    """With all that are known."""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(["nope"])
    assert str(caught.value) == (
        "unknown variant `nope`, expected one of `start`, `output`, `logs`, `completed`"
    )


def test_long_unknown_event_is_told_in_short() -> None:
    """An answer is not as long as what it refuses."""
    with pytest.raises(InvalidFilter) as caught:
        parse_filter(["x" * 1000])
    assert f"`{'x' * 64}`" in str(caught.value)


def test_entry_that_is_no_text_is_told_without_it() -> None:
    """It could be of any size."""
    with pytest.raises(InvalidFilter, match=r"^expected one of `start`") as caught:
        parse_filter([[1, 2, 3]])
    assert "1" not in str(caught.value)


# -- the URL ---------------------------------------------------------------------------------------

PARTS = {
    "http": ("http://example.com/hook", "http", "example.com", 80, "/hook"),
    "https": ("https://example.com/hook", "https", "example.com", 443, "/hook"),
    "upper case": ("HTTPS://EXAMPLE.com/Hook", "https", "example.com", 443, "/Hook"),
    "a port": ("http://example.com:8000/", "http", "example.com", 8000, "/"),
    "an empty port": ("http://example.com:/", "http", "example.com", 80, "/"),
    "the other's port": ("https://example.com:80/", "https", "example.com", 80, "/"),
    "no path": ("http://example.com", "http", "example.com", 80, "/"),
    "a query": ("http://example.com/a?b=c&d=%20", "http", "example.com", 80, "/a?b=c&d=%20"),
    "a query and no path": ("http://example.com?b=/c", "http", "example.com", 80, "/?b=/c"),
    "a fragment": ("http://example.com/a?b#c?d", "http", "example.com", 80, "/a?b"),
    "a final dot": ("http://example.com./", "http", "example.com", 80, "/"),
    "an at sign in the path": ("http://example.com/@me", "http", "example.com", 80, "/@me"),
    "an address": ("http://93.184.216.34/", "http", "93.184.216.34", 80, "/"),
    "an IPv6 address": ("http://[2606:4700:0:0::1]:81/", "http", "2606:4700::1", 81, "/"),
    "an underscore": ("http://my_service.example/", "http", "my_service.example", 80, "/"),
    "a punycode name": ("http://xn--bcher-kva.example/", "http", "xn--bcher-kva.example", 80, "/"),
}


@pytest.mark.parametrize(("text", "scheme", "host", "port", "target"), PARTS.values(), ids=PARTS)
def test_url_is_taken_apart(text: str, scheme: str, host: str, port: int, target: str) -> None:
    """Into what is connected to and what is sent."""
    url = check_url(text)
    assert (url.scheme, url.host, url.port, url.target) == (scheme, host, port, target)


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("http://example.com/", "example.com"),
        ("http://example.com:80/", "example.com"),
        ("https://example.com:443/", "example.com"),
        ("https://example.com:80/", "example.com:80"),
        ("http://[2606:4700::1]/", "[2606:4700::1]"),
        ("http://[2606:4700::1]:81/", "[2606:4700::1]:81"),
    ],
)
def test_url_has_the_host_header_that_is_sent(text: str, authority: str) -> None:
    """The port is in it if it is not the scheme's."""
    assert check_url(text).authority == authority


REFUSED = {
    "empty": "",
    "no URL": "not a url",
    "no scheme": "example.com/hook",
    "relative": "//example.com/",
    "another scheme": "ftp://example.com/",
    "a file": "file:///etc/passwd",
    "one that begins like ours": "httpx://example.com/",
    "no host": "http:///hook",
    "only a port": "http://:80/",
    "a user": "http://user@example.com/",
    "a user and a password": "http://user:pass@example.com/",
    "a space": "http://example.com/a b",
    "a space before": " http://example.com/",
    "a line": "http://example.com/\r\nHost: x",
    "a final line feed": "http://example.com/\n",
    "a NUL": "http://example.com/\0",
    "a letter beyond ASCII": "http://example.com/é",
    "a name beyond ASCII": "http://bücher.example/",
    "a backslash in the host": "http://example.com\\@127.0.0.1/",
    "a percent sign in the host": "http://exa%6dple.com/",
    "a port that is none": "http://example.com:http/",
    "a port beyond the last": "http://example.com:65536/",
    "port 0": "http://example.com:0/",
    "an open bracket": "http://[::1/",
    "a zone": "http://[fe80::1%25eth0]/",
    "an empty label": "http://a..example/",
    "a leading dot": "http://.example/",
    "a dot": "http://./",
    "a long label": f"http://{'a' * 64}.example/",
    "a long name": f"http://{'a.' * 127}aa/",
    "a tilde": "http://~a/",
}


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_url_that_cannot_be_sent_to_is_refused(text: str, allow_private: bool) -> None:
    """At once, when the prediction is made, whatever the option."""
    with pytest.raises(InvalidUrl, match=r"^URL "):
        check_url(text, allow_private=allow_private)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "[::1]", "10.0.0.1"],
)
def test_url_of_this_machine_or_a_private_network_is_as_the_option_says(host: str) -> None:
    """Where the URL alone tells it."""
    text = f"http://{host}:5000/"
    with pytest.raises(InvalidUrl, match="private network"):
        check_url(text)
    assert check_url(text, allow_private=True).port == 5000


@pytest.mark.parametrize("host", ["169.254.169.254", "0.0.0.0", "[::]", "[fe80::1]"])
def test_url_of_an_address_that_no_receiver_has_is_refused(host: str) -> None:
    """Whatever the option."""
    with pytest.raises(InvalidUrl, match="not allowed"):
        check_url(f"http://{host}/", allow_private=True)


def test_url_of_the_greatest_length_is_taken() -> None:
    """One byte more is not."""
    text = "http://example.com/".ljust(MAX_URL_BYTES, "x")
    assert check_url(text).target == text.removeprefix("http://example.com")
    with pytest.raises(InvalidUrl, match="longer than 2048 bytes"):
        check_url(text + "x")


def test_label_of_the_greatest_length_is_taken() -> None:
    """63 characters."""
    assert check_url(f"http://{'a' * 63}.example/").host == f"{'a' * 63}.example"


def test_name_of_the_greatest_length_is_taken() -> None:
    """253 characters."""
    host = f"{'a.' * 126}a"
    assert check_url(f"http://{host}/").host == host


def test_url_in_a_log_does_not_tell_its_query() -> None:
    """Nor its path: both are where people put tokens."""
    assert "secret" not in repr(check_url("https://example.com/secret?token=secret"))
