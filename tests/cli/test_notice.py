"""The notice and the ready file."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from proxy.cli.notice import Ready, ReadyFile, curl_line, render
from proxy.core.errors import ConfigError

READY = Ready("http://127.0.0.1:8080", None, os.getpid(), 7, "qwen3", False)


def test_notice_names_url_and_model() -> None:
    """The first things that people look for."""
    told = render(READY, version="1.2", is_demo=False)
    assert told.startswith("llama-proxy 1.2 is ready: http://127.0.0.1:8080\nmodel: qwen3\n")


def test_notice_of_the_demo_model_says_how_to_give_ones_own() -> None:
    """Nobody should take its answers for a defect."""
    told = render(READY, version="1", is_demo=True)
    assert "the packaged demo model" in told
    assert "llama-proxy serve -m MODEL.gguf" in told


def test_notice_in_router_mode_says_that_requests_name_the_model() -> None:
    """There is none to be named here."""
    router = dataclasses.replace(READY, model=None)
    assert "model: the one that a request names" in render(router, version="1", is_demo=False)
    assert '"model": "MODEL"' in curl_line(router)


def test_curl_line_has_a_place_for_the_key_when_one_is_needed() -> None:
    """The shell puts it in; the notice says where it is to come from."""
    locked = dataclasses.replace(READY, api_key_required=True)
    assert '-H "Authorization: Bearer $KEY"' in curl_line(locked)
    assert "one of your API keys in the variable KEY" in render(locked, version="1", is_demo=False)
    assert "Authorization" not in curl_line(READY)


def test_curl_line_quotes_an_ipv6_address() -> None:
    """Some shells take brackets for a pattern."""
    assert "'http://[::1]:80/v1/chat/completions'" in curl_line(
        dataclasses.replace(READY, url="http://[::1]:80")
    )


def test_ready_file_has_the_keys_of_the_interface(tmp_path: Path) -> None:
    """Programs that start us read it."""
    path = tmp_path / "ready.json"
    ReadyFile(str(path)).write(READY)
    assert json.loads(path.read_text()) == {
        "url": "http://127.0.0.1:8080",
        "fast_url": None,
        "pid": os.getpid(),
        "llama_server_pid": 7,
        "model": "qwen3",
        "api_key_required": False,
    }


def test_ready_file_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """Its folder may have gone while the model was loaded."""
    with pytest.raises(ConfigError, match=r"--ready-file: .* cannot be written"):
        ReadyFile(str(tmp_path / "gone" / "ready.json")).write(READY)


def test_ready_file_is_removed(tmp_path: Path) -> None:
    """What is not ready has no ready file."""
    file = ReadyFile(str(tmp_path / "ready.json"))
    file.write(READY)
    file.remove()
    assert list(tmp_path.iterdir()) == []


def test_ready_file_of_another_process_is_left(tmp_path: Path) -> None:
    """It has taken our place since."""
    path = tmp_path / "ready.json"
    file = ReadyFile(str(path))
    file.write(dataclasses.replace(READY, pid=os.getpid() + 1))
    file.remove()
    assert path.exists()


@pytest.mark.parametrize("content", ["", '{"url": "http://a", "pid": 1}'])
def test_ready_file_of_a_killed_run_is_cleared(tmp_path: Path, content: str) -> None:
    """Also an empty one, as mktemp makes them."""
    path = tmp_path / "ready.json"
    path.write_text(content)
    ReadyFile(str(path)).clear()
    assert not path.exists()


@pytest.mark.parametrize("content", ["notes", "[]", '{"pid": 1}', "GGUF" * 50_000])
def test_file_that_is_no_ready_file_is_not_touched(tmp_path: Path, content: str) -> None:
    """A mistyped path may be a model."""
    path = tmp_path / "x"
    path.write_text(content)
    with pytest.raises(ConfigError, match="is no ready file; name another"):
        ReadyFile(str(path)).clear()
    assert path.read_text() == content


def test_no_ready_file_does_nothing() -> None:
    """Without the option."""
    file = ReadyFile(None)
    file.clear()
    file.write(READY)
    file.remove()
