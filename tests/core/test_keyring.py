"""API keys: their file, their form in memory, and who asks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.errors import ConfigError
from proxy.core.keyring import (
    ApiKey,
    Keyring,
    parse_key_file,
    presents_key,
    presents_stream_token,
)

ALICE = ApiKey.from_text("sk-alice", name="alice")
ROOT = ApiKey.from_text("sk-root", name="root", admin=True)
RING = Keyring([ALICE, ROOT])


def shown(keys: list[ApiKey]) -> list[tuple[str, bool]]:
    """Return names and ranks."""
    return [(key.name, key.admin) for key in keys]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("k", [("key-1", False)]),
        ("k1\nk2\n", [("key-1", False), ("key-2", False)]),
        ("bob:k", [("bob", False)]),
        ("bob:k:admin", [("bob", True)]),
        ("# a comment\n\n  # another\nk\n", [("key-1", False)]),
        ("  Bob's laptop : k".replace(" : ", ":"), [("Bob's laptop", False)]),
        ("bob:k\r\nk2\r\n", [("bob", False), ("key-1", False)]),
        ("\ufeffbob:k", [("bob", False)]),
        ("k1\nkey-1:k2\nk3", [("key-2", False), ("key-1", False), ("key-3", False)]),
        ("bob:#k", [("bob", False)]),
    ],
)
def test_parse_key_file_reads_the_three_forms(text: str, keys: list[tuple[str, bool]]) -> None:
    """Names, ranks and comments are as interface and habit say; unnamed keys are numbered."""
    assert shown(parse_key_file(text)) == keys


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "no key in it"),
        ("# only\n\n# comments", "no key in it"),
        ("bob:", "Line 1: the key must be visible ASCII"),
        ("\n\n:secret", "Line 3: the name must be"),
        (":", "Line 1: the name must be"),
        ("bob:secret:", "Line 1: expected"),
        ("bob:secret:root", "Line 1: expected"),
        ("bob:secret:Admin", "Line 1: expected"),
        ("bob:secret:admin:", "Line 1: expected"),
        ("secret\u00e9", "Line 1: the key must be visible ASCII"),
        ("b\u00f6b:secret", "Line 1: the name must be"),
        ("b\tb:secret", "Line 1: the name must be"),
        ("b" * 65 + ":secret", "Line 1: the name must be"),
        ("secret # of bob", "A comment has a line of its own"),
        ("bob: secret", "Line 1: the key must be visible ASCII"),
        ("a:x\nbob:secret\nbob:other", "Line 3: another key has the same name"),
        ("a:secret\nb:secret", "Line 2: the same key is given twice"),
        ("secret\nsecret", "Line 2: the same key is given twice"),
    ],
)
def test_parse_key_file_error_names_the_line_and_not_the_key(text: str, complaint: str) -> None:
    """The operator finds the line; the log does not get the key."""
    with pytest.raises(ConfigError, match=complaint) as caught:
        parse_key_file(text)
    assert "secret" not in str(caught.value)


def test_parse_key_file_knows_the_keys_given_elsewhere() -> None:
    """Names go on from those on the command line, and a key in both places is an error."""
    given_before = [ApiKey.from_text("k1")]
    assert shown(parse_key_file("k2", given_before)) == [("key-2", False)]
    with pytest.raises(ConfigError, match="given twice"):
        parse_key_file("other:k1:admin", given_before)


@pytest.mark.parametrize("text", ["", " ", "a b", "\u00e9", "a\n", "a\0"])
def test_from_text_malformed_key_is_an_error(text: str) -> None:
    """A key that no header could carry is refused at once."""
    with pytest.raises(ConfigError, match="visible ASCII"):
        ApiKey.from_text(text)


def test_api_key_holds_no_key() -> None:
    """Neither the text nor its digest is shown."""
    assert repr(ROOT) == "ApiKey(name='root', admin=True)"
    assert b"sk-root" not in ROOT.digest


def test_keyring_without_keys_requires_none() -> None:
    """No keys: nobody is asked, and nobody is known."""
    ring = Keyring()
    assert (ring.required, ring.any_admin) == (False, False)
    assert ring.identify([(b"X-Api-Key", b"x")]) is None


@pytest.mark.parametrize(("keys", "any_admin"), [([ALICE], False), ([ALICE, ROOT], True)])
def test_keyring_with_keys_requires_one(keys: list[ApiKey], any_admin: bool) -> None:
    """Ranks count once any key is marked."""
    assert (Keyring(keys).required, Keyring(keys).any_admin) == (True, any_admin)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"Authorization", b"Bearer sk-alice")],
        [(b"authorization", b"bearer sk-alice")],
        [(b"AUTHORIZATION", b"BEARER   sk-alice \t")],
        [(b"X-Api-Key", b"sk-alice")],
        [(b"x-api-key", b" sk-alice ")],
        [(b"Authorization", b"Bearer wrong"), (b"X-Api-Key", b"sk-alice")],
        [(b"Authorization", b"Bearer sk-alice"), (b"X-Api-Key", b"wrong")],
        [(b"Authorization", b"Basic x"), (b"X-Api-Key", b"sk-alice")],
        [(b"X-Api-Key", b"sk-alice"), (b"X-Api-Key", b"wrong")],
    ],
    ids=repr,
)
def test_identify_known_key_in_either_field(headers: list[tuple[bytes, bytes]]) -> None:
    """Bearer or x-api-key; one that is known is enough."""
    assert RING.identify(headers) is ALICE


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        ([], False),
        ([(b"Authorization", b"sk-alice")], False),
        ([(b"Authorization", b"Basic sk-alice")], False),
        ([(b"Authorization", b"Bearersk-alice")], False),
        ([(b"Authorization", b"Bearer")], False),
        ([(b"Authorization", b"Bearer sk-alice x")], False),
        ([(b"Authorization", b"Bearer sk-alic")], True),
        ([(b"Authorization", b"Bearer sk-alicee")], True),
        ([(b"Authorization", b"Bearer SK-ALICE")], True),
        ([(b"Authorization", b"Bearer wrong"), (b"Authorization", b"Bearer sk-alice")], True),
        ([(b"X-Api-Key", b"")], True),
        ([(b"X-Api-Key", b"\xff")], True),
        ([(b"Cookie", b"sk-alice")], False),
    ],
    ids=repr,
)
def test_identify_anything_else_is_nobody(
    headers: list[tuple[bytes, bytes]], presented: bool
) -> None:
    """Near misses, other schemes and second fields are no key; a wrong key is known to be one."""
    assert RING.identify(headers) is None
    assert presents_key(headers) is presented


@given(st.binary(max_size=64))
def test_identify_takes_exactly_the_key(candidate: bytes) -> None:
    """No other bytes are taken for a key."""
    found = RING.identify([(b"x-api-key", candidate)])
    assert (found is not None) == (candidate.strip(b" \t") in (b"sk-alice", b"sk-root"))


@pytest.mark.parametrize(
    ("headers", "presented"),
    [
        ([], False),
        ([(b"X-Stream-Token", b"t")], True),
        ([(b"x-STREAM-token", b"t")], True),
        ([(b"Host", b"localhost"), (b"X-Stream-Token", b"")], True),
        ([(b"X-Stream-Tokens", b"t")], False),
        ([(b"Authorization", b"Bearer t"), (b"X-Api-Key", b"t")], False),
    ],
    ids=repr,
)
def test_stream_token_is_presented_in_its_own_field(
    headers: list[tuple[bytes, bytes]], presented: bool
) -> None:
    """Whatever it is, an empty one too; no key is taken for one, and it is taken for no key."""
    assert presents_stream_token(headers) is presented
    assert RING.identify([(b"X-Stream-Token", b"sk-alice")]) is None
