"""LiteLLM's proxy, with the upstream as its one OpenAI-compatible provider.

One worker, no keys, no database, nothing logged, nothing that it would fetch from the internet:
what it does for a request is what it does for any. It pins other versions of packages than ours, so
it has an environment of its own, in ours, made with the versions of `litellm.txt` when it is needed
first (scripts/lock has nothing to do with that file: see its first lines).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from benchmark.paced_upstream import TOTAL_SLOTS
from benchmark.peers.peer import Listening, Tell
from benchmark.processes import BenchmarkError, Children, answers, free_port
from benchmark.wire import MODEL

_LOCK = Path(__file__).with_name("litellm.txt")
# Ours is made by the scripts and belongs to them: what is in it goes with it.
_ENVIRONMENT = Path(sys.prefix) / "litellm"
_STAMP = _ENVIRONMENT / "installed"

_CONFIGURATION = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://127.0.0.1:{upstream_port}/v1
      api_key: none
"""
_ENVIRON = {
    # Else it refuses to serve without keys; the others ask for none either.
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOG": "ERROR",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_LOCAL_AUTOROUTER_PRESETS": "True",
    "LITELLM_LOCAL_BLOG_POSTS": "True",
    "LITELLM_LOCAL_POLICY_TEMPLATES": "True",
    "DISABLE_ADMIN_UI": "True",
    "NO_DOCS": "True",
    # Its limits of 1000 and 500 upstream connections are not what is measured.
    "AIOHTTP_CONNECTOR_LIMIT": str(TOTAL_SLOTS),
    "AIOHTTP_CONNECTOR_LIMIT_PER_HOST": str(TOTAL_SLOTS),
}


def prepare(tell: Tell) -> None:
    """Install it, unless it is there in the versions wanted.

    Raises:
        BenchmarkError: When that fails.
    """
    wanted = f"{sys.version}\n{_LOCK.read_text()}"
    if _STAMP.is_file() and _STAMP.read_text() == wanted:
        return
    tell("installing LiteLLM into an environment of its own (800 MB); --without litellm does not")
    for command in _installation():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip()[-2000:]
            raise BenchmarkError(
                f"LiteLLM could not be installed; --without litellm does not. {command[0]} said:\n"
                f"{said}"
            )
    _STAMP.write_text(wanted)


def _installation() -> list[list[str]]:
    """Return the commands, with uv where it is on PATH."""
    folder, python, lock = str(_ENVIRONMENT), str(_ENVIRONMENT / "bin" / "python"), str(_LOCK)
    uv = shutil.which("uv")
    if uv is not None:
        return [
            [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder],
            [uv, "pip", "install", "--quiet", "--python", python, "--requirement", lock],
        ]
    return [
        [sys.executable, "-m", "venv", "--clear", folder],
        [python, "-m", "pip", "install", "--quiet", "--requirement", lock],
    ]


def start(children: Children, upstream_port: int, folder: Path) -> Listening:
    """Start it on a free port."""
    port = free_port()
    configuration = folder / "litellm.yaml"
    configuration.write_text(_CONFIGURATION.format(model=MODEL, upstream_port=upstream_port))
    child = children.start(
        "LiteLLM",
        [
            *("--config", str(configuration), "--host", "127.0.0.1", "--port", str(port)),
            *("--num_workers", "1", "--telemetry", "False"),
        ],
        program=str(_ENVIRONMENT / "bin" / "litellm"),
        prints=False,
        more_environ=_ENVIRON,
    )
    child.wait_until(lambda: answers(port, "/health/liveliness"))
    return Listening(port, (child.pid,))
