"""What a dialogue's next question finds: as it is, with its history, rewritten, and under RAG-Turn's mixture."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np

from gateway.mixture import mix
from gateway.stages import Facts
from gateway.stages import Retrieval as Found
from retriever_service.__main__ import build_retriever
from retriever_service.collection import CollectionRequest
from retriever_service.collection import Passage as StoredPassage
from retriever_service.config import RetrieverConfig
from retriever_service.options import QueryInput, RetrievalOptions
from retriever_service.retriever import Retriever
from retriever_service.upserting import UpsertItem, UpsertMessage
from serving.errors import RagError
from training.generator.pool import read_json_lines
from training.tasks.cases import Case
from training.tasks.dialogues import dialogue
from training.tasks.sources import SQUAD_DEV, by_passage, read_known
from training.tasks.writing import Writer

DEPTHS = (1, 5)
_DISCOUNT = 0.5  # Of RAG-Turn: the gateway's default.
_BATCH, _MAX_QUESTION_TOKENS = 64, 48
_COLLECTION = "squad"


def measure_turns(writer: Writer, data: Path, *, limit: int, work: Path) -> dict[str, dict[str, float]]:
    """recall@1 and @5 of hybrid retrieval over all 5,203 SQuAD passages, for dialogues made of SQuAD dev questions.

    Args:
        writer: rewrites.
        data: the shared data.
        limit: questions asked.
        work: keeps the knowledge base, so that it is encoded once.
    """
    asked = _dialogues(data, limit)
    cases = [case for _, case in asked]
    rewritten = writer.write(cases, max_new_tokens=_MAX_QUESTION_TOKENS)
    queries = {
        "raw question": [[case.question] for case in cases],
        "history and question": [[" ".join([*_users(case), case.question])] for case in cases],
        "rewritten": [[text] for text in rewritten],
        "rag_turn": [[case.question, *reversed(_users(case))] for case in cases],
        "as it was before it was shortened": [[case.target] for case in cases],
    }
    found = asyncio.run(_search(data, queries, work))
    golds = [passage_id for passage_id, _ in asked]
    return {
        way: {"n": len(asked)}
        | {f"recall@{k}": float(np.mean([g in ids[:k] for g, ids in zip(golds, each, strict=True)])) for k in DEPTHS}
        for way, each in found.items()
    }


def _dialogues(data: Path, limit: int) -> list[tuple[str, Case]]:
    """Gold passage and case of questions that were shortened; turns of 5,738 dev questions in a fixed random order."""
    rng = random.Random(0)
    groups = by_passage(read_known(data, *SQUAD_DEV))
    places = [(turns, number) for turns in groups for number in range(1, len(turns))]
    rng.shuffle(places)
    drawn = ((turns[number].passage.id, dialogue(turns, number, rng)) for turns, number in places)
    return [(gold, case) for gold, case in drawn if case is not None and case.question != case.target][:limit]


def _users(case: Case) -> list[str]:
    return [turn.text for turn in case.history if turn.role == "user"]


async def _search(data: Path, queries: dict[str, list[list[str]]], work: Path) -> dict[str, list[list[str]]]:
    """For each way and case, the passage ids under the mixture over its queries, most probable first."""
    retriever = build_retriever(RetrieverConfig(data_dir=work, num_encoder_threads=1))
    await retriever.start()
    try:
        await _fill(retriever, data)
        return {way: [await _ranked(retriever, each) for each in asked] for way, asked in queries.items()}
    finally:
        await retriever.close()


async def _fill(retriever: Retriever, data: Path) -> None:
    await retriever.library.create(CollectionRequest(_COLLECTION))
    rows = list(read_json_lines(data / SQUAD_DEV[0]))

    async def messages() -> AsyncIterator[UpsertMessage]:
        for start in range(0, len(rows), _BATCH):
            items = [
                UpsertItem(StoredPassage(row["id"], row["title"], row["text"], source=row["title"]))
                for row in rows[start : start + _BATCH]
            ]
            yield UpsertMessage(_COLLECTION, items)

    for item in (await retriever.upsert(messages())).items:
        if item.error is not None:
            raise item.error


async def _ranked(retriever: Retriever, texts: Sequence[str]) -> list[str]:
    options = RetrievalOptions(_COLLECTION, top_k=20)
    results = (await retriever.retrieve([QueryInput(text) for text in texts], options)).results
    found = []
    for hits in results:
        if isinstance(hits, RagError):
            raise hits
        facts = [Facts(hit.passage.id) for hit in hits]
        found.append(Found(passages=facts, facts=facts, log_priors=[hit.log_prior for hit in hits]))
    mixture = mix(found, [_DISCOUNT**age for age in range(len(found))])
    return [facts.id for facts in mixture.facts]
