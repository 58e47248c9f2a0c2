"""What every service measures of itself, and the listener that Prometheus scrapes."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from prometheus_client import Counter, Gauge, Histogram, Info, start_http_server

# From a cached embedding to a long answer on a CPU; the ends of the SLO range (0.1, 0.5, 2.5 s) are buckets.
LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class RpcMetrics:
    """The metrics of one service's RPCs and of its life."""

    finished: Counter
    duration_seconds: Histogram
    in_flight: Gauge
    ready: Gauge
    admitted_items: Gauge
    admitted_tokens: Gauge
    refused: Counter
    info: Info

    def set_admitted(self, items: int, tokens: int) -> None:
        """Records what is inside; fits `Admission(on_change=...)`."""
        self.admitted_items.set(items)
        self.admitted_tokens.set(tokens)

    def count_refusal(self, reason: str) -> None:
        """Counts a refusal; fits `Admission(on_refuse=...)`."""
        self.refused.labels(reason=reason).inc()


@functools.cache
def rpc_metrics(service: str) -> RpcMetrics:
    """The metrics of `service` ("retriever", "generator", "gateway"); made once per process."""
    prefix = f"rag_{service}"
    return RpcMetrics(
        # How many calls end how? Rate by code; errors over all is the error ratio.
        finished=Counter(f"{prefix}_rpcs", "Finished RPCs.", ["method", "code"]),
        # How long do callers wait?
        duration_seconds=Histogram(
            f"{prefix}_rpc_duration_seconds", "RPC duration.", ["method"], buckets=LATENCY_BUCKETS
        ),
        # How many calls are inside right now?
        in_flight=Gauge(f"{prefix}_rpcs_in_flight", "RPCs being served.", ["method"]),
        # Will it answer?
        ready=Gauge(f"{prefix}_ready", "1 when the service is SERVING."),
        # How close is it to refusing work? Scale on these.
        admitted_items=Gauge(f"{prefix}_admitted_items", "Items inside."),
        admitted_tokens=Gauge(f"{prefix}_admitted_tokens", "Tokens inside."),
        # What was refused at the door, and why?
        refused=Counter(f"{prefix}_refused", "Requests refused at admission.", ["reason"]),
        # What runs here?
        info=Info(f"{prefix}_build", "Version of the service."),
    )


def start_metrics_listener(host: str, port: int) -> int:
    """Serves /metrics from a thread of its own.

    Returns:
        The port, chosen by the system when `port` is 0.

    Raises:
        OSError: When the address is taken.
    """
    server, _ = start_http_server(port, addr=host)
    return int(server.server_port)
