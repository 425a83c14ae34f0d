"""The composition root: builds the objects, opens the top nurseries and owns the order of shutdown.

What the command does is written with what stands here and nothing else; whoever embeds the proxy in
a Trio program has the same pieces.
"""

from __future__ import annotations

from proxy.serve.engines import open_llama_server, open_upstream
from proxy.serve.proxying import open_proxy
from proxy.serve.server import ProxyServer

__all__ = ["ProxyServer", "open_llama_server", "open_proxy", "open_upstream"]
