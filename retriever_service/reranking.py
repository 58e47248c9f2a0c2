"""A second look at the hits: a reranker reads each with its query, in a model thread of its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from retriever_service.diversity import by_marginal_relevance
from retriever_service.encoder import PassageText
from retriever_service.fusion import log_prior
from retriever_service.reranker import Pair, Reranker
from retriever_service.search import Found, Hit, Plan, SearchQuery
from serving.batching import Batcher, BatchPolicy
from serving.errors import FailedPrecondition

_MAX_PAIRS_WAITING = 64  # Of one query: others get their turn in between.
_BYTES_PER_TOKEN = 4


class Reranking:
    """Holds the reranker, where there is one. For one event loop."""

    def __init__(self, load: Callable[[], Reranker] | None, policy: BatchPolicy) -> None:
        """Prepares; `start` loads.

        Args:
            load: Makes the reranker; None where none is configured.
            policy: What goes through the model together; cost is estimated tokens.
        """
        self._load = load
        self._reranker: Reranker | None = None
        self._batcher: Batcher[Pair, float] = Batcher(self._score, policy, name="reranker")

    async def start(self) -> None:
        """Loads the reranker and runs it once."""
        if self._load is not None:
            self._reranker = await asyncio.to_thread(self._load)
            await self._batcher.start()
            await self.check()

    async def check(self) -> None:
        """Runs the reranker once, where there is one; raises when it does not work."""
        if self._reranker is not None:
            await self._batcher.submit(Pair("Does it work?", PassageText("It does.")))

    async def stop(self) -> None:
        """Ends the model thread."""
        await self._batcher.stop()

    @property
    def digest(self) -> str:
        """Of the reranker; empty where there is none."""
        return "" if self._reranker is None else self._reranker.digest

    def first_look(self, plan: Plan) -> Plan:
        """How to search for what is then reranked; the plan itself where nothing is.

        Raises:
            FailedPrecondition: When there is no reranker.
        """
        if plan.num_reread is None:
            return plan
        if self._reranker is None:
            raise FailedPrecondition(
                "rerank by CROSS_ENCODER: this server has no reranker; start the retriever with --reranker "
                "NAME_OR_PATH (setting `reranker`)",
                reason="RERANKER_MISSING",
            )
        return replace(
            plan,
            top_k=plan.num_reread,
            num_candidates=max(plan.num_candidates, plan.num_reread),
            min_score=-np.inf,
            relevance=None,
            with_vectors=plan.with_vectors or plan.relevance is not None,
        )

    async def rerank(self, queries: Sequence[SearchQuery], found: Found, plan: Plan) -> Found:
        """What the plan asks for, from what the first look has found.

        Raises:
            Deadline: When the request's deadline passes first.
            NotReady: When the model thread has stopped.
        """
        if plan.num_reread is None:
            return found
        started = time.monotonic()
        scores = await asyncio.gather(
            *(self._scores(query.text, hits) for query, hits in zip(queries, found.hits, strict=True))
        )
        hits = tuple(reranked(hits, given, plan) for hits, given in zip(found.hits, scores, strict=True))
        return replace(found, hits=hits, rerank_seconds=time.monotonic() - started)

    async def _scores(self, query: str, hits: Sequence[Hit]) -> list[float]:
        """Of each hit; those of similar length go through the model together."""
        pairs = [Pair(query, PassageText(hit.passage.text, hit.passage.title)) for hit in hits]
        scores = [0.0] * len(pairs)
        order = sorted(range(len(pairs)), key=lambda i: _num_tokens(pairs[i]))
        for start in range(0, len(order), _MAX_PAIRS_WAITING):
            chosen = order[start : start + _MAX_PAIRS_WAITING]
            waiting = [self._batcher.submit(pairs[i], cost=_num_tokens(pairs[i])) for i in chosen]
            for i, score in zip(chosen, await asyncio.gather(*waiting), strict=True):
                scores[i] = score
        return scores

    def _score(self, pairs: Sequence[Pair]) -> list[float]:
        """In the model thread."""
        assert self._reranker is not None
        return self._reranker.score(pairs)


def reranked(hits: Sequence[Hit], scores: Sequence[float], plan: Plan) -> tuple[Hit, ...]:
    """The best hits by the reranker's scores, or by diversity among them; equal ones keep their order.

    The prior is the log-softmax of the scores over `plan.rerank_temperature`, over the hits kept.

    Args:
        hits: With their vectors, where the plan asks for diversity.
        scores: Parallel to the hits.
        plan: What is kept.
    """
    given = np.array(scores, np.float64)
    order = np.argsort(-given, kind="stable")
    order = order[given[order] >= plan.min_score]
    if plan.relevance is not None and len(order):
        vectors = np.stack([hits[i].vector for i in order])
        order = order[list(islice(by_marginal_relevance(given[order], vectors, plan.relevance), plan.top_k))]
    kept = order[: plan.top_k]
    log_priors = log_prior(given[kept], plan.rerank_temperature)
    return tuple(
        replace(
            hits[i],
            score=float(given[i]),
            rerank_score=float(given[i]),
            log_prior=float(prior),
            vector=hits[i].vector if plan.with_vectors else None,
        )
        for i, prior in zip(kept, log_priors, strict=True)
    )


def _num_tokens(pair: Pair) -> int:
    """An estimate that needs no tokenizer."""
    return 3 + (len(pair.query) + len(pair.passage.text)) // _BYTES_PER_TOKEN
