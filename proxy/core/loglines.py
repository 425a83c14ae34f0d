"""llama-server's output: cut into lines, kept within bounds, cleared of secrets, and understood.

Owns the ring of the last lines with its numbering, and what the proxy reads out of them: where
llama-server listens, how far a load has come, and why one failed. Reads no pipe (`runtime.process`
does). A reason that is made here never holds a path, for it reaches clients.

Source: the messages of llama.cpp b11434 (`src/llama-model-loader.cpp`, `ggml/src/gguf.cpp`,
`tools/server/server-http.cpp`, `common/arg.cpp`), of the dynamic loaders of glibc and macOS.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from proxy.core.lifecycle import ExitStatus

# Room for a secret that begins just before the cut: it is taken out before the line is cut.
_MARGIN_BYTES = 256
_HIDDEN = "[hidden]"
# Colours and cursor movements (ECMA-48 control sequences), then other control characters but tab.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0a-\x1f\x7f]")


class LineSplitter:
    """Cuts a stream of bytes into lines, within bounds.

    Args:
        max_line_bytes: What a line has beyond that is dropped (and a margin, for `LogRing` to
            redact in).

    A carriage return starts its line anew, as on a terminal: a progress bar is one line.
    """

    def __init__(self, max_line_bytes: int = 4096) -> None:
        self._limit = max_line_bytes + _MARGIN_BYTES
        self._partial = b""

    @property
    def partial(self) -> bytes:
        """What has come since the last line's end."""
        return self._partial

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes and return the lines that they complete, without their ends."""
        *complete, rest = data.split(b"\n")
        lines = []
        for piece in complete:
            lines.append(self._joined(piece).rstrip(b"\r"))
            self._partial = b""
        self._partial = self._joined(rest)
        return lines

    def flush(self) -> list[bytes]:
        """Return what is left at the end of the stream as a last line, if anything is."""
        left, self._partial = self._partial, b""
        return [left] if left else []

    def _joined(self, piece: bytes) -> bytes:
        joined = self._partial + piece[: self._limit]
        # The last return may belong to the line's end; one before it starts the line anew.
        return joined[joined.rfind(b"\r", 0, len(joined) - 1) + 1 :][: self._limit]


@dataclass(frozen=True, slots=True)
class LogBatch:
    """Lines for a follower.

    Args:
        lines: The lines, oldest first.
        next_number: What to ask for next.
        skipped: How many lines the follower was too slow for.
    """

    lines: tuple[str, ...]
    next_number: int
    skipped: int


class LogRing:
    """The last lines of llama-server, numbered from 0 in the order they came.

    Args:
        max_lines: How many are kept.
        max_line_bytes: A longer line is cut.
    """

    def __init__(self, max_lines: int = 500, max_line_bytes: int = 4096) -> None:
        self._lines: deque[str] = deque(maxlen=max_lines)
        self._max_line_bytes = max_line_bytes
        self._secrets: deque[str] = deque(maxlen=8)
        self._next_number = 0

    @property
    def next_number(self) -> int:
        """The number that the next line will get."""
        return self._next_number

    def hide(self, secret: str) -> None:
        """Replace `secret` in every line from now on. The last eight secrets are remembered."""
        self._secrets.append(secret)

    def append(self, line: bytes) -> str:
        """Keep a line; return it as kept: decoded, without control characters and secrets."""
        kept = self.cleaned(line)
        self._lines.append(kept)
        self._next_number += 1
        return kept

    def cleaned(self, line: bytes) -> str:
        """Return `line` as `append` would keep it."""
        text = line[: self._max_line_bytes + _MARGIN_BYTES].decode("utf-8", "replace")
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        return _CONTROL.sub("", text)[: self._max_line_bytes]

    def tail(self, n: int) -> tuple[str, ...]:
        """Return the last `n` lines, or as many as there are, oldest first."""
        return tuple(self._lines)[-n:] if n > 0 else ()

    def since(self, number: int) -> LogBatch:
        """Return the lines numbered `number` and higher that are still kept."""
        oldest = self._next_number - len(self._lines)
        start = max(number, oldest)
        return LogBatch(
            lines=tuple(self._lines)[start - oldest :],
            next_number=self._next_number,
            skipped=max(0, oldest - number),
        )


_FOLDERS = re.compile(
    r"(?<![\w.:/])(?:[A-Za-z]:|[a-z]+://(?=/))?(?:[/\\][^\s/\\:'\"]+)*[/\\](?=[^\s/\\:'\"])"
)


def without_folders(line: str) -> str:
    """Return a line for a client: of a path only its last part is left."""
    return _FOLDERS.sub("", line)


_LISTENING = re.compile(r"listening on https?://\S*:(\d{1,5})\b")


def listening_port(line: str) -> int | None:
    """Return the TCP port that this line says llama-server listens on, if it does."""
    found = _LISTENING.search(line)
    return int(found[1]) if found else None


_DOTS = re.compile(r"\.+$")
_CHILD_STATE = "cmd_child_to_router:state:"


def load_progress(line: str) -> float | None:
    """Return how much of the model is loaded, 0 to 1, if this (maybe unfinished) line tells it.

    Some versions of llama.cpp print one dot for each percent; as the child of a router it prints
    JSON: the stages of the load, the current one, and how much of that is done.
    """
    if _DOTS.match(line):
        return min(len(line), 100) / 100
    _, found, state = line.partition(_CHILD_STATE)
    return _state_progress(state) if found else None


def _state_progress(state: str) -> float | None:
    try:
        told = json.loads(state)
        payload = told["payload"]
        stages = payload["stages"]
        done = float(stages.index(payload["current"])) + float(payload["value"])
        return min(max(done / float(len(stages)), 0.0), 1.0)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # Another version tells it otherwise; nothing depends on it.


_NO_MEMORY = (
    r"out of memory|bad_alloc|unable to allocate|insufficient memory|cannot allocate memory"
    r"|failed to allocate (?:\S+ )?buffer|outof(?:device|host)memory"
)
_USE_LESS_MEMORY = (
    "There is not enough memory for this model: use a smaller one, a smaller context (-c), or put"
    " fewer layers on the GPU (-ngl)."
)
_DAMAGED = (
    r"not within the file bounds|corrupted or incomplete|unexpectedly reached end of file"
    r"|failed to read (?:key|tensor|header|the )"
)
# The first pattern that is found in any line wins, so the particular precedes the general: after
# "out of memory" llama-server also says "failed to load model". `{0}` is what the pattern's group
# caught.
_REASONS: tuple[tuple[str, str], ...] = (
    (
        r"(?:invalid argument: |not know the argument ')(-{1,2}[a-z][\w.-]*)",
        "llama-server does not know the argument {0}.",
    ),
    (
        r"(?:while handling argument \"|not fit the argument )(-{1,2}[a-z][\w.-]*)",
        "llama-server cannot use the value that it was given for {0}.",
    ),
    (
        r"error while handling environment variable \"(\w+)\"",
        "llama-server cannot use the value of the environment variable {0}.",
    ),
    (
        r"error while loading shared libraries: ([\w.+-]+):",
        "llama-server cannot start: the shared library {0} is missing on this machine.",
    ),
    (
        r"version [`']((?:GLIBC|GLIBCXX)_[\w.]+)' not found",
        "llama-server cannot start: it was built for a newer system, which has {0}.",
    ),
    (
        r"library not loaded: (?:\S*/)?([\w.+-]+)",
        "llama-server cannot start: the shared library {0} is missing on this machine.",
    ),
    (
        r"couldn't bind http server socket",
        "The address that llama-server was to listen on is in use or not allowed.",
    ),
    (_NO_MEMORY, _USE_LESS_MEMORY),
    (
        r"failed to open .*permission denied",
        "The model file may not be read by this user.",
    ),
    (
        r"failed to open .*no such file",
        "The model file does not exist.",
    ),
    (
        r"unknown model architecture: '([\w.-]+)'",
        "This llama-server does not know the model architecture {0}; a newer one may.",
    ),
    (_DAMAGED, "The model file is damaged or incomplete; download it again."),
    (
        r"invalid magic characters|failed to read magic|bad gguf version|ggufv1 is no longer",
        "The model file is not a GGUF file.",
    ),
    (
        r"exiting due to model loading error|failed to load model|error loading model",
        "llama-server could not load the model.",
    ),
)

# Signals that say why by themselves; the numbers are the same on Linux and macOS.
_SIGNAL_REASONS = {
    4: "llama-server was built for another kind of processor (illegal instruction).",
    9: "llama-server was killed (signal 9); most likely the machine ran out of memory.",
}


def explain_failure(lines: Iterable[str], status: ExitStatus | None) -> str:
    """Return one sentence on why llama-server ended.

    Args:
        lines: Its last log lines.
        status: How it ended, or None when it did not end by itself.
    """
    kept = tuple(lines)
    for pattern, sentence in _REASONS:
        # Compiled here, not at import: most llama-servers never fail.
        searched = re.compile(pattern, re.IGNORECASE)
        for line in kept:
            if found := searched.search(line):
                return sentence.format(*found.groups())
    if status is None:
        return "llama-server did not get ready."
    known = _SIGNAL_REASONS.get(status.signal_number or 0)
    return known or f"llama-server ended with {status.describe()}."
