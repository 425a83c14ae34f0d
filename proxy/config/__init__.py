"""Options: the command line, the environment, a TOML file and the defaults become one `Config`.

Owns the table of options (`OPTIONS`), how each source is read, which source wins and which options
go together. Flags, variable names, TOML keys, `--help` and the test of the documentation all derive
from that table. Must never know: Trio, the engine, the web stack. It is read by `proxy.cli` and
`proxy.serve` only.

Everything that cannot be used is a `proxy.core.errors.ConfigError` of one sentence that names the
source ("--port", "LLAMA_PROXY_PORT", "port in config.toml") and what is accepted, never a secret.
"""

from __future__ import annotations

from proxy.config.loading import Config, load
from proxy.config.options import OPTIONS, Option

__all__ = ["OPTIONS", "Config", "Option", "load"]
