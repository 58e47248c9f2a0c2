"""What the generator can be told. Flags, RAG_GENERATOR_ environment, YAML; see `serving.config`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from serving.config import ConfigSection, Port, PositiveInt, ServiceConfig, settings_config
from serving.packed_checkpoint import DEFAULT_CACHE


class EngineConfig(ConfigSection):
    """How much the engine does at once."""

    max_running_requests: PositiveInt = 32
    """Requests that share each decode step; more wait, earliest deadline first."""

    max_decoder_rows: PositiveInt = 2048
    """Decoder rows (beams x passages) over all running requests; bounds the memory of their caches."""

    max_prefill_tokens: Annotated[int, Field(ge=0)] = 0
    """Encoder tokens that are read between two decode steps; less makes running answers wait less. 0 takes 1024 on a
    CPU, which does no more per second in larger pieces, and 16384 elsewhere."""

    max_scoring_tokens: PositiveInt = 512
    """Tokens of given answers (times passages) that are scored between two decode steps."""


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
    """The checkpoint: "default" for the one that comes with the package, "fast" for its faster student, a directory
    saved by transformers (an encoder-decoder or a whole RAG model), or a name on the model hub."""

    tokenizer: str = ""
    """Tokenizer of `model`, directory or name, where it does not lie with it."""

    question_tokenizer: str = ""
    """Tokenizer of a RAG checkpoint's question encoder, directory or name, where it does not lie with it."""

    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8"] = "auto"
    """Number format of the weights in memory; probabilities are float32 in any case. int8 multiplies integers, on a CPU
    that is faster so, and is float32 elsewhere. auto is what the checkpoint's config names as `rag_dtype`, int8 for
    "fast", else float32."""

    device: str = "cpu"
    """Torch device of the model."""

    num_threads: PositiveInt = 1
    """Cores that one model step uses."""

    encoder_cache_bytes: Annotated[int, Field(ge=0)] = 256 * 1024 * 1024
    """Memory, on the model's device, for what was read of a question with a passage, so that a repeated one is not read
    again; 0 keeps nothing. A passage of 200 tokens takes 0.6 MB with bart-base in float32: room for 430."""

    speculation: Literal["auto", "off", "lookup"] = "auto"
    """Whether greedy decoding guesses tokens from the passages and verifies them several at a time: the same answers in
    fewer steps. auto is lookup on a CPU and off elsewhere: a step of several tokens takes no CUDA graph, and its gain
    there is not measured."""

    draft_tokens: PositiveInt = 4
    """The most tokens guessed at a time; more suits long answers that copy whole sentences."""

    cache_dir: Path = DEFAULT_CACHE
    """Where a generator that comes with the package is unpacked to on first use."""

    engine: EngineConfig = EngineConfig()
    limits: LimitsConfig = LimitsConfig()

    @property
    def speculates(self) -> bool:
        """Whether tokens are guessed on the configured device."""
        return self.speculation == "lookup" or (self.speculation == "auto" and self.device == "cpu")
