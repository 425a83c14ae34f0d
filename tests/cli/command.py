"""Running the real command `python -m proxy` from the checkout, as a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Far more than any of these takes, far less than a test may.
PATIENCE_S = 30


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return ours, without options, with the checkout on the path."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LLAMA_", "PYTHON"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", **(extra or {})}


def argv_of(*arguments: str) -> list[str]:
    """Return the argv of `llama-proxy` with these arguments."""
    return [sys.executable, "-m", "proxy", *arguments]


def run_command(
    *arguments: str, environ: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end."""
    return subprocess.run(
        argv_of(*arguments),
        env=environment(environ),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
