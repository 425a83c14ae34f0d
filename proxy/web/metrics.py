"""`/proxy/metrics`: what the backend measured, in the Prometheus text format.

Owns the metrics' names and their mapping from `core.measures` and the backend's state, read at each
scrape. Labels are route labels, end causes, phases and engine states: closed sets, whatever clients
send.

Source: Prometheus, "Metric and label naming".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST as METRICS_TYPE
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from proxy.core.lifecycle import EngineState
from proxy.core.measures import Distribution
from proxy.runtime.backend import Backend

__all__ = ["METRICS_TYPE", "make_exporter"]

Family = CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily


def make_exporter(backend: Backend) -> Callable[[], bytes]:
    """Return a function that renders the backend's measures of the moment."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_BackendCollector(backend))
    return lambda: generate_latest(registry)


class _BackendCollector(Collector):
    """Reads the backend at each scrape."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def collect(self) -> Iterator[Family]:
        yield from self._exchanges()
        yield from self._gates()
        yield from self._engine()

    def _exchanges(self) -> Iterator[Family]:
        measures = self._backend.exchanges.measures
        ended = CounterMetricFamily(
            "llama_proxy_exchanges",
            "Exchanges that ended, by route and end cause.",
            labels=["route", "cause"],
        )
        for (route, cause), count in sorted(measures.exchanges.items()):
            ended.add_metric([route, cause], count)
        yield ended
        yield GaugeMetricFamily(
            "llama_proxy_exchanges_in_flight",
            "Exchanges under way.",
            value=len(self._backend.exchanges),
        )
        yield _histogram(
            "llama_proxy_phase_seconds",
            "Time that exchanges spent in each phase.",
            "phase",
            measures.phase_seconds,
        )
        yield _histogram(
            "llama_proxy_time_to_first_token_seconds",
            "From a request's acceptance to llama-server's first byte of body.",
            "route",
            measures.first_token_seconds,
        )
        yield CounterMetricFamily(
            "llama_proxy_sent_bytes",
            "Bytes of body sent to clients.",
            value=measures.bytes_sent,
        )
        tokens = CounterMetricFamily(
            "llama_proxy_tokens", "Tokens that llama-server told of.", labels=["kind"]
        )
        for kind in ("prompt", "completion"):
            tokens.add_metric([kind], measures.tokens[kind])
        yield tokens

    def _gates(self) -> Iterator[Family]:
        gates = [gate.statistics() for gate in self._backend.gates.values()]
        counts = {
            "permits": sum(gate.permits or 0 for gate in gates),
            "admitted": sum(gate.admitted for gate in gates),
            "queued": sum(gate.queued for gate in gates),
        }
        for name, count in counts.items():
            text = f"The gate's {name} of this moment, of all models."
            yield GaugeMetricFamily(f"llama_proxy_gate_{name}", text, value=count)

    def _engine(self) -> Iterator[Family]:
        engine = self._backend.engine
        state = GaugeMetricFamily(
            "llama_proxy_engine_state", "1 for the engine's state.", labels=["state"]
        )
        for known in EngineState:
            state.add_metric([known.value], float(known is engine.state))
        yield state
        yield CounterMetricFamily(
            "llama_proxy_engine_restarts",
            "Restarts of llama-server after a crash.",
            value=engine.restarts,
        )


def _histogram(
    name: str, text: str, label: str, found: dict[str, Distribution]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, text, labels=[label])
    for value, distribution in sorted(found.items()):
        family.add_metric([value], distribution.cumulative(), distribution.total)
    return family
