"""`Config` and how it comes about: sources read, merged by precedence, checked, files opened once.

Owns the precedence (command line, environment, file, default) and the order of the checks. The
syntax of a source is in `sources`, what goes together in `rules`, the opening of files in `files`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from proxy.config import files, rules
from proxy.config.options import OPTIONS
from proxy.config.sources import Given, read_arguments, read_environment, read_table

if TYPE_CHECKING:
    from proxy.core.access import ApiKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Everything that `llama-proxy serve` was told, checked. Units are in the names.

    The fields are the options of `OPTIONS`, but that `api_keys` has those of the file and of the
    options together, and that `upstream_api_key` and `webhook_token` are what their files have.
    """

    model: str | None
    router: bool
    llama_server: str | None
    extra_args: tuple[str, ...] = field(repr=False)  # They may hold a token for a model hub.
    load_stall_s: float
    stop_grace_s: float
    exit_on_failed: bool
    upstream_url: str | None
    upstream_api_key: str | None = field(repr=False)
    slots: int | None
    hosts: tuple[str, ...]
    port: int
    fast_port: int
    no_fast_path: bool
    fast_public_url: str | None
    certfile: str | None
    keyfile: str | None
    api_keys: tuple[ApiKey, ...] = field(repr=False)
    cors_origins: tuple[str, ...]
    allowed_hosts: tuple[str, ...]
    token_ttl_s: float
    token_lease_s: float
    max_queue: int
    queue_timeout_s: float
    send_timeout_s: float
    request_timeout_s: float
    max_body_mib: int
    drain_s: float
    prediction_history: int
    webhook_token: str | None = field(repr=False)
    allow_private_webhooks: bool
    forward_conversation_id: bool
    allow_remote_media: bool
    via: bool
    forwarded: bool
    status_content: str | None
    ready_file: str | None
    log_format: str
    log_level: str

    @property
    def serves_demo_model(self) -> bool:
        """Return whether nothing names a model, so that the packaged one is served."""
        from proxy.core.launch import names_model

        named = self.model or self.router or self.upstream_url
        return not named and not names_model(self.extra_args)


# Repeatable options whose field has the plural.
_PLURALS = {"host": "hosts", "cors-origin": "cors_origins", "allowed-host": "allowed_hosts"}
# What `_build` makes fields of itself.
_NOT_FIELDS = ("config", "api-key", "api-key-file", "upstream-api-key-file", "webhook-token-file")


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Return the configuration from all sources.

    Args:
        argv: What stands behind `llama-proxy serve`.
        environ: The environment, `os.environ` as a rule.

    Raises:
        ConfigError: Something is unknown, malformed, unreadable or contradictory; one sentence.
    """
    from_arguments, extra_args = read_arguments(argv)
    from_environment = read_environment(environ)
    given = {**from_environment, **from_arguments}
    config_file = given.get("config")
    if config_file is not None:
        path = str(config_file.value)
        table = files.read_toml(path, config_file.source)
        given = {**read_table(table, path), **given}
    rules.check(given, extra_args)
    return _build(given, extra_args)


def _build(given: Mapping[str, Given], extra_args: tuple[str, ...]) -> Config:
    values: dict[str, Any] = {
        _PLURALS.get(option.name, option.name.replace("-", "_")): (
            given[option.name].value if option.name in given else option.default
        )
        for option in OPTIONS
        if option.name not in _NOT_FIELDS
    }
    files.check_given(given)
    config = Config(
        **values,
        extra_args=extra_args,
        api_keys=files.read_api_keys(given.get("api-key-file"), given.get("api-key")),
        upstream_api_key=files.read_secret(given.get("upstream-api-key-file")),
        webhook_token=files.read_secret(given.get("webhook-token-file")),
    )
    rules.check_exposure(config.hosts, has_keys=bool(config.api_keys))
    return config
