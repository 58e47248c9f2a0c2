"""A whole RAG checkpoint is its question encoder here; passages want an encoder of their own, or come with vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DPRConfig, RagTokenForGeneration

from retriever_service.bi_encoder import BiEncoder
from retriever_service.checkpoint import find_checkpoint
from retriever_service.encoder import PassageText, Query
from retriever_service.encoding import Encoding
from serving.batching import BatchPolicy
from serving.errors import FailedPrecondition
from tests.rag_checkpoints import question_tokenizer, save_dpr, save_rag


@pytest.fixture(scope="module")
def rag_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_rag(tmp_path_factory.mktemp("rag"))


@pytest.mark.parametrize("per_token", [True, False])
def test_query_vectors_are_those_of_transformers_question_encoder(tmp_path: Path, per_token: bool) -> None:
    folder = save_rag(tmp_path, per_token=per_token)
    encoder = BiEncoder(str(folder))
    question = "What is the capital of France?"
    with torch.no_grad():
        reference = RagTokenForGeneration.from_pretrained(folder).eval().question_encoder
        expected = reference(**question_tokenizer()(question, return_tensors="pt")).pooler_output[0].numpy()
    assert np.abs(encoder.encode([Query(question), Query("Paris")])[0] - expected).max() < 1e-5
    assert encoder.info.architecture == "RagQuestionEncoder"
    assert not encoder.info.identity.is_normalising
    assert encoder.info.num_passages == 3


def test_the_passage_encoder_makes_the_passages_vectors_and_is_part_of_the_identity(
    rag_directory: Path, tmp_path: Path
) -> None:
    alone, both = BiEncoder(str(rag_directory)), BiEncoder(str(rag_directory), str(save_dpr(tmp_path)))
    assert both.info.embeds_passages
    assert not alone.info.embeds_passages
    assert alone.info.identity.digest != both.info.identity.digest
    passage = PassageText("Paris is the capital of France.", "Paris")
    assert np.abs(both.encode([passage])[0] - both.encode([Query(passage.text)])[0]).max() > 1e-2


async def test_passages_without_vectors_are_refused_naming_the_flag(rag_directory: Path) -> None:
    encoding = Encoding(lambda name: BiEncoder(name), str(rag_directory), BatchPolicy(8, 1_000))
    await encoding.start()
    try:
        with pytest.raises(FailedPrecondition, match="--passage-encoder") as caught:
            await encoding.embed_passages(encoding.default, [PassageText("Paris is the capital of France.")])
        assert caught.value.reason == "PASSAGE_ENCODER_MISSING"
        assert (await encoding.embed(encoding.default, [Query("what is paris")])).vectors.shape == (1, 16)
    finally:
        await encoding.stop()


def test_a_missing_tokenizer_is_refused_naming_the_flag_that_supplies_it(tmp_path: Path) -> None:
    bare = save_rag(tmp_path / "rag", with_tokenizers=False)
    with pytest.raises(FailedPrecondition, match="--encoder-tokenizer"):
        BiEncoder(str(bare))
    question_tokenizer().save_pretrained(tmp_path / "tokenizer")
    given = BiEncoder(str(bare), tokenizer=str(tmp_path / "tokenizer"))
    whole = BiEncoder(str(save_rag(tmp_path / "whole")))
    assert np.array_equal(given.encode([Query("what is paris")]), whole.encode([Query("what is paris")]))
    assert given.info.identity.digest == whole.info.identity.digest


def test_a_question_encoder_of_another_kind_is_refused_by_name(rag_directory: Path, tmp_path: Path) -> None:
    import json
    import shutil

    folder = Path(shutil.copytree(rag_directory, tmp_path / "other"))
    config = json.loads((folder / "config.json").read_text())
    config["question_encoder"] = {**DPRConfig().to_dict(), "model_type": "bert"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FailedPrecondition, match="'bert'"):
        find_checkpoint(str(folder))
