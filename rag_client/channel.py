"""The channel to the gateway: balanced over its addresses, retried where it is safe, kept alive."""

import json
import uuid

DEFAULT_TARGET = "localhost:50050"
DEFAULT_TIMEOUT_SECONDS = 30.0
UPSERT_TIMEOUT_SECONDS = 600.0
LONG_TIMEOUT_SECONDS = 86_400.0  # Of what takes as long as the collection is large.
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
READINESS = "readiness"
_REQUEST_ID_KEY = "x-request-id"

_NOT_REPEATED = ("CreateSnapshot", "ReencodeCollection")

# Only UNAVAILABLE is retried: it says that nothing was done, or that the connection broke. Two RPCs of the contract are
# not idempotent; the entry that names a method comes before its service's. No health checking here: a gateway that lost
# a backend is NOT_SERVING, yet its answer says which one, and that must reach the caller.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {"name": [{"service": "rag.v1.RetrieverService", "method": name} for name in _NOT_REPEATED]},
        {
            "name": [{"service": "rag.v1.GatewayService"}, {"service": "rag.v1.RetrieverService"}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


def channel_options() -> list[tuple[str, str | int]]:
    """Options of a channel.

    Source: https://github.com/grpc/grpc/blob/master/doc/service_config.md
    """
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]


def request_metadata() -> tuple[tuple[str, str], ...]:
    """Metadata of one call: a fresh request id, which the services write into their logs."""
    return ((_REQUEST_ID_KEY, uuid.uuid4().hex),)
