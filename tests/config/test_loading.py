"""`load`: precedence, what becomes of the sources, and that a `Config` keeps its secrets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from proxy.config import load
from proxy.core.errors import ConfigError

SECRET = "sk-very-secret"


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A file that gives a port, a queue and a drain time."""
    path = tmp_path / "x.toml"
    path.write_text("port = 1\nmax-queue = 1\ndrain-s = 1\nvia = true\n")
    return path


def test_command_line_goes_before_environment_before_file_before_default(config_file: Path) -> None:
    """Each source shows where no earlier one speaks."""
    config = load(
        ["--config", str(config_file), "--port", "3"],
        {"LLAMA_PROXY_PORT": "2", "LLAMA_PROXY_MAX_QUEUE": "2"},
    )
    assert (config.port, config.max_queue, config.drain_s) == (3, 2, 1.0)
    assert config.send_timeout_s == 30.0


def test_switch_that_the_file_turns_on_is_turned_off_again(config_file: Path) -> None:
    """Otherwise the command line would not go before the file."""
    environ = {"LLAMA_PROXY_CONFIG": str(config_file)}
    assert load([], environ).via is True
    assert load(["--no-via"], environ).via is False


def test_repeatable_option_is_taken_from_one_source() -> None:
    """The earlier source replaces the later one, it does not add to it."""
    config = load(["--cors-origin", "https://b"], {"LLAMA_PROXY_CORS_ORIGIN": "https://a"})
    assert config.cors_origins == ("https://b",)


def test_bad_value_is_an_error_even_where_another_goes_before_it() -> None:
    """A mistake is told when it is made, not when it begins to count."""
    with pytest.raises(ConfigError, match=r"^LLAMA_PROXY_PORT must be"):
        load(["--port", "1"], {"LLAMA_PROXY_PORT": "x"})


def test_bad_value_in_the_file_names_key_and_file(config_file: Path) -> None:
    """As people look for it."""
    config_file.write_text("port = 65536\n")
    with pytest.raises(ConfigError, match=rf"^port in {config_file} must be .*, not '65536'\.$"):
        load(["--config", str(config_file)], {})


def test_config_cannot_be_changed() -> None:
    """It is one value for the whole run."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load([], {}).port = 1  # type: ignore[misc]


def test_config_shows_no_secret(tmp_path: Path) -> None:
    """Neither keys nor llama-server's own arguments stand in its repr."""
    key_file = tmp_path / "key"
    key_file.write_text(SECRET)
    shown = repr(
        load(
            ["--api-key", f"me:{SECRET}", "--upstream-url=http://a"],
            {"LLAMA_PROXY_UPSTREAM_API_KEY_FILE": str(key_file)},
        )
    ) + repr(load(["--", "--hf-token", SECRET], {}))
    assert SECRET not in shown


def test_address_that_others_reach_needs_keys() -> None:
    """The rule looks at the keys of every source."""
    with pytest.raises(ConfigError, match="--api-key-file"):
        load(["--host", "0.0.0.0"], {})
    assert load(["--host", "0.0.0.0"], {"LLAMA_PROXY_API_KEY": "k"}).hosts == ("0.0.0.0",)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], True),
        (["--", "-ngl", "9"], True),
        (["--", "-hf", "a/b"], False),
        (["--router"], False),
        (["--upstream-url=http://a"], False),
    ],
)
def test_demo_model_is_served_when_nothing_names_another(argv: list[str], expected: bool) -> None:
    """And then the notice says so."""
    assert load(argv, {}).serves_demo_model is expected
