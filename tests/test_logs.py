"""The log: its two formats, who speaks in it, and what it does without a reader."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import sys
from collections.abc import Iterator

import pytest

from proxy import logs


def record_of(message: str, *args: object, **extra: object) -> logging.LogRecord:
    """Return a record as a logger makes it."""
    return logging.getLogger("proxy.x").makeRecord(
        "proxy.x", logging.WARNING, "file.py", 1, message, args, None, extra=extra
    )


def failing_record() -> logging.LogRecord:
    """Return a record with a traceback."""
    try:
        raise ValueError("why")
    except ValueError:
        record = record_of("failed")
        record.exc_info = sys.exc_info()
        return record


@pytest.fixture
def restored_logging() -> Iterator[None]:
    """Put back what `configure` changes for the whole process."""
    root, ours = logging.getLogger(), logging.getLogger("proxy")
    before = (root.handlers[:], root.level, ours.level)
    yield
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def test_text_line_has_time_level_logger_message_and_fields() -> None:
    """In that order, with the time in UTC and milliseconds."""
    line = logs.TextFormatter().format(record_of("took %d", 3, request_id="r1"))
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z warning proxy\.x: took 3 request_id=r1", line
    )


def test_text_line_cannot_be_forged() -> None:
    """Newlines and escape sequences of clients or llama-server are shown, not obeyed."""
    line = logs.TextFormatter().format(record_of("a\nb\x1b[2J\x9b\tc", path="x\ry"))
    assert line.endswith("a\\x0ab\\x1b[2J\\x9b\tc path=x\\x0dy")


def test_json_line_is_one_object() -> None:
    """With the extra fields beside the four that are always there."""
    line = logs.JsonFormatter().format(record_of("a\n%s", "b", request_id="r1", cause={1}))
    found = json.loads(line)
    assert "\n" not in line
    assert found.pop("ts").endswith("Z")
    assert found == {
        "level": "warning",
        "logger": "proxy.x",
        "message": "a\nb",
        "request_id": "r1",
        "cause": "{1}",
    }


def test_json_line_keeps_its_own_fields() -> None:
    """An extra field of the same name does not hide them."""
    assert json.loads(logs.JsonFormatter().format(record_of("a", level="x")))["level"] == "warning"


def test_traceback_is_told_in_both_formats() -> None:
    """Behind the line in a text, in `exception` in JSON."""
    text = logs.TextFormatter().format(failing_record())
    assert text.splitlines()[1] == "Traceback (most recent call last):"
    assert text.endswith("ValueError: why")
    found = json.loads(logs.JsonFormatter().format(failing_record()))
    assert found["exception"].endswith("ValueError: why")


def test_level_is_that_of_our_own_loggers(
    restored_logging: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries would log headers below `warning`."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("json", "debug")
    logging.getLogger("proxy.engine").debug("ours")
    logging.getLogger("httpx").info("theirs")
    logging.getLogger("hypercorn.error").warning("their trouble")
    told = [json.loads(line)["message"] for line in stream.getvalue().splitlines()]
    assert told == ["ours", "their trouble"]


def test_log_without_a_reader_is_dropped(
    restored_logging: None, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not told with a traceback, which nobody could read either."""
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("text", "info")
    logging.getLogger("proxy").error("lost")
    with pytest.raises(BrokenPipeError):
        stream.close()
    assert capfd.readouterr().err == ""


def test_mistaken_log_call_is_told(restored_logging: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect of ours is not dropped with the lines that nobody reads."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    logs.configure("text", "info")
    logging.getLogger("proxy").error("%d", "no number")
    assert "--- Logging error ---" in stream.getvalue()
