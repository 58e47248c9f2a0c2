"""Tiny RAG checkpoints with random weights, saved by transformers itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

TEXTS = (
    "Paris is the capital of France.",
    "Berlin is the capital of Germany, and has 2 airports.",
    'what is the capital of "France"? Who wrote it? / // a question with, punctuation: title',
)
DPR_SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "max_position_embeddings": 64, "initializer_range": 0.3,
}  # fmt: skip
_GENERATOR_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")


def question_tokenizer() -> Any:
    """BERT's kind: lower case, word pieces."""
    from transformers import BertTokenizerFast

    words = ["paris", "is", "the", "capital", "of", "france", "berlin", "germany", "what", "who", "wrote", "question"]
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *words,
        *letters[1:],
        *(f"##{c}" for c in letters),
        *'?.,/:"',
    ]
    return BertTokenizerFast(vocab={token: number for number, token in enumerate(tokens)})


def generator_tokenizer() -> Any:
    """BART's kind: bytes and case are kept, sequences stand between <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=list(_GENERATOR_SPECIALS), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(TEXTS, trainer)
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", cls_token="<s>", pad_token="<pad>", eos_token="</s>",
        sep_token="</s>", unk_token="<unk>",
    )  # fmt: skip


def save_dpr(folder: Path, *, seed: int = 5) -> Path:
    """A DPR context encoder, for the passages."""
    from transformers import DPRConfig, DPRContextEncoder

    torch.manual_seed(seed)
    tokenizer = question_tokenizer()
    DPRContextEncoder(DPRConfig(vocab_size=len(tokenizer), **DPR_SIZES)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_rag(
    folder: Path,
    *,
    seed: int = 0,
    per_token: bool = True,
    family: str = "bart",
    with_tokenizers: bool = True,
    **config: Any,
) -> Path:
    """A whole RAG model: DPR question encoder and generator, with what RagTokenizer saves.

    Args:
        folder: Gets the files.
        seed: Of the weights.
        per_token: RagTokenForGeneration, else RagSequenceForGeneration.
        family: Of the generator: "bart", "t5" or "pegasus".
        with_tokenizers: Whether the tokenizers are saved, too.
        config: Fields of RagConfig.
    """
    from transformers import (
        DPRConfig,
        DPRQuestionEncoder,
        RagConfig,
        RagSequenceForGeneration,
        RagTokenForGeneration,
        RagTokenizer,
    )

    torch.manual_seed(seed)
    questions, answers = question_tokenizer(), generator_tokenizer()
    encoder = DPRQuestionEncoder(DPRConfig(vocab_size=len(questions), **DPR_SIZES))
    generator = _generator(family, len(answers))
    fields = {"n_docs": 3, "max_combined_length": 60, "pad_token_id": 1, "eos_token_id": 2, **config}
    whole = RagConfig.from_question_encoder_generator_configs(encoder.config, generator.config, **fields)
    kind = RagTokenForGeneration if per_token else RagSequenceForGeneration
    kind(config=whole, question_encoder=encoder, generator=generator).save_pretrained(folder)
    if with_tokenizers:
        RagTokenizer(questions, answers).save_pretrained(folder)
    return folder


def _generator(family: str, vocab_size: int) -> Any:
    from transformers import (
        BartConfig,
        BartForConditionalGeneration,
        PegasusConfig,
        PegasusForConditionalGeneration,
        T5Config,
        T5ForConditionalGeneration,
    )

    common = {"vocab_size": vocab_size, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "d_model": 16}
    if family == "t5":
        config = T5Config(
            **common, d_kv=8, d_ff=32, num_layers=1, num_heads=2, decoder_start_token_id=1, initializer_factor=2.0,
            prefix="question: ",
        )  # fmt: skip
        return T5ForConditionalGeneration(config)
    layers = {
        "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 128, "decoder_start_token_id": 2,
        "forced_eos_token_id": 2, "init_std": 0.5,
    }  # fmt: skip
    if family == "pegasus":
        return PegasusForConditionalGeneration(PegasusConfig(**common, **layers))
    model = BartForConditionalGeneration(BartConfig(**common, **layers))
    model.final_logits_bias[0, 1] = -100.0  # Random weights would choose padding, which transformers does not count.
    return model
