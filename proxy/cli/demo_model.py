"""`llama-proxy demo-model PATH`: writes the packaged demo model.

Owns the arguments of this command. The model itself is package data, made by scripts/.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from proxy.cli.output import say, write_atomically
from proxy.core.errors import ConfigError

USAGE = """\
usage: llama-proxy demo-model [--force] PATH

Write the packaged demo model, a GGUF file under 2 MiB, to PATH.

  --force
        Overwrite a file that is there."""


def run(arguments: Sequence[str]) -> int:
    """Write the demo model where the arguments say.

    Raises:
        ConfigError: The arguments are not one path, or it cannot be written.
    """
    if "-h" in arguments or "--help" in arguments:
        say(USAGE)
        return 0
    path = _read_path([argument for argument in arguments if argument != "--force"])
    content = (files("proxy") / "data" / "demo.gguf").read_bytes()
    try:
        write_atomically(path, content, overwrite="--force" in arguments)
    except FileExistsError:
        raise ConfigError(f"{path} exists; give --force to overwrite it.") from None
    except OSError as error:
        reason = (error.strerror or "it failed").lower()
        raise ConfigError(f"cannot write {path}: {reason}.") from error
    say(f"{path}: {len(content) / 1024**2:.1f} MiB; serve it with llama-proxy serve -m {path}")
    return 0


def _read_path(arguments: Sequence[str]) -> Path:
    for argument in arguments:
        if argument.startswith("-"):
            raise ConfigError(f"unknown option {argument} of demo-model; the only one is --force.")
    if len(arguments) != 1:
        raise ConfigError("demo-model takes one PATH, the file to write.")
    path = Path(arguments[0])
    if path.is_dir():
        raise ConfigError(f"{path} is a folder; give the name of the file to write.")
    return path
