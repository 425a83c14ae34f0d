"""The log of the command on standard error: lines for people, or one JSON object per line.

Owns the format and which loggers speak. Configured by the command only; whoever embeds the library
configures `logging` as they please. Must never know what is logged.

The level applies to our own loggers. Foreign ones (Hypercorn, httpx) speak from `warning` on,
whatever the level: below it they write request lines and headers, where credentials are.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Final

# What every record has; anything beyond it was given as `extra`.
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Newlines and escape sequences in a message could forge a line or drive a terminal.
_CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code != 0x09
}


def configure(log_format: str, level: str) -> None:
    """Send the log to standard error; called once, by the command.

    Args:
        log_format: "text" or "json".
        level: "debug", "info", "warning" or "error", for our own loggers.
    """
    handler = _QuietHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("proxy").setLevel(level.upper())


class _QuietHandler(logging.StreamHandler):  # type: ignore[type-arg]  # not generic at run time in 3.11
    """A handler that drops a line when nobody can read it, instead of writing a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # the base class's name
        """Report what is wrong with a record, unless the reader of the log is gone."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z info proxy.serve: message key=value`, then a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        extras = "".join(f" {name}={value}" for name, value in _extras(record).items())
        text = f"{record.getMessage()}{extras}".translate(_CONTROLS)
        line = f"{_timestamp(record)} {record.levelname.lower()} {record.name}: {text}"
        traceback = _traceback(self, record)
        return f"{line}\n{traceback}" if traceback else line


class JsonFormatter(logging.Formatter):
    """One JSON object: `ts`, `level`, `logger`, `message`, the extra fields, `exception` if any."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object on one line."""
        found: dict[str, object] = {
            "ts": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        traceback = _traceback(self, record)
        if traceback:
            found["exception"] = traceback
        return json.dumps(_extras(record) | found, default=str)


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _extras(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)
