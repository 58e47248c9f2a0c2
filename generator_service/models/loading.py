"""Loads a generator: weights, tokenizer, prompt format, generation defaults, confidence model.

The lean code serves the families it knows; any other transformers encoder-decoder goes through the adapter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, GenerationConfig, PreTrainedTokenizerBase

from generator_service.confidence import Confidence
from generator_service.models import lean
from generator_service.models.base import ModelSpec, Seq2SeqModel
from generator_service.models.checkpoint import Checkpoint
from generator_service.models.defaults import GenerationDefaults, SpecialTokens
from generator_service.models.hf import HfSeq2Seq
from generator_service.packed_checkpoint import restore
from generator_service.prompt import PromptFormat
from serving.errors import Unimplemented
from serving.logs import get_logger

log = get_logger(__name__)

DEFAULT_MODEL = "default"
_VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    "source.spm",
)  # fmt: skip
_DOWNLOAD = ("*.json", "*.txt", "*.model", "*.spm", "*.safetensors", "pytorch_model*.bin")
_PACKED_DEFAULT = Path(__file__).parent.parent / "default_model"


@dataclass(frozen=True, slots=True)
class LoadedGenerator:
    """Everything that comes with a checkpoint. `name` is "default", a name on the model hub, or a directory's name."""

    name: str
    model: Seq2SeqModel
    tokenizer: PreTrainedTokenizerBase
    prompt: PromptFormat
    defaults: GenerationDefaults
    confidence: Confidence


def load_generator(name: str, *, dtype: str, device: str, cache_dir: Path) -> LoadedGenerator:
    """Loads a checkpoint.

    Args:
        name: "default" for the generator that comes with the package, a directory, or a name on the model hub (the
            local cache is tried first; HF_HUB_OFFLINE leaves it at that).
        dtype: "float32", "bfloat16" or "float16".
        device: A torch device.
        cache_dir: Where the default generator is unpacked to.

    Raises:
        FileNotFoundError: There is no such checkpoint, or it has no tokenizer.
        ValueError: The checkpoint is not an encoder-decoder that can be served.
    """
    folder = locate(name, cache_dir)
    checkpoint = Checkpoint(folder)
    model = _load_model(checkpoint, dtype=dtype, device=device)
    tokenizer = _load_tokenizer(folder)
    generation = GenerationConfig.from_pretrained(folder) if checkpoint.generation is not None else GenerationConfig()
    return LoadedGenerator(
        name=folder.name if Path(name).is_dir() else name,
        model=model,
        tokenizer=tokenizer,
        prompt=_prompt(checkpoint.config, tokenizer, model.spec.max_input_tokens),
        defaults=GenerationDefaults.of(generation),
        confidence=Confidence.load(folder / "confidence.json"),
    )


def locate(name: str, cache_dir: Path) -> Path:
    """The directory of a checkpoint.

    Raises:
        FileNotFoundError: There is no such directory, and the name is not to be had from the model hub.
    """
    if name == DEFAULT_MODEL:
        return restore(_PACKED_DEFAULT, cache_dir)
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(_DOWNLOAD)))
    except Exception as error:  # The hub raises a dozen kinds; each means: not to be had.
        raise FileNotFoundError(
            f"generator {name!r} is neither a directory nor to be had from the model hub: {error}"
        ) from error


def _load_model(checkpoint: Checkpoint, *, dtype: str, device: str) -> Seq2SeqModel:
    try:
        return lean.load(checkpoint.path, dtype=dtype, device=device)
    except Unimplemented as reason:
        log.info("served by the transformers adapter", reason=reason.message)
    model = AutoModelForSeq2SeqLM.from_pretrained(
        checkpoint.path, dtype=getattr(torch, dtype), local_files_only=True
    ).to(device)
    return HfSeq2Seq(model, adapter_spec(model, name=checkpoint.path.name, digest=checkpoint.digest()))


def adapter_spec(model: Any, *, name: str, digest: str) -> ModelSpec:
    """What a transformers model is."""
    config = model.config
    tokens = SpecialTokens.of(config, model.generation_config)
    max_tokens = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 512
    return ModelSpec(
        name=name,
        architecture=type(model).__name__,
        digest=digest,
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        num_parameters=model.num_parameters(),
        vocab_size=model.get_output_embeddings().weight.shape[0],
        max_input_tokens=max_tokens,
        max_target_tokens=max_tokens,
        decoder_start_token_id=tokens.decoder_start,
        eos_token_id=tokens.eos,
        pad_token_id=tokens.pad,
        bos_token_id=tokens.bos,
        forced_bos_token_id=tokens.forced_bos,
        forced_eos_token_id=tokens.forced_eos,
    )


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    # Without any of these, transformers makes up a tokenizer that knows no word.
    if not any((folder / name).is_file() for name in _VOCABULARIES):
        raise FileNotFoundError(f"{folder} has no tokenizer: none of {', '.join(_VOCABULARIES)}")
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


def _prompt(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_input_tokens: int) -> PromptFormat:
    named = config.get("rag_prompt")
    if named is None:
        return PromptFormat.fitting(tokenizer, max_input_tokens)
    window = min(max_input_tokens, int(named.get("max_input_tokens", max_input_tokens)))
    return PromptFormat.from_config({**named, "max_input_tokens": window})
