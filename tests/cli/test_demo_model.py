"""`llama-proxy demo-model`: the file it writes, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from proxy.cli import main
from tests.cli.command import run_command

GGUF_MAGIC = b"GGUF"
MAX_BYTES = 2 * 1024 * 1024


def test_demo_model_is_written_whole(tmp_path: Path) -> None:
    """A GGUF file of at most 2 MiB, and no draft beside it."""
    path = tmp_path / "demo.gguf"
    done = run_command("demo-model", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert f"llama-proxy serve -m {path}" in done.stdout
    assert path.read_bytes()[:4] == GGUF_MAGIC
    assert path.stat().st_size <= MAX_BYTES
    assert list(tmp_path.iterdir()) == [path]


def test_demo_model_does_not_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped path may be a model that took hours to download."""
    path = tmp_path / "demo.gguf"
    path.write_text("precious")
    assert main(["demo-model", str(path)]) == 2
    assert "give --force to overwrite it" in capsys.readouterr().err
    assert path.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [path]


def test_demo_model_overwrites_with_force(tmp_path: Path) -> None:
    """Whoever says so means it."""
    path = tmp_path / "demo.gguf"
    path.write_text("old")
    assert main(["demo-model", "--force", str(path)]) == 0
    assert path.read_bytes()[:4] == GGUF_MAGIC


def test_demo_model_into_a_folder_asks_for_a_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No name is made up."""
    assert main(["demo-model", str(tmp_path)]) == 2
    assert "is a folder; give the name of the file" in capsys.readouterr().err


def test_demo_model_where_nothing_can_be_written_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The system's reason, in one line."""
    path = tmp_path / "missing" / "demo.gguf"
    assert main(["demo-model", str(path)]) == 2
    assert f"cannot write {path}: no such file or directory." in capsys.readouterr().err


def test_demo_model_has_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    """With its one option."""
    assert main(["demo-model", "--help"]) == 0
    assert "--force" in capsys.readouterr().out
