"""transformers' RagTokenForGeneration and RagSequenceForGeneration, as they come: the peer and the oracle."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSeq2SeqLM,
    DPRConfig,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

from benchmarks.generator.workload import Question, Workload

Ids = list[tuple[int, ...]]

_NONE = 10**6  # No token: the RAG models compare with the number, so that T5, which has none, needs one.


class Peer:
    """Both RAG models over one checkpoint, float32 unless told otherwise, everything else at its default."""

    def __init__(self, path: Path, *, device: str = "cpu", dtype: str = "float32") -> None:
        self._generator = AutoModelForSeq2SeqLM.from_pretrained(path, dtype=getattr(torch, dtype)).eval().to(device)
        self._device = device
        small = DPRConfig(vocab_size=8, hidden_size=4, num_hidden_layers=1, num_attention_heads=1, intermediate_size=4)
        self._question_encoder = DPRQuestionEncoder(small)  # Never runs: the inputs are token ids and scores.

    @property
    def vocab_size(self) -> int:
        """V."""
        return int(self._generator.config.vocab_size)

    def model(self, workload: Workload) -> Any:
        """The RAG model that a workload asks for."""
        config = self._generator.config
        rag = RagConfig.from_question_encoder_generator_configs(
            self._question_encoder.config,
            config,
            n_docs=workload.num_passages,
            bos_token_id=getattr(config, "bos_token_id", None) or _NONE,
            eos_token_id=config.eos_token_id,
            pad_token_id=config.pad_token_id,
            decoder_start_token_id=config.decoder_start_token_id,
        )
        kind = RagTokenForGeneration if workload.kind == "token" else RagSequenceForGeneration
        model = kind(config=rag, question_encoder=self._question_encoder, generator=self._generator)
        return model.eval().to(self._device)

    @torch.inference_mode()
    def answer(self, model: Any, workload: Workload, asked: Sequence[Question], *, is_batched: bool) -> Ids:
        """Answers one by one, or all in one padded batch as a careful user would write it."""
        batches = [list(asked)] if is_batched else [[question] for question in asked]
        return [ids for batch in batches for ids in self._generate(model, workload, batch)]

    def _generate(self, model: Any, workload: Workload, batch: Sequence[Question]) -> Ids:
        rows = torch.tensor([row for question in batch for row in question.rows], device=self._device)
        generated = model.generate(
            context_input_ids=rows,
            context_attention_mask=torch.ones_like(rows),
            doc_scores=torch.tensor([question.scores for question in batch], device=self._device),
            n_docs=workload.num_passages,
            num_beams=workload.num_beams,
            do_sample=False,
            min_new_tokens=workload.num_new_tokens,
            **self._length(workload),
        )
        return [tuple(ids[1 : 1 + workload.num_new_tokens]) for ids in generated.tolist()]

    @staticmethod
    def _length(workload: Workload) -> dict[str, int]:
        if workload.kind == "token":  # Its generate method reads max_length alone.
            return {"max_length": workload.num_new_tokens + 1}
        return {"max_new_tokens": workload.num_new_tokens}
