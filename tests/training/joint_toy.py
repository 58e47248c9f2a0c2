"""A world of a dozen facts for joint training: who lives where, told in a passage each, asked in a question each."""

import asyncio
import gzip
import json
import random
from collections.abc import AsyncIterator
from pathlib import Path

import torch
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from generator_service.prompt import PromptFormat
from retriever_service.__main__ import build_retriever
from retriever_service.collection import CollectionRequest, Passage
from retriever_service.config import RetrieverConfig
from retriever_service.upserting import UpsertItem, UpsertMessage, UpsertResult
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.generator.warm_start import GeneratorShape, random_generator
from training.joint.reader import Reader

NAMES = tuple(f"name{i}" for i in range(12))
PLACES = tuple(f"place{i}" for i in range(12))
FILLER = tuple(f"word{i}" for i in range(12))
WORDS = ("where", "lives", "in", "?", ".", *NAMES, *PLACES, *FILLER)
SHAPE = GeneratorShape(
    vocab_size=48, d_model=32, heads=4, ffn_dim=64, encoder_layers=1, decoder_layers=1, max_position_embeddings=64,
    cls_id=2, sep_id=3, init_std=0.2,
)  # fmt: skip


def make_world(folder: Path) -> None:
    """Writes an encoder, a generator that reads, a collection of the facts in a data directory, and the questions."""
    tokenizer = tiny_tokenizer(WORDS)
    save_encoder(folder / "encoder", tokenizer)
    _reading_generator(tokenizer).save(folder / "generator")
    rng = random.Random(0)
    facts = dict(zip(NAMES, rng.sample(PLACES, len(PLACES)), strict=True))
    passages = [Passage(f"p{i}", "", _told(name, place, rng)) for i, (name, place) in enumerate(facts.items())]
    ingest(folder / "data", folder / "encoder", passages)
    rows = [
        {"id": f"q{i}{kind}", "question": asked.format(name), "answers": [place], "passage_id": f"p{i}"}
        for i, (name, place) in enumerate(facts.items())
        for kind, asked in (("a", "where lives {} ?"), ("b", "{} lives in ?"))
    ]
    (folder / "questions.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


def _told(name: str, place: str, rng: random.Random) -> str:
    return f"{' '.join(rng.sample(FILLER, 3))} . {name} lives in {place} . {' '.join(rng.sample(FILLER, 3))}"


def save_encoder(folder: Path, tokenizer: PreTrainedTokenizerFast, *, seed: int = 1) -> None:
    """Writes a bi-encoder of random weights that mean-pools and normalises."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=48, hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    model = BertModel(config)
    torch.nn.init.normal_(model.embeddings.word_embeddings.weight)  # So that it starts as a bag of words.
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    listed = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules]
    (folder / "modules.json").write_text(json.dumps(listed))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))


def _reading_generator(tokenizer: PreTrainedTokenizerFast) -> Reader:
    """One that has learnt on other facts to name the place that its passage names."""
    reader = Reader(random_generator(SHAPE, seed=0), tokenizer, PromptFormat(max_input_tokens=64))
    adam = torch.optim.Adam([weight for weight in reader.parameters() if weight.requires_grad], 5e-3)
    rng = random.Random(1)
    for _ in range(100):
        rows = []
        for name, place in zip(rng.choices(NAMES, k=16), rng.choices(PLACES, k=16), strict=True):
            rows.append(reader.row(f"where lives {name} ?", "", _told(name, place, rng), place))
        loss = -reader(rows)[0].sum(-1).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return reader


def ingest(
    data_dir: Path,
    encoder: Path,
    passages: list[Passage],
    *,
    passage_encoder: Path | str = "",
    sentence_vectors: bool = False,
) -> None:
    """Makes the collection "toy"."""
    config = RetrieverConfig(
        data_dir=data_dir, encoder=str(encoder), passage_encoder=str(passage_encoder), num_encoder_threads=1
    )

    async def messages() -> AsyncIterator[UpsertMessage]:
        yield UpsertMessage("toy", [UpsertItem(passage) for passage in passages])

    async def run() -> UpsertResult:
        retriever = build_retriever(config)
        await retriever.start()
        try:
            await retriever.library.create(CollectionRequest("toy", sentence_vectors=sentence_vectors))
            return await retriever.upsert(messages())
        finally:
            await retriever.close()

    assert all(item.error is None for item in asyncio.run(run()).items)
