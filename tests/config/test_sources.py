"""Reading the command line, the environment and a TOML table: spellings and mistakes."""

from __future__ import annotations

import pytest

from proxy.config.sources import Given, read_arguments, read_environment, read_table
from proxy.core.errors import ConfigError

SECRET = "sk-very-secret"


# --- the command line ---


@pytest.mark.parametrize("argv", [["--port", "80"], ["--port=80"], ["--port", "1", "--port", "80"]])
def test_flag_takes_its_value_from_the_next_word_or_behind_an_equals_sign(argv: list[str]) -> None:
    """Both spellings are usual; the last one wins."""
    assert read_arguments(argv)[0] == {"port": Given(80, "--port")}


def test_short_flag_is_the_long_one() -> None:
    """`-m` is `--model`."""
    assert read_arguments(["-m", "x.gguf"])[0]["model"].value == "x.gguf"


def test_repeated_flag_gathers_all_values() -> None:
    """A repeatable option keeps the order in which it was given."""
    given, _ = read_arguments(["--host", "::1", "--host=127.0.0.1"])
    assert given["host"].value == ("::1", "127.0.0.1")


@pytest.mark.parametrize(("argv", "value"), [(["--via"], True), (["--no-via"], False)])
def test_switch_stands_alone_and_can_be_negated(argv: list[str], value: bool) -> None:
    """Without the negation nothing could turn off what the environment turns on."""
    assert read_arguments(argv)[0]["via"].value is value


def test_switch_takes_a_value_behind_an_equals_sign_only() -> None:
    """The next word is not its value."""
    assert read_arguments(["--via=off", "--router"])[0]["via"].value is False


def test_arguments_behind_two_dashes_are_left_as_they_are() -> None:
    """They are llama-server's, also where they look like ours."""
    given, extra = read_arguments(["--port", "1", "--", "-ngl", "99", "--port", "--", "2"])
    assert given["port"].value == 1
    assert extra == ("-ngl", "99", "--port", "--", "2")


@pytest.mark.parametrize(
    ("argv", "nearest"),
    [(["--prot", "80"], "--port"), (["--max-queu=3"], "--max-queue"), (["-M"], "-m")],
)
def test_unknown_flag_is_told_with_the_nearest_one(argv: list[str], nearest: str) -> None:
    """The error names what was written and what was probably meant."""
    with pytest.raises(
        ConfigError, match=rf"unknown option {argv[0].split('=')[0]}; .* {nearest} "
    ):
        read_arguments(argv)


def test_unknown_flag_hints_at_where_llama_servers_arguments_go() -> None:
    """`-ngl` without `--` before it is the likeliest mistake."""
    with pytest.raises(ConfigError, match="llama-server's own arguments go behind --"):
        read_arguments(["-ngl", "99"])


@pytest.mark.parametrize("argv", [["--port"], ["--port", "--host", "::1"], ["--port", "-m", "x"]])
def test_flag_without_its_value_says_what_it_needs(argv: list[str]) -> None:
    """Another flag is not taken for the value."""
    with pytest.raises(
        ConfigError, match=r"--port needs a value: a whole number from 0 to 65535\."
    ):
        read_arguments(argv)


def test_negative_number_is_a_value() -> None:
    """It is refused for its bounds, not taken for a flag."""
    with pytest.raises(ConfigError, match=r"--port must be a whole number .*, not '-1'\."):
        read_arguments(["--port", "-1"])


def test_model_without_its_flag_is_told_how_to_give_it() -> None:
    """A positional model file is the second likeliest mistake."""
    with pytest.raises(ConfigError, match=r"give the model as -m x\.gguf"):
        read_arguments(["x.gguf"])


def test_stray_word_is_not_shown() -> None:
    """It may be the second half of a key with a blank in it."""
    with pytest.raises(ConfigError, match="argument 3 is no option") as caught:
        read_arguments(["--api-key", "k", SECRET])
    assert SECRET not in str(caught.value)


def test_long_value_is_shown_in_part() -> None:
    """An error is one line, whatever was pasted."""
    with pytest.raises(ConfigError) as caught:
        read_arguments(["--port", "9" * 10_000])
    assert len(str(caught.value)) < 200


# --- the environment ---


def test_variable_gives_an_option() -> None:
    """Other variables are none of our business."""
    found = read_environment({"LLAMA_PROXY_QUEUE_TIMEOUT_S": "1.5", "LLAMA_ARG_CTX_SIZE": "1"})
    assert found == {"queue-timeout-s": Given(1.5, "LLAMA_PROXY_QUEUE_TIMEOUT_S")}


