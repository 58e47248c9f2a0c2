"""Loads a generator: weights, tokenizer, prompt format, generation defaults, confidence model.

The lean code serves the families it knows; any other transformers encoder-decoder goes through the adapter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerBase,
    RagConfig,
    RagModel,
)

from default_model import PACK
from generator_service.confidence import Confidence
from generator_service.models import lean
from generator_service.models.base import ModelSpec, Seq2SeqModel
from generator_service.models.checkpoint import Checkpoint
from generator_service.models.defaults import GenerationDefaults, SpecialTokens
from generator_service.models.hf import HfSeq2Seq
from generator_service.prompt import Prompt, PromptFormat
from generator_service.rag_prompt import RagPrompt
from generator_service.request import DecodingModel
from generator_service.task_prompts import TaskPrompt, task_prompts
from serving.errors import Unimplemented
from serving.logs import get_logger
from serving.packed_checkpoint import restore

log = get_logger(__name__)

DEFAULT_MODEL = "default"
_VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
    "source.spm",
)  # fmt: skip
_DOWNLOAD = ("*.json", "*.txt", "*.model", "*.spm", "*.safetensors", "pytorch_model*.bin")
_RAG_MODELS = {
    "RagTokenForGeneration": DecodingModel.RAG_TOKEN,
    "RagSequenceForGeneration": DecodingModel.RAG_SEQUENCE,
}
_PACKED = {DEFAULT_MODEL: "generator", "fast": "fast"}
"""Names of generators that come with the package, and what the pack calls them."""
DTYPE_KEY = "rag_dtype"
"""In a checkpoint's config: the number format it is served in where nobody asks for another."""
DTYPES = tuple(lean.DTYPES)
ABSTAINS_KEY = "rag_abstains"
"""In a checkpoint's config: whether it was taught the empty answer for a passage that does not hold the answer."""


@dataclass(frozen=True, slots=True)
class LoadedGenerator:
    """Everything that comes with a checkpoint. `name` is "default", "fast", one on the model hub, or a directory's.

    `abstains` says that it was taught the empty answer for a passage that does not hold the answer.
    """

    name: str
    model: Seq2SeqModel
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    defaults: GenerationDefaults
    confidence: Confidence
    tasks: Sequence[TaskPrompt] = ()
    abstains: bool = False


def load_generator(
    name: str, *, dtype: str, device: str, cache_dir: Path, tokenizer: str = "", question_tokenizer: str = ""
) -> LoadedGenerator:
    """Loads a checkpoint.

    Args:
        name: "default" or "fast" for a generator that comes with the package, a directory, or a name on the model hub
            (the local cache is tried first; HF_HUB_OFFLINE leaves it at that).
        dtype: "float32", "bfloat16", "float16" or "int8"; "auto" is the one that the checkpoint's config names.
        device: A torch device.
        cache_dir: Where a generator that comes with the package is unpacked to.
        tokenizer: Name or directory of the tokenizer, where it does not lie with the checkpoint.
        question_tokenizer: The same for the tokenizer of a RAG checkpoint's question encoder.

    Raises:
        FileNotFoundError: There is no such checkpoint, or a tokenizer is missing.
        ValueError: The checkpoint is not an encoder-decoder that can be served.
    """
    folder = locate(name, cache_dir)
    checkpoint = Checkpoint(folder)
    tasks = task_prompts(checkpoint.config)
    dtype = _own_dtype(checkpoint.config) if dtype == "auto" else dtype
    model = _load_model(checkpoint, dtype=dtype, device=device)
    names = _TokenizerNames(tokenizer, question_tokenizer, cache_dir)
    text, prompt = _load_text(checkpoint, names, max_input_tokens=model.spec.max_input_tokens)
    generation = GenerationConfig.from_pretrained(folder) if checkpoint.generation is not None else GenerationConfig()
    return LoadedGenerator(
        name=folder.name if Path(name).is_dir() else name,
        model=model,
        tokenizer=text,
        prompt=prompt,
        defaults=GenerationDefaults.of(generation, _RAG_MODELS.get(checkpoint.architecture)),
        confidence=Confidence.load(folder / "confidence.json"),
        tasks=tasks,
        abstains=_abstains(checkpoint.config),
    )


def locate(name: str, cache_dir: Path) -> Path:
    """The directory of a checkpoint.

    Raises:
        FileNotFoundError: There is no such directory, the name is not to be had from the model hub, or no fast
            generator comes with the package.
    """
    if name in _PACKED:
        return restore(PACK, _PACKED[name], cache_dir)
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
    options = {"dtype": getattr(torch, "float32" if dtype == "int8" else dtype), "local_files_only": True}
    if checkpoint.rag_config is None:
        model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint.path, **options)
    else:
        model = RagModel.from_pretrained(checkpoint.path, **options).generator
    model = model.eval().to(device)
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


@dataclass(frozen=True, slots=True)
class _TokenizerNames:
    """What tokenizers to take instead of the checkpoint's own; "" takes those."""

    generator: str
    question_encoder: str
    cache_dir: Path


def _load_text(
    checkpoint: Checkpoint, names: _TokenizerNames, *, max_input_tokens: int
) -> tuple[PreTrainedTokenizerBase, Prompt]:
    def load(given: str, own: Path, flag: str, **options: Any) -> PreTrainedTokenizerBase:
        folder = locate(given, names.cache_dir) if given else own
        # Without any of these, transformers makes up a tokenizer that knows no word.
        if not any((folder / name).is_file() for name in _VOCABULARIES):
            missing = f"none of {', '.join(_VOCABULARIES)}"
            raise FileNotFoundError(f"{folder} has no tokenizer ({missing}); {flag} names the one to use")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)
        return tokenizer

    folder = checkpoint.path
    if checkpoint.rag_config is None:
        tokenizer = load(names.generator, folder, "--tokenizer")
        return tokenizer, _prompt(checkpoint.config, tokenizer, max_input_tokens)
    # RagTokenizer.save_pretrained names no class where the config says it.
    rag = RagConfig(**checkpoint.rag_config)
    question_folder = folder / "question_encoder_tokenizer"
    questions = load(names.question_encoder, question_folder, "--question-tokenizer", config=rag.question_encoder)
    tokenizer = load(names.generator, folder / "generator_tokenizer", "--tokenizer", config=rag.generator)
    return tokenizer, RagPrompt.of(rag, questions, max_input_tokens)


def _own_dtype(config: Mapping[str, Any]) -> str:
    dtype = config.get(DTYPE_KEY, "float32")
    if dtype not in DTYPES:
        raise ValueError(f"{DTYPE_KEY} of the checkpoint's config is {dtype!r}, none of {', '.join(DTYPES)}")
    return str(dtype)


def _abstains(config: Mapping[str, Any]) -> bool:
    value = config.get(ABSTAINS_KEY, False)
    if not isinstance(value, bool):
        raise ValueError(f"{ABSTAINS_KEY} of the checkpoint's config is {value!r}, neither true nor false")
    return value


def _prompt(config: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_input_tokens: int) -> PromptFormat:
    named = config.get("rag_prompt")
    if named is None:
        return PromptFormat.fitting(tokenizer, max_input_tokens)
    window = min(max_input_tokens, int(named.get("max_input_tokens", max_input_tokens)))
    return PromptFormat.from_config({**named, "max_input_tokens": window})
