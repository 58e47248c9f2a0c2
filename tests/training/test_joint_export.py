"""A jointly trained RAG model, and two checkpoints put together, load in transformers and in our services."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BartForConditionalGeneration, DPRQuestionEncoder, RagSequenceForGeneration, RagTokenizer

from generator_service.models.loading import load_generator
from generator_service.request import DecodingModel
from retriever_service.bi_encoder import BiEncoder
from retriever_service.collection import Passage
from retriever_service.encoder import Query
from tests.rag_checkpoints import save_dpr, save_rag
from tests.training.joint_toy import ingest
from training import export
from training.joint import __main__ as program

QUESTION = "what is the capital of france"


def _serves(folder: Path, cache: Path) -> tuple[Any, np.ndarray[Any, Any]]:
    loaded = load_generator(str(folder), dtype="float32", device="cpu", cache_dir=cache)
    return loaded, BiEncoder(str(folder)).encode([Query(QUESTION)])


def test_training_on_a_rag_model_writes_a_rag_model(tmp_path: Path) -> None:
    rag = save_rag(tmp_path / "start", per_token=False)
    dpr = save_dpr(tmp_path / "passages")
    passages = [
        Passage(f"p{i}", "title", text) for i, text in enumerate(("paris is in france", "berlin is in germany"))
    ]
    ingest(tmp_path / "data", rag, passages, passage_encoder=dpr)
    rows = [{"id": f"q{i}", "question": QUESTION, "answers": ["paris"], "passage_id": "p0"} for i in range(4)]
    (tmp_path / "q.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    program.main(
        ["--questions", str(tmp_path / "q.jsonl.gz"), "--dev", str(tmp_path / "q.jsonl.gz"), "--data-dir",
         str(tmp_path / "data"), "--collection", "toy", "--encoder", str(rag), "--passage-encoder", str(dpr),
         "--generator", str(rag), "--passages", "2", "--batch-size", "2", "--max-steps", "2", "--dtype", "float32",
         "--encoder-rate", "1e-2", "--measure-answers", "0", "--out", str(tmp_path / "out"), "--threads", "1"]
    )  # fmt: skip
    trained = tmp_path / "out/checkpoint/rag"
    model = RagSequenceForGeneration.from_pretrained(trained).eval()
    tokenizer = RagTokenizer.from_pretrained(trained)
    loaded, vector = _serves(trained, tmp_path)
    with torch.inference_mode():
        expected = model.question_encoder(**tokenizer.question_encoder(QUESTION, return_tensors="pt"))[0]
    np.testing.assert_allclose(vector, expected.numpy(), atol=1e-5)
    assert not np.allclose(vector, BiEncoder(str(rag)).encode([Query(QUESTION)]), atol=1e-3)
    assert loaded.prompt.format == _serves(rag, tmp_path)[0].prompt.format
    assert model.config.n_docs == 3


def test_a_dpr_encoder_and_a_generator_become_a_rag_model(tmp_path: Path) -> None:
    whole = RagSequenceForGeneration.from_pretrained(save_rag(tmp_path / "start", per_token=False))
    tokenizer = RagTokenizer.from_pretrained(tmp_path / "start")
    DPRQuestionEncoder.save_pretrained(whole.rag.question_encoder, tmp_path / "encoder")
    tokenizer.question_encoder.save_pretrained(tmp_path / "encoder")
    BartForConditionalGeneration.save_pretrained(whole.rag.generator, tmp_path / "generator")
    tokenizer.generator.save_pretrained(tmp_path / "generator")
    out = tmp_path / "rag"
    export.main(["--encoder", str(tmp_path / "encoder"), "--generator", str(tmp_path / "generator"), "--out", str(out)])
    again = RagSequenceForGeneration.from_pretrained(out)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    loaded, vector = _serves(out, tmp_path)
    assert loaded.defaults.model is DecodingModel.RAG_SEQUENCE
    np.testing.assert_array_equal(vector, BiEncoder(str(tmp_path / "encoder")).encode([Query(QUESTION)]))


def test_what_transformers_rag_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="DPR question encoders alone"):
        export.main(["--encoder", "all-MiniLM-L6-v2", "--generator", str(tmp_path), "--out", str(tmp_path / "rag")])
    dpr = save_dpr(tmp_path / "dpr")
    whole = RagSequenceForGeneration.from_pretrained(save_rag(tmp_path / "start"))
    whole.rag.generator.config.rag_prompt = {"format": "question_passage"}
    whole.rag.generator.save_pretrained(tmp_path / "generator")
    with pytest.raises(SystemExit, match="title / passage // question"):
        export.main(["--encoder", str(dpr), "--generator", str(tmp_path / "generator"), "--out", str(tmp_path / "rag")])
