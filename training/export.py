"""``python -m training.export``: a question encoder and a generator as one Hugging Face RAG directory.

What RagSequenceForGeneration.save_pretrained and RagTokenizer.save_pretrained write, so that transformers loads it with
one call, and both our services as well. transformers' RAG knows DPR question encoders alone, and gives the generator
"title / passage // question"; what was made for anything else is refused, because it would load and answer badly.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import (
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    DPRQuestionEncoder,
    PreTrainedTokenizerBase,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
    RagTokenizer,
)

from retriever_service.checkpoint import find_checkpoint
from retriever_service.tower import load_model
from training.joint.losses import Marginal


@dataclass(frozen=True, slots=True)
class RagParts:
    """The halves of a RAG model with their tokenizers, and fields of its config such as n_docs and title_sep."""

    question_encoder: DPRQuestionEncoder
    question_tokenizer: PreTrainedTokenizerBase
    generator: Any
    generator_tokenizer: PreTrainedTokenizerBase
    fields: dict[str, Any]


def save_rag(folder: Path, parts: RagParts, kind: Marginal) -> None:
    """Write the directory."""
    config = RagConfig.from_question_encoder_generator_configs(
        parts.question_encoder.config, parts.generator.config, **_special_ids(parts.generator), **parts.fields
    )
    cls = RagSequenceForGeneration if kind is Marginal.SEQUENCE else RagTokenForGeneration
    model = cls(config=config, question_encoder=parts.question_encoder, generator=parts.generator)
    model.generation_config = parts.generator.generation_config
    model.save_pretrained(folder)
    RagTokenizer(parts.question_tokenizer, parts.generator_tokenizer).save_pretrained(folder)


def read_parts(encoder: str, generator: Path, fields: dict[str, Any]) -> RagParts:
    """The parts of two checkpoints.

    Raises:
        SystemExit: They cannot become a RAG model of transformers.
    """
    given = find_checkpoint(encoder)
    half = given.query_half() or given
    if not half.is_dpr:
        kind = "/".join(half.config.get("architectures") or ["encoder"])
        raise SystemExit(
            f"encoder {encoder!r} is a {kind} with {half.pooling} pooling: transformers' RAG knows DPR question "
            "encoders alone; use the two checkpoints as they are, with `rag up --encoder ... --model ...`"
        )
    model = AutoModelForSeq2SeqLM.from_pretrained(generator, dtype=torch.float32)
    named = getattr(model.config, "rag_prompt", None)
    if named is not None:
        raise SystemExit(
            f"generator {str(generator)!r} reads {named.get('format')!r} inputs; transformers' RAG would give it "
            "'title / passage // question', which it was not trained on"
        )
    return RagParts(
        load_model(half),
        AutoTokenizer.from_pretrained(half.tokenizer_path),
        model,
        AutoTokenizer.from_pretrained(generator),
        fields,
    )


def _special_ids(generator: Any) -> dict[str, Any]:
    names = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "vocab_size")
    return {name: getattr(generator.config, name) for name in names}


def main(arguments: list[str] | None = None) -> None:
    """Export."""
    parser = argparse.ArgumentParser(prog="python -m training.export", description=__doc__)
    parser.add_argument("--encoder", required=True, help="DPR question encoder: name or directory")
    parser.add_argument("--generator", type=Path, required=True, help="directory of a checkpoint")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", choices=[each.value for each in Marginal], default=Marginal.SEQUENCE.value)
    parser.add_argument("--passages", type=int, default=5, help="found for each question (n_docs)")
    flags = parser.parse_args(arguments)
    parts = read_parts(flags.encoder, flags.generator, {"n_docs": flags.passages})
    save_rag(flags.out, parts, Marginal(flags.model))
    Console().print(f"{flags.out}: {flags.model} model of {flags.encoder} and {flags.generator}")


if __name__ == "__main__":
    main()
