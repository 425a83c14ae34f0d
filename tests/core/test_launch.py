"""Tests of `proxy.core.launch`."""

from __future__ import annotations

import pytest

from proxy.core.errors import ConfigError
from proxy.core.launch import (
    OWNED_ARGUMENTS,
    build_argv,
    build_environment,
    check_extra_args,
    names_model,
)


@pytest.mark.parametrize("flag", sorted(OWNED_ARGUMENTS))
def test_check_extra_args_owned_flag_is_refused_by_name_with_the_reason(flag: str) -> None:
    """Whoever passes an owned argument reads which one and why not."""
    with pytest.raises(ConfigError) as caught:
        check_extra_args(["-ngl", "99", flag, "x"])
    assert str(caught.value) == f"{flag} cannot be passed to llama-server: {OWNED_ARGUMENTS[flag]}."


@pytest.mark.parametrize(
    "spelling", ["--port=1", "--api_key", "--api_key=secret", "--ssl_key_file"]
)
def test_check_extra_args_other_spellings_are_refused(spelling: str) -> None:
    """llama-server reads `_` as `-`, and people write `=`."""
    with pytest.raises(ConfigError):
        check_extra_args([spelling])


def test_check_extra_args_value_is_not_in_the_message() -> None:
    """A key that was put into the wrong place is not repeated."""
    with pytest.raises(ConfigError) as caught:
        check_extra_args(["--api-key=hunter2"])
    assert "hunter2" not in str(caught.value)


def test_check_extra_args_anything_else_passes() -> None:
    """What the proxy does not own is llama-server's to judge."""
    check_extra_args(["-ngl", "99", "--ctx-size", "8192", "--hostile", "--portable", "-H", "port"])


@pytest.mark.parametrize(
    "args",
    [
        ["-m", "x.gguf"],
        ["--model", "x.gguf"],
        ["--model=x.gguf"],
        ["-hf", "org/model"],
        ["-hff", "file"],
        ["--hf-repo", "org/model"],
        ["--hf_repo", "org/model"],
        ["-mu", "https://example.org/x.gguf"],
        ["--model-url", "https://example.org/x.gguf"],
        ["--models-dir", "."],
        ["--models-preset", "x.ini"],
        ["-np", "2", "--gpt-oss-20b-default"],
    ],
    ids=lambda args: args[-2] if len(args) > 1 else args[0],
)
def test_names_model_argument_that_names_one_is_seen(args: list[str]) -> None:
    """Each way of llama-server to name a model counts."""
    assert names_model(args)


def test_names_model_other_arguments_do_not_count() -> None:
    """Neither a draft model nor a projector is the model."""
    assert not names_model(["-md", "draft.gguf", "--mmproj", "x.gguf", "--model-draft", "y.gguf"])


def test_build_argv_unix_socket_has_no_port() -> None:
    """llama-server serves on a path that ends in `.sock`."""
    argv = build_argv(
        ["llama-server"], host="/run/x.sock", model_path="m.gguf", extra_args=["-ngl", "99"]
    )
    assert argv == [
        *("llama-server", "--host", "/run/x.sock", "--model", "m.gguf"),
        *("-ngl", "99"),
    ]


def test_build_argv_loopback_asks_for_any_free_port() -> None:
    """Port 0 is passed on, so that two starts never race for one port."""
    argv = build_argv(["py", "-m", "x"], host="127.0.0.1", port=0)
    assert argv == ["py", "-m", "x", "--host", "127.0.0.1", "--port", "0"]


def test_build_environment_key_is_there_and_the_rest_is_inherited() -> None:
    """llama-server gets its key, and the user's own variables."""
    found = build_environment({"PATH": "/bin", "CUDA_X": "1"}, api_key="k", keep_model=True)
    assert found == {"PATH": "/bin", "CUDA_X": "1", "LLAMA_API_KEY": "k"}


@pytest.mark.parametrize(
    "name",
    [
        "LLAMA_API_KEY",
        "LLAMA_ARG_API_KEY_FILE",
        "LLAMA_ARG_API_PREFIX",
        "LLAMA_ARG_HOST",
        "LLAMA_ARG_PORT",
        "LLAMA_ARG_REUSE_PORT",
        "LLAMA_ARG_SSL_CERT_FILE",
        "LLAMA_ARG_SSL_KEY_FILE",
        "LLAMA_PROXY_API_KEY",
        "LLAMA_SERVER_ROUTER_PORT",
    ],
)
def test_build_environment_variable_that_fights_us_is_dropped(name: str) -> None:
    """What would set an owned argument, or hold a client's key, is not passed on."""
    found = build_environment({name: "theirs"}, api_key="ours", keep_model=True)
    assert "theirs" not in found.values()


def test_build_environment_model_is_dropped_when_we_name_one() -> None:
    """A second model in the environment would be downloaded, or end router mode."""
    environ = {"LLAMA_ARG_MODEL": "a", "LLAMA_ARG_HF_REPO": "b", "LLAMA_ARG_MODELS_DIR": "c"}
    dropped = build_environment(environ, api_key="k", keep_model=False)
    assert dropped == {"LLAMA_API_KEY": "k", "LLAMA_ARG_MODELS_DIR": "c"}
    assert environ.items() < build_environment(environ, api_key="k", keep_model=True).items()
