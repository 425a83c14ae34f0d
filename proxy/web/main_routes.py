"""Who answers which path on the main listener.

Owns the order in which our own paths are looked for; what is none of ours is llama-server's.
"""

from __future__ import annotations

from dataclasses import dataclass

from proxy.http1.asgi import AsgiApp
from proxy.predictions.routes import PATHS as PREDICTION_PATHS
from proxy.predictions.routes import PREFIX as PREDICTION_PREFIX
from proxy.web.static_files import PATHS as STATIC_PATHS
from proxy.web.status.routes import PATHS as STATUS_PATHS
from proxy.web.stream_tokens import STREAM_URL_PATH, TOKENS_PATH
from proxy.web.vitals import PATHS as VITAL_PATHS

_OPERATOR_PREFIX = "/proxy/"


@dataclass(frozen=True, slots=True)
class MainRoutes:
    """The applications of the main listener.

    Attributes:
        vitals: Answers `/health` and its like.
        operator: Answers `/proxy/...`.
        tokens: Answers where the fast path is, and makes tokens for it.
        predictions: Answers `/predictions`, and what Cog's clients ask beside it.
        status: Answers the data of the status page.
        files: Answers the files that pages load from us.
        relay: Answers everything else.
    """

    vitals: AsgiApp
    operator: AsgiApp
    tokens: AsgiApp
    predictions: AsgiApp
    status: AsgiApp
    files: AsgiApp
    relay: AsgiApp

    def choose(self, path: str) -> AsgiApp:
        """Return who answers `path`."""
        if path in VITAL_PATHS:
            return self.vitals
        if path in (STREAM_URL_PATH, TOKENS_PATH) or path.startswith(f"{TOKENS_PATH}/"):
            return self.tokens
        if path in PREDICTION_PATHS or path.startswith(PREDICTION_PREFIX):
            return self.predictions
        if path in STATUS_PATHS:
            return self.status
        if path in STATIC_PATHS:
            return self.files
        return self.operator if path.startswith(_OPERATOR_PREFIX) else self.relay