def test_variable_separates_repeated_values_with_commas() -> None:
    """Blanks around them do not count."""
    found = read_environment({"LLAMA_PROXY_HOST": "127.0.0.1, ::1"})
    assert found["host"].value == ("127.0.0.1", "::1")


def test_empty_variable_counts_as_not_set() -> None:
    """Container tools set variables to nothing where others would leave them out."""
    assert read_environment({"LLAMA_PROXY_PORT": "", "LLAMA_PROXY_HOST": ""}) == {}


def test_unknown_variable_is_told_with_the_nearest_one() -> None:
    """A mistyped variable would otherwise do nothing, in silence."""
    with pytest.raises(ConfigError, match=r"LLAMA_PROXY_PROT; .* LLAMA_PROXY_PORT"):
        read_environment({"LLAMA_PROXY_PROT": "80"})


def test_bad_variable_is_named_with_what_is_accepted() -> None:
    """The error names the variable, not the flag."""
    with pytest.raises(
        ConfigError, match=r"^LLAMA_PROXY_VIA must be true or false, not 'maybe'\.$"
    ):
        read_environment({"LLAMA_PROXY_VIA": "maybe"})


def test_bad_key_in_a_variable_is_not_shown() -> None:
    """A secret never appears in an error, nor in its cause."""
    with pytest.raises(ConfigError, match="LLAMA_PROXY_API_KEY must be") as caught:
        read_environment({"LLAMA_PROXY_API_KEY": f"é{SECRET},b"})
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_bad_url_is_not_shown() -> None:
    """It may have a password in it."""
    with pytest.raises(ConfigError, match=r"^--upstream-url must be an http") as caught:
        read_arguments(["--upstream-url", f"http://user:{SECRET}@host"])
    assert SECRET not in str(caught.value)


# --- a TOML table ---


def test_table_takes_dashes_and_underscores() -> None:
    """Both spellings of a key are usual in TOML files."""
    found = read_table({"max-queue": 1, "drain_s": 2}, "x.toml")
    assert found["max-queue"] == Given(1, "max-queue in x.toml")
    assert found["drain-s"] == Given(2.0, "drain_s in x.toml")


def test_table_takes_lists_and_single_values_of_repeatable_options() -> None:
    """One host needs no list."""
    assert read_table({"host": ["::1", "localhost"]}, "x")["host"].value == ("::1", "localhost")
    assert read_table({"host": "::1"}, "x")["host"].value == ("::1",)


def test_table_with_an_empty_list_gives_none() -> None:
    """So that a file can say that there is none."""
    assert read_table({"cors-origin": []}, "x")["cors-origin"].value == ()


def test_table_takes_booleans_for_switches() -> None:
    """TOML has its own words for them."""
    assert read_table({"via": True}, "x")["via"].value is True


@pytest.mark.parametrize(
    ("key", "value"),
    [("port", "80"), ("port", True), ("port", 1.0), ("via", "yes"), ("via", 1), ("model", 1),
     ("port", [80]), ("host", [["::1"]]), ("drain-s", False), ("port", {"a": 1})],
)  # fmt: skip
def test_table_value_of_the_wrong_type_is_refused(key: str, value: object) -> None:
    """TOML has types, and a wrong one is a mistake."""
    with pytest.raises(ConfigError, match=rf"^{key} in x\.toml must be "):
        read_table({key: value}, "x.toml")


@pytest.mark.parametrize(("key", "nearest"), [("prot", "port"), ("max-queues", "max-queue")])
def test_unknown_key_is_told_with_the_nearest_one(key: str, nearest: str) -> None:
    """The file is named, since there may be several."""
    with pytest.raises(ConfigError, match=rf"unknown key {key} in x\.toml; .* {nearest}\.$"):
        read_table({key: 1}, "x.toml")


def test_table_cannot_name_another_file() -> None:
    """`config` is no key of the file."""
    with pytest.raises(ConfigError, match="unknown key config"):
        read_table({"config": "y.toml"}, "x.toml")


def test_key_in_both_spellings_is_refused() -> None:
    """Neither of the two could be said to win."""
    with pytest.raises(ConfigError, match=r"^max-queue stands in x\.toml twice"):
        read_table({"max-queue": 1, "max_queue": 2}, "x.toml")
