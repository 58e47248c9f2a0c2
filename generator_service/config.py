"""What the generator can be told. Flags, RAG_GENERATOR_ environment, YAML; see `serving.config`."""

from pathlib import Path
from typing import Literal

from serving.config import ConfigSection, Port, PositiveInt, ServiceConfig, settings_config


class EngineConfig(ConfigSection):
    """How much the engine does at once."""

    max_running_requests: PositiveInt = 32
    """Requests that share each decode step; more wait, earliest deadline first."""

    max_decoder_rows: PositiveInt = 2048
    """Decoder rows (beams x passages) over all running requests; bounds the memory of their caches."""

    max_prefill_tokens: PositiveInt = 16_384
    """Encoder tokens that are let in between two decode steps; less makes running answers wait less."""


class LimitsConfig(ConfigSection):
    """The largest request that is taken."""

    max_question_bytes: PositiveInt = 8_192
    """Bytes of a question."""

    max_passages: PositiveInt = 100
    """Passages of a request."""

    max_title_bytes: PositiveInt = 1_024
    """Bytes of a passage's title."""

    max_passage_bytes: PositiveInt = 65_536
    """Bytes of a passage's text; what does not fit the input window is cut off."""

    max_num_beams: PositiveInt = 16
    """Beams of a search, or samples."""

    max_new_tokens: PositiveInt = 512
    """Tokens of an answer."""

    max_answers: PositiveInt = 64
    """Answers of a scoring request."""

    max_answer_tokens: PositiveInt = 512
    """Tokens of an answer to score."""


class GeneratorConfig(ServiceConfig):
    """The generator: an answer from a question and its passages."""

    model_config = settings_config("RAG_GENERATOR_")

    port: Port = 50052
    """gRPC port; 0 takes a free one."""

    metrics_port: Port = 9102
    """Prometheus port; 0 takes a free one."""

    model: str = "default"
    """The checkpoint: "default" for the one that comes with the package, a directory saved by transformers, or a name
    in the local transformers cache."""

    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the weights in memory; probabilities are float32 in any case."""

    device: str = "cpu"
    """Torch device of the model."""

    num_threads: PositiveInt = 1
    """Cores that one model step uses."""

    cache_dir: Path = Path("~/.cache/rag-serving")
    """Where the default generator is unpacked to on first use."""

    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()
