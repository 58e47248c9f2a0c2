"""A RAG checkpoint as transformers saves it is served without conversion, and answers what transformers answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import RagConfig, RagRetriever, RagSequenceForGeneration, RagTokenForGeneration

from generator_service.generator import Generator
from generator_service.limits import Limits
from generator_service.metrics import generator_metrics
from generator_service.models.hf import HfSeq2Seq
from generator_service.models.lean import LeanModel
from generator_service.models.loading import load_generator
from generator_service.request import DecodingModel, DecodingOptions, Explanation, GenerationRequest, Passage
from generator_service.scheduler import Budget
from tests.rag_checkpoints import generator_tokenizer, question_tokenizer, save_rag

QUESTION = 'What is the capital of  "France"?'
PASSAGES = [
    Passage("a", '"France"', "Paris is the capital of  France.", -0.2),
    Passage("b", "", "Berlin is the capital of Germany.", -1.7),
    Passage("c", "Long", "It has a question with punctuation, " * 20, -2.5),
]
MAX_LENGTH = 9  # The decoder's start token included.


def load(folder: Path, **options: Any) -> Any:
    return load_generator(str(folder), dtype="float32", device="cpu", cache_dir=folder, **options)


def their_inputs(folder: Path, question: str, passages: list[Passage]) -> tuple[torch.Tensor, torch.Tensor]:
    """What RagRetriever would give the generator."""
    config = RagConfig.from_pretrained(folder)
    spelled = question_tokenizer().decode(question_tokenizer()(question)["input_ids"], skip_special_tokens=True)
    retriever: Any = SimpleNamespace(config=config, generator_tokenizer=generator_tokenizer())
    docs = [{"title": [p.title for p in passages], "text": [p.text for p in passages]}]
    prefix = getattr(config.generator, "prefix", None)
    return RagRetriever.postprocess_docs(retriever, docs, [spelled], prefix, len(passages), return_tensors="pt")


@asynccontextmanager
async def serving(folder: Path) -> AsyncIterator[Generator]:
    generator = Generator(lambda: load(folder), budget=Budget(), limits=Limits(), observer=generator_metrics())
    await generator.start()
    try:
        yield generator
    finally:
        await generator.close()


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("separators", [{}, {"title_sep": ": ", "doc_sep": " >> ", "max_combined_length": 40}])
def test_inputs_are_those_of_transformers_token_by_token(tmp_path: Path, family: str, separators: Any) -> None:
    folder = save_rag(tmp_path, family=family, **separators)
    loaded = load(folder)
    ids, mask = their_inputs(folder, QUESTION, PASSAGES)
    for row, passage in enumerate(PASSAGES):
        ours = loaded.prompt.encode(loaded.tokenizer, QUESTION, passage.title, passage.text)
        assert ours == ids[row][mask[row].bool()].tolist()
    assert len(ours) == separators.get("max_combined_length", 60)  # The long one: the question is cut, as theirs.


@pytest.mark.parametrize("family", ["bart", "t5"])
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("model", [DecodingModel.RAG_TOKEN, DecodingModel.RAG_SEQUENCE])
async def test_answers_are_those_of_transformers(tmp_path: Path, family: str, beams: int, model: DecodingModel) -> None:
    per_token = model is DecodingModel.RAG_TOKEN
    folder = save_rag(tmp_path, family=family, per_token=per_token)
    # RagSequenceForGeneration attends to padding, so its rows are made equally long.
    passages = PASSAGES if per_token else [replace(one, text=f"{one.text} and more" * 20) for one in PASSAGES]
    ids, mask = their_inputs(folder, QUESTION, passages)
    kind = RagTokenForGeneration if per_token else RagSequenceForGeneration
    expected = kind.from_pretrained(folder).eval().generate(
        context_input_ids=ids, context_attention_mask=mask, doc_scores=torch.tensor([[p.log_prior for p in passages]]),
        n_docs=3, num_beams=beams, max_length=MAX_LENGTH, min_length=0,
    )  # fmt: skip
    new = expected[0].tolist()[1:]
    new = new[: new.index(2) + 1] if 2 in new else new
    async with serving(folder) as generator:
        options = DecodingOptions(num_beams=beams, max_new_tokens=MAX_LENGTH - 1)
        request = GenerationRequest(QUESTION, passages, options, Explanation(token_posteriors=True))
        answer = await generator.generate(request)
    assert answer.model is model
    assert answer.best.num_new_tokens == len(new)
    assert answer.best.raw_text == generator_tokenizer().decode(new, skip_special_tokens=True).strip()
    if per_token:
        assert [token.token_id for token in answer.tokens] == new


async def test_the_format_is_told(tmp_path: Path) -> None:
    async with serving(save_rag(tmp_path, family="t5")) as generator:
        told = generator.prompt_format
    assert told == "question: {title} / {passage} // {question} (max_combined_length=60, n_docs=3)"


def test_the_generator_is_served_by_the_code_for_its_family(tmp_path: Path) -> None:
    assert isinstance(load(save_rag(tmp_path / "bart")).model, LeanModel)
    adapter = load(save_rag(tmp_path / "pegasus", family="pegasus")).model
    reference = RagTokenForGeneration.from_pretrained(tmp_path / "pegasus").eval().generator
    with torch.no_grad():
        expected = reference.get_encoder()(torch.tensor([[5, 6, 7, 2]])).last_hidden_state[0]
    assert isinstance(adapter, HfSeq2Seq)
    assert torch.allclose(adapter.encode([[5, 6, 7, 2]])[0].states, expected, atol=1e-5)


def test_missing_tokenizers_are_refused_naming_the_flags_that_supply_them(tmp_path: Path) -> None:
    bare = save_rag(tmp_path / "rag", with_tokenizers=False)
    with pytest.raises(FileNotFoundError, match="--question-tokenizer"):
        load(bare)
    question_tokenizer().save_pretrained(tmp_path / "questions")
    generator_tokenizer().save_pretrained(tmp_path / "answers")
    with pytest.raises(FileNotFoundError, match="--tokenizer"):
        load(bare, question_tokenizer=str(tmp_path / "questions"))
    given = load(bare, question_tokenizer=str(tmp_path / "questions"), tokenizer=str(tmp_path / "answers"))
    whole = load(save_rag(tmp_path / "whole"))
    passage = PASSAGES[0]
    inputs = [one.prompt.encode(one.tokenizer, QUESTION, passage.title, passage.text) for one in (given, whole)]
    assert inputs[0] == inputs[1]
