"""Client channels between the services: balanced, health-checked, retried where it is safe."""

from __future__ import annotations

import json

import grpc.aio

from serving.deadline import current_request_id
from serving.interceptor import REQUEST_ID_KEY

DEFAULT_MAX_MESSAGE_BYTES = 16 * 1024 * 1024


def service_config(service: str, *, health_check: bool = True) -> str:
    """The gRPC service config for calls of `service`, as JSON.

    Only UNAVAILABLE is retried: RESOURCE_EXHAUSTED must reach the caller, who knows whether to come back.

    Source: https://github.com/grpc/grpc/blob/master/doc/service_config.md
    """
    config: dict[str, object] = {
        "loadBalancingConfig": [{"round_robin": {}}],
        "methodConfig": [
            {
                "name": [{"service": service}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE"],
                },
            }
        ],
        "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
    }
    if health_check:
        config["healthCheckConfig"] = {"serviceName": service}
    return json.dumps(config)


def open_channel(
    target: str,
    *,
    service: str,
    max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    health_check: bool = True,
) -> grpc.aio.Channel:
    """A channel to every address behind `target`, e.g. "dns:///retriever:50051" or "unix:///run/rag.sock".

    Args:
        target: A gRPC name.
        service: Full name of the service that will be called.
        max_message_bytes: Largest message received or sent.
        health_check: Whether addresses whose health for `service` is not SERVING are left out.
    """
    options: list[tuple[str, str | int]] = [
        ("grpc.service_config", service_config(service, health_check=health_check)),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    return grpc.aio.insecure_channel(target, options=options)


def forwarding_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata that carries the current request's id downstream."""
    request_id = current_request_id()
    return ((REQUEST_ID_KEY, request_id),) if request_id else ()
