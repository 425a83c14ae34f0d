"""What llama-server is launched with: its arguments and its environment.

Owns the table of arguments that the proxy sets itself, and the composition of argv and environment.
Never starts anything, and never puts a secret into argv, where every user of the machine can read
it.

Source: `llama-server --help` and llama.cpp `common/arg.cpp` (arguments come as two words; `_` in a
long option counts as `-`; each option has an environment variable `LLAMA_ARG_<NAME>`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from proxy.core.errors import ConfigError

_LISTENS = "the proxy chooses where llama-server listens, so that nobody can go around it"
_KEY = (
    "the proxy makes a new key for each launch and passes it where other users cannot read it; keys"
    " for clients are --api-key and --api-key-file before the --"
)
_TLS = "llama-server is behind a private socket; TLS for clients is --certfile and --keyfile"
_PREFIX = "the proxy serves llama-server's routes where llama-server's documentation says they are"
_LOG = "the proxy reads llama-server's log to follow the load and to tell why it failed"
_EXITS = "it makes llama-server print something and exit; run llama-server itself for that"

OWNED_ARGUMENTS: dict[str, str] = {
    "--host": _LISTENS,
    "--port": _LISTENS,
    "--reuse-port": _LISTENS,
    "--api-key": _KEY,
    "--api-key-file": _KEY,
    "--ssl-key-file": _TLS,
    "--ssl-cert-file": _TLS,
    "--api-prefix": _PREFIX,
    "--log-disable": _LOG,
    "-h": _EXITS,
    "--help": _EXITS,
    "--usage": _EXITS,
    "--version": _EXITS,
    "--list-devices": _EXITS,
    "-cl": _EXITS,
    "--cache-list": _EXITS,
    "--completion-bash": _EXITS,
}
"""Arguments of llama-server that cannot be passed through, each with the reason for a person."""

_MODEL_ARGUMENTS = frozenset(
    {
        *("-m", "--model", "-mu", "--model-url", "-dr", "--docker-repo"),
        *("-hf", "-hfr", "--hf-repo", "-hff", "--hf-file"),
        *("--models-dir", "--models-preset", "--embd-gemma-default"),
        *("--fim-qwen-1.5b-default", "--fim-qwen-3b-default", "--fim-qwen-7b-default"),
        *("--fim-qwen-7b-spec", "--fim-qwen-14b-spec", "--fim-qwen-30b-default"),
        *("--gpt-oss-20b-default", "--gpt-oss-120b-default"),
        *("--vision-gemma-4b-default", "--vision-gemma-12b-default"),
    }
)

# Each of these would set, behind our back, what an owned argument sets.
_OWNED_VARIABLES = frozenset(
    {
        *("LLAMA_API_KEY", "LLAMA_ARG_API_KEY", "LLAMA_ARG_API_KEY_FILE", "LLAMA_ARG_API_PREFIX"),
        *("LLAMA_ARG_HOST", "LLAMA_ARG_PORT", "LLAMA_ARG_REUSE_PORT"),
        *("LLAMA_ARG_SSL_KEY_FILE", "LLAMA_ARG_SSL_CERT_FILE"),
        # Makes llama-server think that a router started it (see `runtime.process`).
        "LLAMA_SERVER_ROUTER_PORT",
    }
)
# With our model in argv these would name a second one, which llama-server may even download; in
# router mode one of them would end that mode.
_MODEL_VARIABLES = frozenset(
    {
        *("LLAMA_ARG_MODEL", "LLAMA_ARG_MODEL_URL", "LLAMA_ARG_DOCKER_REPO"),
        *("LLAMA_ARG_HF_REPO", "LLAMA_ARG_HF_FILE"),
    }
)
# The proxy's own settings may hold clients' keys; llama-server has no business with them.
_OWN_PREFIX = "LLAMA_PROXY_"


def check_extra_args(args: Sequence[str]) -> None:
    """Refuse arguments that the proxy owns.

    Args:
        args: What the user wants llama-server to be given.

    Raises:
        ConfigError: When one of them is owned; the message names it and says why. Also `--port=1`,
            which llama-server itself would not understand.
    """
    for arg in args:
        name = _option_name(arg)
        if name in OWNED_ARGUMENTS:
            raise ConfigError(f"{name} cannot be passed to llama-server: {OWNED_ARGUMENTS[name]}.")


def names_model(args: Sequence[str]) -> bool:
    """Return whether `args` tell llama-server by themselves which model, or models, to serve."""
    return any(_option_name(arg) in _MODEL_ARGUMENTS for arg in args)


def build_argv(
    prefix: Sequence[str],
    *,
    host: str,
    port: int | None = None,
    model_path: str | None = None,
    extra_args: Sequence[str] = (),
) -> list[str]:
    """Return the whole argv.

    Args:
        prefix: The program, and what must come before llama-server's own arguments.
        host: Address to bind, or the path of a unix socket, which ends in `.sock`.
        port: TCP port, 0 for any free one; None with a unix socket.
        model_path: The model's file, or None when `extra_args` or the environment name one, or none
            does.
        extra_args: Passed through unchanged, last, so that they win over what comes before them.
    """
    argv = [*prefix, "--host", host]
    if port is not None:
        argv += ["--port", str(port)]
    if model_path is not None:
        argv += ["--model", model_path]
    return argv + list(extra_args)


def build_environment(
    environ: Mapping[str, str], *, api_key: str, keep_model: bool
) -> dict[str, str]:
    """Return llama-server's environment: the caller's, less what would fight argv, plus the key.

    Args:
        environ: The caller's environment.
        api_key: The key that llama-server is to ask for.
        keep_model: Whether the environment may name the model: not when we do, nor in router mode.
    """
    dropped = _OWNED_VARIABLES if keep_model else _OWNED_VARIABLES | _MODEL_VARIABLES
    kept = {
        name: value
        for name, value in environ.items()
        if name not in dropped and not name.startswith(_OWN_PREFIX)
    }
    return {**kept, "LLAMA_API_KEY": api_key}


def _option_name(arg: str) -> str:
    name = arg.split("=", 1)[0]
    return name.replace("_", "-") if name.startswith("--") else name
