"""What the gateway can be told. The only module of the gateway that reads the environment."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from serving.config import ConfigSection, Port, Seconds, ServiceConfig, settings_config


class AnswerCacheConfig(ConfigSection):
    """Answers kept for equal questions."""

    max_bytes: Annotated[int, Field(ge=0)] = 0
    """Size of all kept answers together, as on the wire; 0 keeps none."""

    ttl_seconds: Annotated[float, Field(gt=0)] = 300.0
    """How long an answer is used again at most; any write to its collection ends it at once."""


class GatewayConfig(ServiceConfig):
    """The gateway: questions in, cited answers out."""

    model_config = settings_config("RAG_GATEWAY_")

    port: Port = 50050
    """gRPC port; 0 takes a free one."""

    metrics_port: Port = 9100
    """Prometheus port; 0 takes a free one."""

    canary_interval_seconds: Annotated[float, Field(gt=0)] = 2.0
    """How often the backends' health is looked at; readiness follows."""

    retriever: str = "localhost:50051"
    """Address of the retriever, e.g. dns:///retriever:50051 for every replica behind a headless Service."""

    retriever_writer: str = ""
    """Address of the retriever that takes writes, where `retriever` is its read replicas; every call but those that
    look for passages goes there. Empty where one retriever does both."""

    generator: str = "localhost:50052"
    """Address of the generator."""

    backend_wait_seconds: Seconds = 60.0
    """At start: how long to wait for both backends before serving without them."""

    default_timeout_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Time for an answer whose caller set no deadline."""

    generate_reserve_seconds: Seconds = 0.5
    """Retrieval must end this long before the deadline (at most a quarter of what remains)."""

    reply_reserve_seconds: Seconds = 0.02
    """Generation must end this long before the deadline (at most a quarter of what remains)."""

    min_confidence: Annotated[float, Field(ge=0, le=1)] | None = None
    """Answers of lower confidence are ABSTAINED, unless the request says otherwise; 0 is never, null (the default) what
    the generator's checkpoint advises."""

    feedback_path: Path = Path("rag-data/feedback.jsonl")
    """File that feedback is appended to, one JSON object a line."""

    answer_cache: AnswerCacheConfig = AnswerCacheConfig()
