"""What a checkpoint says of decoding: special tokens and generation defaults. Pure reading."""

from dataclasses import dataclass
from typing import Any, Literal

from transformers import GenerationConfig, PreTrainedConfig

from generator_service.request import DecodingModel
from serving.logs import get_logger

log = get_logger(__name__)

_UNSUPPORTED = {
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "exponential_decay_length_penalty": None,
    "do_sample": False,
}
"""Generation options that would change the answer and are not implemented, with their neutral value."""


@dataclass(frozen=True, slots=True)
class SpecialTokens:
    """Token ids that decoding needs, from the generation config first, then the model's config."""

    decoder_start: int
    eos: int
    pad: int
    bos: int | None
    forced_bos: int | None
    forced_eos: int | None

    @classmethod
    def of(cls, config: PreTrainedConfig, generation: GenerationConfig) -> "SpecialTokens":
        """Reads the ids.

        Raises:
            ValueError: an id that decoding cannot do without is missing.
        """

        def read(name: str) -> int | None:
            value = getattr(generation, name, None)
            value = getattr(config, name, None) if value is None else value
            return int(value[0] if isinstance(value, list) else value) if value is not None else None

        eos, bos = read("eos_token_id"), read("bos_token_id")
        start, pad = read("decoder_start_token_id"), read("pad_token_id")
        start = bos if start is None else start
        pad = eos if pad is None else pad
        if start is None or eos is None or pad is None:
            raise ValueError("the checkpoint names no decoder_start_token_id (or bos_token_id) or no eos_token_id")
        return cls(start, eos, pad, bos, read("forced_bos_token_id"), read("forced_eos_token_id"))


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The checkpoint's own decoding options. Lengths count new tokens; None leaves the service's default."""

    model: DecodingModel | None = None
    num_beams: int = 1
    max_new_tokens: int | None = None
    min_new_tokens: int = 0
    length_penalty: float = 1.0
    early_stopping: bool | Literal["never"] = False
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, generation: GenerationConfig, model: DecodingModel | None = None) -> "GenerationDefaults":
        """Reads `generation_config.json`; lengths there may count the decoder's start token, too."""
        for name, neutral in _UNSUPPORTED.items():
            if getattr(generation, name, None) not in (None, neutral):
                log.warning("generation option of the checkpoint is not supported and left out", option=name)
        max_new, min_new = generation.max_new_tokens, generation.min_new_tokens
        if max_new is None and generation.max_length is not None:
            max_new = generation.max_length - 1
        if min_new is None and generation.min_length is not None:
            min_new = max(0, generation.min_length - 1)
        return cls(
            model=model,
            num_beams=_or(generation.num_beams, 1),
            max_new_tokens=max_new,
            min_new_tokens=_or(min_new, 0),
            length_penalty=_or(generation.length_penalty, 1.0),
            early_stopping=_or(generation.early_stopping, False),
            no_repeat_ngram_size=_or(generation.no_repeat_ngram_size, 0),
            bad_words=tuple(tuple(word) for word in generation.bad_words_ids or ()),
        )


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value
