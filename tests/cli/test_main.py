"""The command as a real process: usage errors, help, version, what it imports."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from proxy._version import __version__
from proxy.config.helptext import render_help
from tests.cli.command import PATIENCE_S, argv_of, environment, run_command

SECRET = "sk-very-secret"


def test_version_is_told() -> None:
    """On standard output, with status 0."""
    done = run_command("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"llama-proxy {__version__}\n", "")


def test_no_command_shows_help_and_fails() -> None:
    """On standard error, since nothing was asked for."""
    done = run_command()
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: llama-proxy serve ")


@pytest.mark.parametrize("argv", [["--help"], ["-h"]])
def test_help_names_the_commands(argv: list[str]) -> None:
    """On standard output, with status 0."""
    done = run_command(*argv)
    assert (done.returncode, done.stderr) == (0, "")
    assert "demo-model" in done.stdout


def test_help_of_serve_is_told_even_beside_mistakes() -> None:
    """Who asks for help may be in the middle of a mistake."""
    done = run_command("serve", "--prot", "--help")
    assert (done.returncode, done.stdout, done.stderr) == (0, render_help() + "\n", "")


def test_help_behind_two_dashes_is_not_ours() -> None:
    """It is llama-server's, and refused."""
    done = run_command("serve", "--", "--help")
    assert done.returncode == 2
    assert "--help cannot be passed to llama-server" in done.stderr


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["server"], "unknown command 'server'; there are serve and demo-model."),
        (["--port=1"], "--port stands before the command; try llama-proxy serve --help."),
        (["serve", "--prot", "1"], "unknown option --prot; the nearest known one is --port"),
        (["serve", "--port", "x"], "--port must be a whole number from 0 to 65535, not 'x'."),
        (["serve", "--host", "0.0.0.0"], "give clients keys with --api-key-file"),
        (["serve", "-m", "/nothing.gguf"], "--model: cannot read /nothing.gguf: no such file"),
        (["serve", "--", "--port", "1"], "--port cannot be passed to llama-server: "),
        (["serve", "--api-key", f"a:{SECRET}:b"], "--api-key: Line 1: expected `key`"),
        (["demo-model"], "demo-model takes one PATH"),
        (["demo-model", "--forse", "x"], "unknown option --forse of demo-model"),
    ],
)
def test_mistake_is_told_in_one_line_with_status_2(argv: list[str], message: str) -> None:
    """Nothing but one line on standard error: what is wrong and what is accepted."""
    done = run_command(*argv)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("llama-proxy: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert SECRET not in done.stderr


def test_precedence_is_seen_in_the_errors(tmp_path: Path) -> None:
    """The port that is bound is the command line's, then the environment's, then the file's."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        config = tmp_path / "x.toml"
        config.write_text(f"port = {port}\n")
        environ = {"LLAMA_PROXY_CONFIG": str(config)}
        by_file = run_command("serve", environ=environ)
        by_variable = run_command("serve", environ={"LLAMA_PROXY_PORT": port})
        by_flag = run_command("serve", "--port", port, environ={"LLAMA_PROXY_PORT": "0"})
    for done in (by_file, by_variable, by_flag):
        assert done.returncode == 2
        assert f"127.0.0.1 port {port}" in done.stderr


def test_unknown_variable_is_told() -> None:
    """With the nearest known one."""
    done = run_command("serve", environ={"LLAMA_PROXY_PROT": "1"})
    assert done.returncode == 2
    assert "LLAMA_PROXY_PROT; the nearest known one is LLAMA_PROXY_PORT." in done.stderr


def test_reader_that_leaves_costs_no_traceback() -> None:
    """`llama-proxy serve --help | head -1` says nothing else."""
    with subprocess.Popen(
        argv_of("serve", "--help"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(PATIENCE_S) == 0
    assert told == b""


def test_closed_standard_output_costs_no_traceback() -> None:
    """A service manager may start us without one."""
    shell = 'exec "$0" -m proxy --version >&-'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, sys.executable],
        env=environment(),
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize(
    "argv", [["--version"], ["serve", "--help"], ["serve", "--port", "x"], ["demo-model"]]
)
def test_mistakes_and_help_need_neither_trio_nor_the_web_stack(argv: list[str]) -> None:
    """They are told in no time, and where the installation is broken, too."""
    program = (
        "import sys\nfrom proxy.cli import main\n"
        f"main({argv!r})\n"
        "heavy = {'trio', 'httpx', 'quart', 'hypercorn', 'proxy.serve', 'ssl', 'tomllib'}\n"
        "sys.exit(f'imported: {heavy & set(sys.modules)}' if heavy & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_interrupt_before_serving_is_no_traceback(tmp_path: Path) -> None:
    """Ctrl-C while files are read ends with the status that shells expect."""
    pipe = tmp_path / "keys"
    os.mkfifo(pipe)
    with subprocess.Popen(
        argv_of("serve", "--api-key-file", str(pipe)), env=environment(), stderr=subprocess.PIPE
    ) as process:
        # Opening it waits until the command has opened it, too; then that waits for its content.
        with pipe.open("wb"):
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
        assert process.stderr is not None
        assert process.stderr.read() == b""
