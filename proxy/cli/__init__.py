"""The command `llama-proxy`: which subcommand, and what the process exits with.

Owns the exit codes 0 and 2. Everything that needs Trio is imported by `serving`, after the
arguments have been checked, so that a mistake is told at once and starts nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from proxy._version import __version__
from proxy.cli.output import complain, flush, say
from proxy.core.errors import ConfigError

_HELP = """\
usage: llama-proxy serve [-m MODEL.gguf] [options] [-- LLAMA_SERVER_ARGS...]
       llama-proxy demo-model [--force] PATH
       llama-proxy --version

  serve         launch a llama-server and serve it through the proxy (llama-proxy serve --help)
  demo-model    write the packaged demo model to a file"""
_USAGE_STATUS = 2
# What shells report for a process that SIGINT ended.
_INTERRUPTED_STATUS = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: The arguments without the program's name; those of the process by default.

    Returns:
        The exit status: 0 stopped as asked, 1 a defect of ours, 2 usage or configuration, 3
        llama-server is missing or failed, 130 stopped at once.
    """
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except ConfigError as error:
        complain(f"llama-proxy: error: {error}")
        return _USAGE_STATUS
    except KeyboardInterrupt:
        return _INTERRUPTED_STATUS
    finally:
        flush()


def _dispatch(arguments: list[str]) -> int:
    match arguments:
        case []:
            complain(_HELP)
            return _USAGE_STATUS
        case ["-h" | "--help", *_]:
            say(_HELP)
        case ["--version"]:
            say(f"llama-proxy {__version__}")
        case ["serve", *rest]:
            return _serve(rest)
        case ["demo-model", *rest]:
            from proxy.cli import demo_model

            return demo_model.run(rest)
        case [first, *_]:
            raise ConfigError(_unknown_command(first))
    return 0


def _unknown_command(first: str) -> str:
    if first.startswith("-"):
        return f"{first.partition('=')[0]} stands before the command; try llama-proxy serve --help."
    return f"unknown command {first!r}; there are serve and demo-model."


def _serve(arguments: list[str]) -> int:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "-h" in own or "--help" in own:
        from proxy.config.helptext import render_help

        say(render_help())
        return 0
    from proxy.config import load

    config = load(arguments, os.environ)
    from proxy.cli import serving

    return serving.run(config)
