"""What a collection's stages find for questions with known answers, fetched once: rankings are then made of it at will.

A question is asked twice, once ranked by the dense score alone, once by the lexical score alone. Every hit comes with
both scores, so the two lists together are what any fusion of the two stages chooses from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from evaluation.datasets import Question
from evaluation.retrieval import has_answer, matches_regex
from rag_client import Fusion, Passage, RagClient, Retrieval, RetrievalMode, RetrievedPassage

NUM_CANDIDATES = 50  # Of each stage: what the retriever takes by itself for up to 25 passages.
_QUESTIONS_PER_CALL = 4  # So that a reply of the longest passages fits into a message.

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """One question's candidates, N of them. A rank is 1-based, infinite where the stage did not find the passage.

    Attributes:
        question_id: Whose.
        dense: (N,) dense scores.
        lexical: (N,) lexical scores; 0 where no word matches.
        dense_rank: (N,) place in the dense stage.
        lexical_rank: (N,) place in the lexical stage.
        is_relevant: (N,) whether the passage is gold, or holds an answer where no passage is known to be gold.
    """

    question_id: str
    dense: Floats
    lexical: Floats
    dense_rank: Floats
    lexical_rank: Floats
    is_relevant: npt.NDArray[np.bool_]


def fetch_pools(
    client: RagClient, collection: str, questions: Sequence[Question], *, on_progress: Callable[[int], None]
) -> list[Pool]:
    """The pool of each question that has a gold passage or an answer.

    Args:
        client: Reaches the retriever.
        collection: Its name.
        questions: Others are left out.
        on_progress: Told how many questions are done.

    Raises:
        RagError: What a search raised.
    """
    pools: list[Pool] = []
    known = [each for each in questions if each.gold is not None or each.answers or each.answer_regex]
    for chunk in _batches(known):
        by_dense = _rankings(client, collection, chunk, Fusion("linear", dense_weight=1.0, lexical_weight=0.0))
        by_lexical = _rankings(client, collection, chunk, Fusion("linear", dense_weight=0.0, lexical_weight=1.0))
        pools += map(_pool, chunk, by_dense, by_lexical)
        on_progress(len(pools))
    return pools


def _batches(questions: Sequence[Question]) -> Iterator[Sequence[Question]]:
    return (questions[start : start + _QUESTIONS_PER_CALL] for start in range(0, len(questions), _QUESTIONS_PER_CALL))


def _rankings(client: RagClient, collection: str, questions: Sequence[Question], fusion: Fusion) -> list[Retrieval]:
    found = client.retrieve_batch(
        [question.text for question in questions],
        collection=collection,
        mode=RetrievalMode.HYBRID,
        fusion=fusion,
        top_k=NUM_CANDIDATES,
        num_candidates=NUM_CANDIDATES,
    )
    for each in found:
        if each.error is not None:
            raise each.error
    return found


def _pool(question: Question, by_dense: Retrieval, by_lexical: Retrieval) -> Pool:
    dense_rank = {hit.passage.id: hit.rank for hit in by_dense.passages}
    lexical_rank = {hit.passage.id: hit.rank for hit in by_lexical.passages if hit.lexical_score}
    hits: dict[str, RetrievedPassage] = {hit.passage.id: hit for hit in (*by_dense.passages, *by_lexical.passages)}
    return Pool(
        question.id,
        dense=np.array([hit.dense_score for hit in hits.values()], np.float64),
        lexical=np.array([hit.lexical_score for hit in hits.values()], np.float64),
        dense_rank=np.array([dense_rank.get(id_, np.inf) for id_ in hits]),
        lexical_rank=np.array([lexical_rank.get(id_, np.inf) for id_ in hits]),
        is_relevant=np.array([_is_relevant(question, hit.passage) for hit in hits.values()], np.bool_),
    )


def _is_relevant(question: Question, passage: Passage) -> bool:
    if question.gold is not None:
        return question.gold.flags([passage])[0]
    if question.answer_regex:
        return matches_regex(passage.text, question.answer_regex)
    return has_answer(passage.text, question.answers)
