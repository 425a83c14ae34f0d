"""The text of `llama-proxy serve --help`, made from the table of options."""

from __future__ import annotations

from itertools import groupby

from proxy.config.options import OPTIONS, Option

_WIDTH = 100
_INDENT = " " * 8
_HEAD = """\
usage: llama-proxy serve [-m MODEL.gguf] [options] [-- LLAMA_SERVER_ARGS...]

Launch a llama-server, put the proxy before it and serve until SIGINT or SIGTERM. Without a model a
small packaged one is served, to try it out. Arguments after -- go to llama-server as they are.
"""
_TAIL = """\
Every option can also be given as an environment variable (--max-queue as LLAMA_PROXY_MAX_QUEUE;
comma separated where it may be repeated) and as a key of the TOML file (max-queue = 64). The
command line goes before the environment, that before the file. --no-... turns a switch off again.

Exit status: 0 stopped as asked, 2 usage or configuration, 3 llama-server is missing or failed,
130 stopped at once by a second signal."""


def render_help() -> str:
    """Return the whole help text of `serve`, without a final newline."""
    parts = [_HEAD]
    for group, options in groupby(OPTIONS, key=lambda option: option.group):
        parts.append(f"{group}:")
        for option in options:
            parts.append(f"  {_spelling(option)}")
            text = f"{option.help} {_remarks(option)}"
            parts.append(_filled(text))
        parts.append("")
    parts += ["Help:", "  -h, --help", f"{_INDENT}Show this and exit.", "", _TAIL]
    return "\n".join(parts)


def _filled(text: str) -> str:
    # Imported here: only --help needs it.
    from textwrap import fill

    # A flag is not broken in two at one of its hyphens.
    return fill(
        text,
        _WIDTH,
        initial_indent=_INDENT,
        subsequent_indent=_INDENT,
        break_on_hyphens=False,
    )


def _spelling(option: Option) -> str:
    short = f"{option.short}, " if option.short else ""
    return f"{short}{option.flag} {option.metavar}".rstrip()


def _remarks(option: Option) -> str:
    repeatable = "repeatable; " if option.repeatable else ""
    return f"[{repeatable}default: {option.describe_default()}]"
