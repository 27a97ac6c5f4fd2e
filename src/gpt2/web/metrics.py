"""Figures of a server for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

if TYPE_CHECKING:
    from gpt2.web.registry import ModelRegistry

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """Counts requests, and asks the schedulers for their figures when it is read."""

    def __init__(self, models: ModelRegistry):
        """Count from zero."""
        self._registry = CollectorRegistry()
        self._registry.register(_Schedulers(models))
        self._requests = Counter(
            "gpt2_requests", "Requests by path and status", ["path", "status"],
            registry=self._registry,
        )  # fmt: skip
        self._first_token = Histogram(
            "gpt2_time_to_first_token_seconds", "Time from a request to its first token",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        self._duration = Histogram(
            "gpt2_request_seconds", "Time from a request to the end of its answer",
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip

    def count_request(self, path: str, status: int) -> None:
        """Count an answer; the path must be one of the server's own."""
        self._requests.labels(path, str(status)).inc()

    def time_first_token(self, seconds: float) -> None:
        """Record how long a request waited for its first token."""
        self._first_token.observe(seconds)

    def time_request(self, seconds: float) -> None:
        """Record how long a request took."""
        self._duration.observe(seconds)

    def text(self) -> bytes:
        """Return all figures in Prometheus's text format."""
        return generate_latest(self._registry)


class _Schedulers:
    """A collector of the figures of each loaded model."""

    def __init__(self, models: ModelRegistry):
        self._models = models

    def collect(self) -> Iterator[Metric]:
        """Yield the figures of all models."""
        gauges = {
            "running": "Completions that are being generated",
            "waiting": "Requests that wait for a slot",
            "slots": "Completions that can be generated at once",
        }
        counters = {
            "prompt_tokens": "Prompt tokens processed",
            "reused_tokens": "Prompt tokens found in the KV cache",
            "generated_tokens": "Tokens generated",
            "steps": "Steps of the engine",
        }
        loaded = self._models.loaded
        for name, help in gauges.items():
            gauge = GaugeMetricFamily(f"gpt2_{name}", help, labels=["model"])
            for served in loaded:
                gauge.add_metric([served.name], getattr(served.scheduler, name))
            yield gauge
        for name, help in counters.items():
            counter = CounterMetricFamily(f"gpt2_{name}", help, labels=["model"])
            for served in loaded:
                counter.add_metric([served.name], getattr(served.scheduler.counters, name))
            yield counter
