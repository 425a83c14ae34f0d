"""The embedded runtime: llama.cpp's own server, out of the `xllamacpp` wheel, in a process.

    python -m proxy.runtime.embedded -m MODEL.gguf --host ENGINE.sock [llama-server options]

Owns the life of the process: it serves until SIGTERM, then ends in order with exit 0. A second
SIGTERM ends it at once, and so does one that comes while the model is loaded. It must never know
anything of the proxy: whoever starts it sees a llama-server. The API key comes from the environment
variable `LLAMA_API_KEY`; the other options are those of `proxy.runtime.embedded_flags`.

Exit: 0 stopped as asked; 1 the model could not be loaded or the address not be bound (llama.cpp's
log says why); 2 a flag that is unknown or a value that does not fit; 3 `xllamacpp` is missing.

It imports as little as it can and parses by hand: `argparse` takes as long as the demo model.

Source: llama.cpp `tools/server/README.md`.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from proxy.runtime.embedded_flags import FLAGS, Params, listed

DEMO_MODEL: Final = Path(__file__).parent.parent / "data" / "demo.gguf"
"""Served when no model is named."""

DEMO_NAME: Final = "demo"

SINGLE_THREAD_BYTES: Final = 8 * 1024 * 1024
"""Models smaller than this get one thread unless `-t` says otherwise: a token of the demo model
takes 0.1 ms, and with a second thread on a busy machine 5 ms, for the two wait for each other after
every operation."""

EXIT_NOT_SERVING: Final = 1
EXIT_USAGE: Final = 2
EXIT_NOT_INSTALLED: Final = 3


class UsageError(Exception):
    """The command line does not fit; the message is one sentence that names the flag."""


def help_text() -> str:
    """Return what `--help` prints."""
    lines = ["usage: python -m proxy.runtime.embedded [options]", ""]
    lines += [
        f"  {', '.join(flag.names)} {flag.placeholder}".ljust(50) + f" {flag.help}"
        for flag in FLAGS
    ]
    return "\n".join(lines) + "\n"


def apply_arguments(params: Params, arguments: Sequence[str]) -> None:
    """Set what the command line says.

    Raises:
        UsageError: A flag is unknown, lacks its value, or has one that does not fit.
    """
    known = {name: flag for flag in FLAGS for name in flag.names}
    rest = iter(arguments)
    for name in rest:
        # llama-server takes either spelling.
        flag = known.get(name.replace("_", "-") if name.startswith("--") else name)
        if flag is None:
            raise UsageError(
                f"the embedded runtime does not know the argument {name!r}: leave it out, "
                "or use a real llama-server"
            )
        raw = next(rest, None) if flag.placeholder else ""
        if raw is None:
            raise UsageError(f"the argument {name} needs a value: {flag.placeholder}")
        try:
            flag.apply(params, raw)
        except (ValueError, TypeError, OverflowError) as error:
            raise UsageError(
                f"the value {raw!r} does not fit the argument {name}: expected {flag.placeholder}"
            ) from error


def build_params(arguments: Sequence[str], environ: Mapping[str, str]) -> Params:
    """Return the parameters for a command line, with llama-server's defaults where it says nothing.

    Raises:
        UsageError: As `apply_arguments`.
    """
    import xllamacpp

    params = xllamacpp.CommonParams()
    # The binding's own defaults are those of a program that makes one text and ends.
    params.n_parallel = -1
    params.port = 8080
    params.api_keys = listed(environ.get("LLAMA_API_KEY", ""))
    apply_arguments(params, arguments)
    if not params.model.path:
        params.model.path = str(DEMO_MODEL)
        # Else its path would be its name in the API.
        params.model_alias = params.model_alias or {DEMO_NAME}
    if params.cpuparams.n_threads < 0 and is_tiny(params.model.path):
        params.cpuparams.n_threads = 1
    return params


def is_tiny(model: str) -> bool:
    """Say whether a model is so small that a second thread slows it down."""
    try:
        return Path(model).stat().st_size < SINGLE_THREAD_BYTES
    except OSError:
        return False


def stop_signals() -> list[signal.Signals]:
    """Return the signals that end the server in order, on this platform."""
    names = ("SIGTERM", "SIGINT", "SIGBREAK")
    return [getattr(signal, name) for name in names if hasattr(signal, name)]


def wait_for_stop() -> None:
    """Return at the first stop signal, and leave the second one to end the process at once.

    llama.cpp's threads take signals too, so a handler alone would not wake the main thread: the
    interpreter writes each signal to a pipe, whichever thread got it.
    """
    readable, writable = os.pipe()
    if sys.platform != "win32":
        os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
    stopping = stop_signals()
    for number in stopping:
        signal.signal(number, lambda *_: None)
    while os.read(readable, 1)[0] not in stopping:
        pass
    signal.set_wakeup_fd(-1)
    for number in stopping:
        signal.signal(number, signal.SIG_DFL)


def serve(params: Params) -> int:
    """Load the model, serve until a stop signal, return the exit status."""
    import xllamacpp

    # Until the model is loaded a signal ends the process at once: nothing is in flight.
    for number in stop_signals():
        signal.signal(number, signal.SIG_DFL)
    try:
        server = xllamacpp.Server(params)
    except RuntimeError:
        # llama.cpp's log has said why.
        sys.stderr.write("error: the server could not start; the reason is in the lines above\n")
        return EXIT_NOT_SERVING
    wait_for_stop()
    # The destructor ends the exchanges, closes the listener and waits for the threads.
    del server
    return 0


def main(arguments: Sequence[str]) -> int:
    """Run the embedded server with a command line; return the exit status."""
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(help_text())
        return 0
    try:
        params = build_params(arguments, os.environ)
    except ImportError:
        sys.stderr.write(
            "error: the embedded runtime is not installed: "
            "pip install 'trio-llama-proxy[embedded]'\n"
        )
        return EXIT_NOT_INSTALLED
    except UsageError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_USAGE
    return serve(params)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
