"""The wheel: built, installed into an empty environment, and the main job run from there.

Nothing of the checkout is on the path of what runs here but `constraints.txt`. Packages come from
wherever this machine's own settings say.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zipfile import ZipFile

import pytest
import trio

from proxy._version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[1]

# The first installation on a machine downloads everything; a second one takes seconds.
pytestmark = pytest.mark.timeout(300)


class Installed(NamedTuple):
    """An environment that holds the wheel and what it requires, and nothing else."""

    python: Path
    command: Path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout without leaving anything in it."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder), cwd=CHECKOUT)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an empty environment, with the embedded runtime, as a user installs it."""
    venv = tmp_path_factory.mktemp("empty") / "venv"
    python = venv / "bin" / "python"
    wanted = f"trio-llama-proxy[embedded] @ {wheel.as_uri()}"
    locked = ["--constraint", str(CHECKOUT / "constraints.txt")]
    uv = shutil.which("uv")
    if uv:
        run(uv, "venv", "--python", sys.executable, str(venv), cwd=venv.parent)
        run(uv, "pip", "install", "--python", str(python), *locked, wanted, cwd=venv.parent)
    else:
        run(sys.executable, "-m", "venv", str(venv), cwd=venv.parent)
        run(str(python), "-m", "pip", "install", *locked, wanted, cwd=venv.parent)
    return Installed(python, venv / "bin" / "llama-proxy")


def run(*argv: str, cwd: Path) -> str:
    """Run a command to its end and return what it printed; a failure shows all of it."""
    done = subprocess.run(
        argv, cwd=cwd, env=clean_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{argv} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout


def clean_environment() -> dict[str, str]:
    """The environment without what would lead back to the checkout or to another llama-server."""
    ours = ("PYTHONPATH", "VIRTUAL_ENV", "LLAMA_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def test_wheel_built_carries_every_file_of_the_package(wheel: Path) -> None:
    """What lies in proxy/ is in the wheel: the code, py.typed, the demo model, what is served."""
    kept = {
        path.relative_to(CHECKOUT).as_posix()
        for path in (CHECKOUT / "proxy").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if ".dist-info/" not in name}

    assert carried == kept
    assert {"proxy/py.typed", "proxy/data/demo.gguf"} <= carried


def test_wheel_built_carries_its_licence(wheel: Path) -> None:
    """The licence travels with the code, as it asks for."""
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert len(names) == 1
        assert archive.read(names[0]) == (CHECKOUT / "LICENSE").read_bytes()


def test_installed_wheel_asked_for_its_version_tells_it(
    installed: Installed, tmp_path: Path
) -> None:
    """`llama-proxy --version` runs from the installed wheel, not from the checkout."""
    assert __version__ in run(str(installed.command), "--version", cwd=tmp_path)

    where = run(str(installed.python), "-c", "import proxy; print(proxy.__file__)", cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.python.parents[1])


async def test_installed_wheel_started_serves_the_demo_model_and_stops(
    installed: Installed, tmp_path: Path
) -> None:
    """The main job: start without a model, chat, SIGTERM; exit 0 and nothing left behind."""
    ready_file = tmp_path / "ready.json"
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    argv = [
        str(installed.command),
        "serve",
        "--port",
        "0",
        "--fast-port",
        "0",
        "--llama-server",
        "embedded",
    ]
    with running([*argv, "--ready-file", str(ready_file)], cwd) as process:
        ready = await wait_ready(ready_file, process)
        reply = await trio.to_thread.run_sync(chat, ready["url"])
        process.send_signal(signal.SIGTERM)
        with trio.fail_after(30):
            code = await trio.to_thread.run_sync(process.wait, abandon_on_cancel=True)

    assert reply["object"] == "chat.completion"
    assert reply["choices"][0]["message"]["content"].strip()
    assert code == 0, (tmp_path / "stderr").read_text()
    assert not ready_file.exists()
    assert not list(cwd.iterdir())
    with pytest.raises(ProcessLookupError):
        os.kill(ready["llama_server_pid"], 0)


@contextlib.contextmanager
def running(argv: list[str], cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its standard error in a file beside its folder; never leave it running."""
    with (
        (cwd.parent / "stderr").open("wb") as stderr,
        subprocess.Popen(
            argv, cwd=cwd, env=clean_environment(), stdout=stderr, stderr=stderr
        ) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


async def wait_ready(ready_file: Path, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Return what the ready file says once it is there."""
    with trio.fail_after(60):
        # The file is another process's: there is no event to wait for, only the file to look at.
        while not ready_file.exists():
            assert process.poll() is None, (ready_file.parent / "stderr").read_text()
            await trio.sleep(0.02)
    found: dict[str, Any] = json.loads(ready_file.read_text())
    return found


def chat(url: str) -> dict[str, Any]:
    """Ask for one chat completion, with the standard library only."""
    body = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 32}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as reply:
        found: dict[str, Any] = json.load(reply)
    return found
