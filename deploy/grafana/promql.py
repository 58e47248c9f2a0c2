"""Expressions of PromQL, by what they ask."""

from dataclasses import dataclass

SERVICES = ("gateway", "retriever", "generator")
# What a rate looks back over; Grafana fills it in from the scrape interval and the zoom.
WINDOW = "$__rate_interval"


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and the legend of its series."""

    expr: str
    legend: str


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Per-second rate of a counter, summed over all but the labels in `by`."""
    selector = f"{metric}{{{where}}}" if where else metric
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({selector}[{WINDOW}]))"


def quantile(q: float, histogram: str, by: str = "", where: str = "") -> str:
    """A quantile of what a histogram observed."""
    return f"histogram_quantile({q}, {rate(f'{histogram}_bucket', f'le, {by}' if by else 'le', where)})"


def quantiles(histogram: str, where: str = "") -> list[Query]:
    """p50, p95 and p99."""
    return [Query(quantile(q, histogram, where=where), f"p{round(q * 100)}") for q in (0.5, 0.95, 0.99)]


def p95_by(label: str, histogram: str) -> list[Query]:
    """p95 for each value of a label."""
    return [Query(quantile(0.95, histogram, label), f"{{{{{label}}}}}")]


def mean(histogram: str) -> str:
    """Mean of what a histogram observed."""
    return f"{rate(f'{histogram}_sum')} / {rate(f'{histogram}_count')}"


def each_service(expr: str, legend: str) -> list[Query]:
    """The same for the three services; both texts say SERVICE."""
    return [Query(expr.replace("SERVICE", name), legend.replace("SERVICE", name)) for name in SERVICES]
