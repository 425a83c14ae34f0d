"""What is told once the model is loaded: the notice on standard output, and the ready file.

Owns both formats. Neither ever has a key; where one is needed the notice has a placeholder.

Source: docs/configuration.md, "The ready file".
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from proxy.cli.output import write_atomically
from proxy.core.errors import ConfigError

# Ours has some 200; a model named by mistake is not read to its end.
_MAX_READY_FILE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ready:
    """What the ready file says; the fields are its keys."""

    url: str
    fast_url: str | None
    pid: int
    llama_server_pid: int | None
    model: str | None
    api_key_required: bool


def render(ready: Ready, *, version: str, is_demo: bool) -> str:
    """Return the notice, without a final newline."""
    lines = [f"llama-proxy {version} is ready: {ready.url}"]
    if is_demo:
        lines += [
            "model: the packaged demo model, which makes up text without sense, to try things out;",
            "       serve your own with llama-proxy serve -m MODEL.gguf",
        ]
    else:
        lines.append(f"model: {ready.model or 'the one that a request names'}")
    lines.append(f"watch: {ready.url}/status")
    lines.append(f"try:   {curl_line(ready)}")
    if ready.api_key_required:
        lines.append("       with one of your API keys in the variable KEY")
    return "\n".join(lines)


def curl_line(ready: Ready) -> str:
    """Return a command that chats with the model, to be pasted into a shell."""
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": "Hello!"}],
        "max_tokens": 64,
    }
    if ready.model is None:
        body = {"model": "MODEL", **body}
    words = ["curl", shlex.quote(f"{ready.url}/v1/chat/completions")]
    words += ["-H", "'Content-Type: application/json'"]
    if ready.api_key_required:
        # In double quotes, for the shell is to put the key in.
        words += ["-H", '"Authorization: Bearer $KEY"']
    words += ["-d", shlex.quote(json.dumps(body))]
    return " ".join(words)


class ReadyFile:
    """The file of `--ready-file`: there from the load of the model to the exit, always whole.

    Args:
        path: Where; None for no file.
    """

    def __init__(self, path: str | None) -> None:
        self._path = None if path is None else Path(path)

    def clear(self) -> None:
        """Remove the file of a run that was killed, so that nobody takes it for ours.

        Raises:
            ConfigError: What is there was not written by us, or cannot be removed.
        """
        if self._path is None or not self._path.exists():
            return
        if self._path.stat().st_size and _owner(self._path) is None:
            raise ConfigError(
                f"--ready-file: {self._path} is there and is no ready file; name another."
            )
        try:
            self._path.unlink()
        except OSError as error:
            raise ConfigError(f"--ready-file: {self._path} cannot be replaced.") from error

    def write(self, ready: Ready) -> None:
        """Write it, in place of what is there.

        Raises:
            ConfigError: It cannot be written.
        """
        if self._path is None:
            return
        try:
            write_atomically(self._path, json.dumps(asdict(ready)).encode() + b"\n")
        except OSError as error:
            raise ConfigError(f"--ready-file: {self._path} cannot be written.") from error

    def remove(self) -> None:
        """Remove it, unless another process has put its own there since."""
        if self._path is not None and _owner(self._path) == os.getpid():
            self._path.unlink(missing_ok=True)


def _owner(path: Path) -> int | None:
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(_MAX_READY_FILE_BYTES))
    except (OSError, ValueError):
        return None
    pid = found.get("pid") if isinstance(found, dict) and "url" in found else None
    return pid if isinstance(pid, int) else None
