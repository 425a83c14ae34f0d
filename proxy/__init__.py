"""A structured-concurrency reverse proxy in front of a llama-server that it launches itself.

The public names are those in `__all__`. They are imported when they are first asked for: the
command starts llama-server before anything heavy is loaded, and reading options needs none of them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from proxy._version import __version__

if TYPE_CHECKING:
    from proxy.client import (
        ChatStream,
        ProxyClient,
        StreamAborted,
        StreamBroken,
        StreamFailed,
        StreamRefused,
        StreamUnanswered,
        open_client,
    )
    from proxy.core.access import ApiKey
    from proxy.core.causes import EndCause, Phase
    from proxy.core.errors import (
        ConfigError,
        EngineError,
        EngineFailed,
        EngineLoadFailed,
        EngineNotFound,
        ProxyCrashed,
        ProxyError,
        TooManyTokens,
    )
    from proxy.core.lifecycle import EngineState, ExitStatus
    from proxy.runtime.external import ExternalServer
    from proxy.runtime.listening import bind_sockets
    from proxy.runtime.pump import (
        Flow,
        Pump,
        PumpError,
        SinkGone,
        SinkStalled,
        SourceBroken,
        SourceMalformed,
    )
    from proxy.runtime.stream_tokens import StreamToken, StreamTokens
    from proxy.runtime.supervisor import LlamaServer
    from proxy.serve import (
        ProxyServer,
        open_llama_server,
        open_proxy,
        open_upstream,
    )

_HOMES = {
    "ApiKey": "proxy.core.access",
    "ChatStream": "proxy.client",
    "ConfigError": "proxy.core.errors",
    "EndCause": "proxy.core.causes",
    "EngineError": "proxy.core.errors",
    "EngineFailed": "proxy.core.errors",
    "EngineLoadFailed": "proxy.core.errors",
    "EngineNotFound": "proxy.core.errors",
    "EngineState": "proxy.core.lifecycle",
    "ExitStatus": "proxy.core.lifecycle",
    "ExternalServer": "proxy.runtime.external",
    "Flow": "proxy.runtime.pump",
    "LlamaServer": "proxy.runtime.supervisor",
    "Phase": "proxy.core.causes",
    "ProxyClient": "proxy.client",
    "ProxyCrashed": "proxy.core.errors",
    "ProxyError": "proxy.core.errors",
    "ProxyServer": "proxy.serve",
    "Pump": "proxy.runtime.pump",
    "PumpError": "proxy.runtime.pump",
    "SinkGone": "proxy.runtime.pump",
    "SinkStalled": "proxy.runtime.pump",
    "SourceBroken": "proxy.runtime.pump",
    "SourceMalformed": "proxy.runtime.pump",
    "StreamAborted": "proxy.client",
    "StreamBroken": "proxy.client",
    "StreamFailed": "proxy.client",
    "StreamRefused": "proxy.client",
    "StreamToken": "proxy.runtime.stream_tokens",
    "StreamTokens": "proxy.runtime.stream_tokens",
    "StreamUnanswered": "proxy.client",
    "TooManyTokens": "proxy.core.errors",
    "bind_sockets": "proxy.runtime.listening",
    "open_client": "proxy.client",
    "open_llama_server": "proxy.serve",
    "open_proxy": "proxy.serve",
    "open_upstream": "proxy.serve",
}

__all__ = [
    "ApiKey",
    "ChatStream",
    "ConfigError",
    "EndCause",
    "EngineError",
    "EngineFailed",
    "EngineLoadFailed",
    "EngineNotFound",
    "EngineState",
    "ExitStatus",
    "ExternalServer",
    "Flow",
    "LlamaServer",
    "Phase",
    "ProxyClient",
    "ProxyCrashed",
    "ProxyError",
    "ProxyServer",
    "Pump",
    "PumpError",
    "SinkGone",
    "SinkStalled",
    "SourceBroken",
    "SourceMalformed",
    "StreamAborted",
    "StreamBroken",
    "StreamFailed",
    "StreamRefused",
    "StreamToken",
    "StreamTokens",
    "StreamUnanswered",
    "TooManyTokens",
    "__version__",
    "bind_sockets",
    "open_client",
    "open_llama_server",
    "open_proxy",
    "open_upstream",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'proxy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
