"""Exits with 0 when the service on a local gRPC port is ready: `python healthcheck.py PORT`.

For compose alone. Kubernetes asks by its native gRPC probes, which start no interpreter.
"""

import sys

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc


def main(port: str) -> int:
    """The exit status."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        request = health_pb2.HealthCheckRequest(service="readiness")
        try:
            reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=3)
        except grpc.RpcError as error:
            sys.stderr.write(f"{error}\n")
            return 1
    return 0 if reply.status == health_pb2.HealthCheckResponse.SERVING else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
