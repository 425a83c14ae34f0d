"""Who is measured. Each peer relays from the upstream's port to a port of its own.

A new peer is a module here that starts it and says where it listens, and its line in `PEERS`.
"""

from __future__ import annotations

from benchmark.peers import fastapi_peer, litellm_proxy, llama_proxy, nginx
from benchmark.peers.peer import Listening, Peer, nothing_in_between

DIRECT = "direct"
NGINX = "nginx"
# Who the others are compared with, before anybody else.
BASELINE = "fastapi"

PEERS: dict[str, Peer] = {
    DIRECT: Peer("direct", nothing_in_between),
    NGINX: Peer("nginx, buffering off", nginx.start, nginx.prepare),
    BASELINE: Peer("FastAPI + httpx on uvicorn", fastapi_peer.start),
    "litellm": Peer("LiteLLM proxy", litellm_proxy.start, litellm_proxy.prepare),
    "main": Peer("llama-proxy, main listener", llama_proxy.start_main),
    "fast": Peer("llama-proxy, fast path", llama_proxy.start_fast),
}
__all__ = ["BASELINE", "DIRECT", "NGINX", "PEERS", "Listening", "Peer"]
