"""The kinds of values: what each takes and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config.kinds import (
    ALLOWED_HOST,
    ENGINE_CHOICE,
    HOST,
    ORIGIN,
    PATH,
    SWITCH,
    URL,
    choice,
    seconds,
    whole,
)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("65535", 65535), ("+7", 7), ("007", 7)])
def test_whole_number_within_bounds_is_taken(text: str, value: int) -> None:
    """Both bounds are included; a sign and leading zeros do no harm."""
    assert whole(0, 65535).read(text) == value


@pytest.mark.parametrize(
    "text", ["-1", "65536", "1.0", "1e3", " 1", "1_0", "", "-", "0x10", "٣", "9" * 5000]
)
def test_whole_number_of_another_form_or_out_of_bounds_is_refused(text: str) -> None:
    """What Python's `int` would be lenient about is refused too, and what it would choke on."""
    with pytest.raises(ValueError):  # noqa: PT011  # the message is made by the caller
        whole(0, 65535).read(text)


@pytest.mark.parametrize(
    ("text", "value"), [("0.5", 0.5), ("30", 30.0), ("1e1", 10.0), (".5", 0.5)]
)
def test_seconds_may_have_fractions(text: str, value: float) -> None:
    """A duration is any finite number within its bounds."""
    assert seconds(0, 60).read(text) == value


@pytest.mark.parametrize("text", ["-0.1", "61", "inf", "nan", "1_0", "5s", "", " 5", "٣"])
def test_seconds_of_another_form_or_out_of_bounds_are_refused(text: str) -> None:
    """Units, infinity and what is no number are no durations."""
    with pytest.raises(ValueError):  # noqa: PT011
        seconds(0, 60).read(text)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("1", True), ("off", False), ("0", False)]
)
def test_switch_takes_the_usual_words(text: str, value: bool) -> None:
    """The words that other tools take in the environment."""
    assert SWITCH.read(text) is value


def test_switch_refuses_other_words() -> None:
    """A mistyped word must not turn anything on or off."""
    with pytest.raises(ValueError):  # noqa: PT011
        SWITCH.read("maybe")


def test_choice_takes_its_words_only() -> None:
    """A choice is one of its words, spelled as they are."""
    assert choice("text", "json").read("json") == "json"
    with pytest.raises(ValueError):  # noqa: PT011
        choice("text", "json").read("JSON")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
        ("localhost", "localhost"),
        ("gpu-box.lan.", "gpu-box.lan."),
    ],
)
def test_host_takes_addresses_and_names(text: str, value: str) -> None:
    """IPv4, IPv6 with or without brackets, and names."""
    assert HOST.read(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "*", "a b", "a..b", "127.0.0.1:80", "[::1]:80", "http://a", "a/b", "[a]", "x" * 64, "é"],
)
def test_host_refuses_ports_urls_and_wildcards(text: str) -> None:
    """A host is a host alone."""
    with pytest.raises(ValueError):  # noqa: PT011
        HOST.read(text)


def test_allowed_host_is_lower_case_or_star() -> None:
    """Host names compare without case, so they are kept in one."""
    assert ALLOWED_HOST.read("GPU.lan") == "gpu.lan"
    assert ALLOWED_HOST.read("*") == "*"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("https://App.Example", "https://app.example"),
        ("https://app.example:443", "https://app.example"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ("upstream", "upstream"),
    ],
)
def test_origin_becomes_what_browsers_send(text: str, value: str) -> None:
    """Lower case and without the scheme's own port, or it would never match."""
    assert ORIGIN.read(text) == value


@pytest.mark.parametrize(
    "text",
    ["*", "null", "app.example", "https://a/", "https://a/b", "https://*.a", "https://u@a", "https://",
     "https://a:99999", "://a", "https://a,https://b"],
)  # fmt: skip
def test_origin_refuses_patterns_and_paths(text: str) -> None:
    """An origin is exact; a pattern would be matched by nothing and look as if it were safe."""
    with pytest.raises(ValueError):  # noqa: PT011
        ORIGIN.read(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("http://10.0.0.2:8080", "http://10.0.0.2:8080"),
        ("https://gpu.lan/llama/", "https://gpu.lan/llama"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_url_may_have_a_base_path(text: str, value: str) -> None:
    """A llama-server may stand behind a path; the final slash goes."""
    assert URL.read(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "gpu.lan", "ftp://a", "http://", "http:///x", "http://u:p@a", "http://a?b=1", "http://a#b",
     "http://a:0", "http://a:99999", "http://a b", "http://é", "http://a\n", "unix:/x.sock"],
)  # fmt: skip
def test_url_with_anything_but_host_and_path_is_refused(text: str) -> None:
    """Credentials, queries and fragments have no place in a base URL."""
    with pytest.raises(ValueError):  # noqa: PT011
        URL.read(text)


def test_path_expands_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`~` works in the environment and in a file, where no shell expands it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PATH.read("~/model.gguf") == str(tmp_path / "model.gguf")


@pytest.mark.parametrize("text", ["", " ", "a\0b", "~nobody-of-this-name/x"])
def test_path_that_cannot_be_one_is_refused(text: str) -> None:
    """An empty path would mean the current folder, which is never meant."""
    with pytest.raises(ValueError):  # noqa: PT011
        PATH.read(text)


def test_engine_choice_takes_the_word_embedded_as_it_is() -> None:
    """`embedded` is no path."""
    assert ENGINE_CHOICE.read("embedded") == "embedded"
