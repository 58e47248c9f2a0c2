"""What is asked of both sides: random weights in the shapes of real models, random inputs of stated sizes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import BartConfig, T5Config

Kind = Literal["token", "sequence"]

_FIRST_ORDINARY_ID = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """Questions that are under way at once, each over its own passages, decoded to a fixed number of tokens."""

    shape: str = "bart-base"
    kind: Kind = "token"
    num_beams: int = 1
    num_passages: int = 5
    num_tokens: int = 200
    num_new_tokens: int = 20
    num_questions: int = 1

    @property
    def name(self) -> str:
        """Unique, and stable from run to run."""
        return " ".join(f"{key}={value}" for key, value in asdict(self).items())


@dataclass(frozen=True, slots=True)
class Question:
    """Encoder rows, one per passage, and the passages' scores; all rows have one length, so that nobody pads."""

    rows: list[list[int]]
    scores: list[float]


def questions(workload: Workload, vocab_size: int, *, seed: int = 0) -> list[Question]:
    """The workload's inputs; the same seed gives the same."""
    source = random.Random(seed)
    return [
        Question(
            [[source.randrange(_FIRST_ORDINARY_ID, vocab_size) for _ in range(workload.num_tokens)]
             for _ in range(workload.num_passages)],
            [source.gauss(0, 1) for _ in range(workload.num_passages)],
        )
        for _ in range(workload.num_questions)
    ]  # fmt: skip


def checkpoint(shape: str, folder: Path) -> Path:
    """The directory of a checkpoint of random weights; made when it is not there."""
    path = folder / shape
    if not (path / "model.safetensors").exists():
        torch.manual_seed(0)
        _SHAPES[shape]().save_pretrained(path)
    return path


def _bart(**fields: Any) -> Any:
    config = BartConfig(forced_eos_token_id=None, max_position_embeddings=1024, **fields)
    return transformers.BartForConditionalGeneration(config)


def _bart_base() -> Any:
    return _bart(
        vocab_size=50265, d_model=768, encoder_layers=6, decoder_layers=6, encoder_attention_heads=12,
        decoder_attention_heads=12, encoder_ffn_dim=3072, decoder_ffn_dim=3072,
    )  # fmt: skip


def _t5_small() -> Any:
    return transformers.T5ForConditionalGeneration(T5Config(decoder_start_token_id=0, initializer_factor=1.0))


def _tiny() -> Any:
    return _bart(
        vocab_size=60, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, init_std=0.6,
    )  # fmt: skip


_SHAPES: dict[str, Callable[[], Any]] = {"bart-base": _bart_base, "t5-small": _t5_small, "tiny": _tiny}
