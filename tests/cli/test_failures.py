"""How a failure of the run is told: what is picked out of exception groups, and the exit status."""

from __future__ import annotations

import json
import sys

import pytest

from proxy import logs
from proxy.cli.serving import tell_failure
from proxy.core.errors import ConfigError, EngineFailed, EngineLoadFailed, ProxyCrashed


def test_failed_load_inside_groups_is_told_with_its_last_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nurseries wrap what passes them; people want the reason alone."""
    error = EngineLoadFailed("the model is broken", tuple(f"line {n}" for n in range(30)))
    group = ExceptionGroup("x", [ExceptionGroup("y", [error])])
    assert tell_failure(group, "text") == 3
    told = capsys.readouterr().err.splitlines()
    assert told[:2] == ["llama-proxy: error: the model is broken", "llama-server's last lines:"]
    assert told[2:] == [f"  line {n}" for n in range(10, 30)]


def test_crash_loop_is_told_with_status_3(capsys: pytest.CaptureFixture[str]) -> None:
    """What `--exit-on-failed` is for."""
    assert tell_failure(EngineFailed("it crashed too often"), "text") == 3
    assert capsys.readouterr().err == "llama-proxy: error: it crashed too often\n"


def test_configuration_that_shows_late_is_told_with_status_2(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A port in use is seen when it is bound."""
    assert tell_failure(ConfigError("the port is in use"), "text") == 2
    assert capsys.readouterr().err == "llama-proxy: error: the port is in use\n"


def test_failure_is_a_json_line_where_the_log_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs that read the log read every line of it."""
    records: list[str] = []

    class Reader:
        """A stream that gathers lines."""

        encoding = "utf-8"

        def write(self, text: str) -> None:
            """Take what is written."""
            records.append(text)

        def flush(self) -> None:
            """Have nothing to do."""

    monkeypatch.setattr(sys, "stderr", Reader())
    logs.configure("json", "info")
    assert tell_failure(EngineFailed("it crashed", ("last",)), "json") == 3
    found = json.loads("".join(records))
    assert (found["message"], found["log_tail"]) == ("it crashed", ["last"])


def test_defect_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """And ends with status 1; what led to it is told as well."""
    error = ProxyCrashed("a task failed")
    error.__cause__ = ZeroDivisionError("why")
    assert tell_failure(ExceptionGroup("x", [error]), "text") == 1
    assert "ZeroDivisionError: why" in caplog.text
    assert "a defect of llama-proxy" in caplog.text


def test_defect_beside_a_typed_error_is_not_lost(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """The typed error has the exit status, the log has the other."""
    group = ExceptionGroup("x", [KeyError("defect"), EngineFailed("crashed")])
    assert tell_failure(group, "text") == 3
    assert "KeyError: 'defect'" in caplog.text
    assert "crashed" in capsys.readouterr().err


def test_interrupt_in_a_group_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    """It came before the signals were listened for."""
    assert tell_failure(BaseExceptionGroup("x", [KeyboardInterrupt()]), "text") == 130
    assert caplog.text == ""
