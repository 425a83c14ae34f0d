"""Start-up: from exec to the first 200 of `/health`, with the proxy and without.

Compares the embedded runtime alone, serving the demo model on a TCP port, with `llama-proxy serve`,
which launches that same runtime and proxies it. What the second takes longer is what the proxy
adds. With `-X importtime` it also says which imports of ours that time goes to.

All start from compiled bytecode, as after any installation, whatever this environment was told: it
lies in a folder of this run, and a start that is not counted fills it.
"""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from benchmark.processes import Children, answers, clean_environ, free_port

_LOOK_INTERVAL_S = 0.001
# What `llama-proxy serve` imports before it can answer.
_IMPORTED = ("proxy.cli.serving", "proxy.web.listener")
_IMPORT_LINE = re.compile(r"import time: +(\d+) \| +(\d+) \| ( *)(\S+)")
_SHOWN_IMPORTS = 12

Row = dict[str, object]


def measure_startup(rounds: int, tell: Callable[[str], None]) -> Row:
    """Start both in turn, `rounds` times each, after one start of each that fills the caches.

    Raises:
        BenchmarkError: When one of them does not get ready.
    """
    alone, proxied = [], []
    with tempfile.TemporaryDirectory(prefix="benchmark-") as cache:
        environ = {**clean_environ(), "PYTHONPYCACHEPREFIX": cache}
        for number in range(rounds + 1):
            tell(f"start {number} of {rounds}" if number else "start to fill the caches")
            alone.append(_time_start("the embedded runtime", _engine_arguments, environ))
            proxied.append(_time_start("llama-proxy", _proxy_arguments, environ))
        imports = slowest_imports(environ)
    alone, proxied = alone[1:], proxied[1:]
    added = [b - a for a, b in zip(alone, proxied, strict=True)]
    return {
        "rounds": rounds,
        "engine_alone_s": _summary(alone),
        "llama_proxy_s": _summary(proxied),
        "added_s": _summary(added),
        "imports_ms": imports,
    }


def _engine_arguments(port: int) -> list[str]:
    model = str(files("proxy.data").joinpath("demo.gguf"))
    address = ["--host", "127.0.0.1", "--port", str(port)]
    return ["-m", "proxy.runtime.embedded", *address, "-m", model]


def _proxy_arguments(port: int) -> list[str]:
    listeners = ["--port", str(port), "--fast-port", "0"]
    return ["-m", "proxy", "serve", *listeners, "--llama-server", "embedded"]


def _time_start(
    name: str, arguments: Callable[[int], Sequence[str]], environ: Mapping[str, str]
) -> float:
    port = free_port()
    with Children(environ) as children:
        began = time.monotonic()
        child = children.start(name, arguments(port), prints=False)
        child.wait_until(lambda: answers(port, "/health"), interval_s=_LOOK_INTERVAL_S)
        return time.monotonic() - began


def _summary(values: list[float]) -> dict[str, float]:
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
    }


def slowest_imports(environ: Mapping[str, str]) -> list[tuple[str, float, float]]:
    """Return the slowest imports on the way to the first answer: name, total and own time in ms.

    Only those that a module of ours asks for: what they import themselves is in their total.
    """
    code = "; ".join(f"import {name}" for name in _IMPORTED)
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    found = sorted(_asked_for_by_us(done.stderr), key=lambda each: each[1], reverse=True)
    return found[:_SHOWN_IMPORTS]


def _asked_for_by_us(printed: str) -> list[tuple[str, float, float]]:
    """Read the tree, which is printed children first, from its end."""
    found: list[tuple[str, float, float]] = []
    above: list[str] = []
    for match in reversed(list(_IMPORT_LINE.finditer(printed))):
        own, total, indent, name = int(match[1]), int(match[2]), len(match[3]) // 2, match[4]
        del above[indent:]
        parent_is_ours = indent == 0 or (bool(above) and above[-1].startswith("proxy"))
        above.append(name)
        if parent_is_ours and not name.startswith("proxy"):
            found.append((name, total / 1000, own / 1000))
    return found


def startup_markdown(found: Row) -> str:
    """Return the times as tables in Markdown."""
    lines = ["| from exec to the first 200, s | median | min | max |", "| --- | --- | --- | --- |"]
    titles = {
        "engine_alone_s": "embedded runtime alone",
        "llama_proxy_s": "llama-proxy serve",
        "added_s": "added by the proxy",
    }
    for key, title in titles.items():
        times = found[key]
        assert isinstance(times, dict)  # noqa: S101  # made above
        lines.append(f"| {title} | {times['median']} | {times['min']} | {times['max']} |")
    lines += ["", "| import | total ms | own ms |", "| --- | --- | --- |"]
    imports = found["imports_ms"]
    assert isinstance(imports, list)  # noqa: S101  # made above
    lines += [f"| {name} | {total:.1f} | {own:.1f} |" for name, total, own in imports]
    return "\n".join(lines) + "\n"
