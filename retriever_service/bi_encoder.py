"""The bi-encoder: texts to vectors, as the checkpoint's own configuration says. Knows no queue."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retriever_service.checkpoint import find_checkpoint
from retriever_service.collection import EncoderIdentity, Vectors
from retriever_service.encoder import EncoderInfo, EncoderInput, PassageText, Query
from retriever_service.tower import load_tower
from serving.errors import FailedPrecondition
from serving.packed_checkpoint import DEFAULT_CACHE


class BiEncoder:
    """An encoder from a Hugging Face checkpoint.

    A DPR pair, and a checkpoint with a query half, use one tower for queries, another for passages.
    """

    def __init__(
        self,
        name: str,
        passage_name: str = "",
        *,
        tokenizer: str = "",
        device: str = "cpu",
        dtype: str = "float32",
        cache_dir: Path = DEFAULT_CACHE,
    ) -> None:
        """Loads the checkpoint.

        Args:
            name: Name or path of the (query) encoder.
            passage_name: Name or path of the passage encoder where it is another, as DPR's context encoder.
            tokenizer: Name or path of the query encoder's tokenizer where that does not lie with it.
            device: A torch device.
            dtype: "float32" or "bfloat16". It is no part of the identity: bfloat16 vectors are the float32 ones to a
                cosine of 1 - 1e-4, so that either may search what the other wrote.
            cache_dir: Where the default encoder is unpacked to.

        Raises:
            FailedPrecondition: When there is no such checkpoint, or it cannot be served.
        """
        given = find_checkpoint(name, tokenizer=tokenizer, cache_dir=cache_dir)
        query_half = given.query_half()
        query = load_tower(query_half or given, device=device, dtype=dtype)
        passage = query
        if passage_name or query_half:
            other = find_checkpoint(passage_name, cache_dir=cache_dir) if passage_name else given
            passage = load_tower(other, device=device, dtype=dtype)
        if query.dim != passage.dim:
            raise FailedPrecondition(
                f"encoder {name!r} has {query.dim} dimensions, passage encoder {passage_name!r} has {passage.dim}",
                reason="ENCODER_UNSUPPORTED",
            )
        digest = query.checkpoint.digest()
        if passage is not query:
            digest = hashlib.sha256(f"{digest} {passage.checkpoint.digest()}".encode()).hexdigest()
        self._query, self._passage = query, passage
        towers = {id(tower): tower for tower in (query, passage)}.values()
        self._info = EncoderInfo(
            EncoderIdentity(name, digest, query.dim, query.checkpoint.is_normalising),
            architecture=query.architecture,
            device=device,
            num_parameters=sum(tower.num_parameters for tower in towers),
            max_input_tokens=query.checkpoint.max_input_tokens,
            embeds_passages=passage is not query or not query.checkpoint.is_dpr,
            num_passages=query.checkpoint.num_passages,
        )

    @property
    def info(self) -> EncoderInfo:
        """What it is."""
        return self._info

    def encode(self, inputs: Sequence[EncoderInput]) -> Vectors:
        """Embeds queries and passages.

        Args:
            inputs: N texts; one longer than `max_input_tokens` is truncated.

        Returns:
            (N, D) float32, in order; of length 1 where the checkpoint normalises.
        """
        vectors = np.empty((len(inputs), self._query.dim), np.float32)
        queries = {i: item.text for i, item in enumerate(inputs) if isinstance(item, Query)}
        passages = {i: item for i, item in enumerate(inputs) if isinstance(item, PassageText)}
        if queries:
            vectors[list(queries)] = self._query.encode_queries(list(queries.values()))
        if passages:
            vectors[list(passages)] = self._passage.encode_passages(list(passages.values()))
        return vectors
