"""Which options exclude or need one another, and what may be bound without keys."""

from __future__ import annotations

import pytest

from proxy.config import rules
from proxy.config.sources import Given, read_arguments
from proxy.core.errors import ConfigError


def check(*argv: str) -> None:
    """Apply the rules to a command line."""
    rules.check(*read_arguments(argv))


URL = "--upstream-url=http://a"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--router", "-m", "x"], "--router cannot be used with --model"),
        ([URL, "-m", "x"], "--upstream-url cannot be used with --model"),
        ([URL, "--router"], "--upstream-url cannot be used with --router"),
        ([URL, "--llama-server", "x"], "--upstream-url cannot be used with --llama-server"),
        ([URL, "--exit-on-failed"], "--upstream-url cannot be used with --exit-on-failed"),
        ([URL, "--", "-ngl", "9"], "--upstream-url cannot be used with arguments after --"),
        (["-m", "x", "--", "-hf", "y"], "--model cannot be used with arguments after -- that name"),
        (["--certfile", "x"], "--certfile needs --keyfile"),
        (["--keyfile", "x"], "--keyfile needs --certfile"),
        (["--upstream-api-key-file", "x"], "--upstream-api-key-file needs --upstream-url"),
        (["--slots", "4"], "--slots needs --upstream-url as well, or give llama-server its own"),
        (["--", "--port", "1"], "--port cannot be passed to llama-server"),
        (["--", "--port=1"], "--port cannot be passed to llama-server"),
    ],
)
def test_options_that_do_not_go_together_are_refused(argv: list[str], message: str) -> None:
    """The error names both, and says why or what to do."""
    with pytest.raises(ConfigError, match=message):
        check(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["-m", "x", "--", "-ngl", "99"],
        ["--router", "--", "--models-dir", "x"],
        [URL, "--no-router", "--no-exit-on-failed", "--slots=4", "--upstream-api-key-file=x"],
        ["--certfile", "x", "--keyfile", "y"],
    ],
)
def test_options_that_go_together_are_accepted(argv: list[str]) -> None:
    """A switch that is off excludes nothing."""
    check(*argv)


def test_error_names_the_sources_that_contradict() -> None:
    """They may stand in different places."""
    given = {
        "router": Given(True, "LLAMA_PROXY_ROUTER"),
        "model": Given("x", "model in x.toml"),
    }
    with pytest.raises(ConfigError, match=r"^LLAMA_PROXY_ROUTER cannot .* model in x\.toml: "):
        rules.check(given, ())


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_may_be_bound_without_keys(host: str) -> None:
    """Only this machine can reach it."""
    rules.check_exposure((host,), has_keys=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "gpu.lan", "0", "127.1"])
def test_other_addresses_may_not_be_bound_without_keys(host: str) -> None:
    """The error names the option that would allow it; names mean what a resolver says."""
    with pytest.raises(ConfigError, match=f"--host {host} is not a loopback.*--api-key-file"):
        rules.check_exposure(("127.0.0.1", host), has_keys=False)


def test_any_address_may_be_bound_with_keys() -> None:
    """Then the keys decide who may use the model."""
    rules.check_exposure(("0.0.0.0", "gpu.lan"), has_keys=True)
