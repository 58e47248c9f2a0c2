"""Vectors of a passage: of the whole of it and, where its collection keeps them, of each of its sentences.

A passage is about several things, a question about one: the best sentence often tells more than the whole. Whole
vectors find candidates; a candidate's dense score is then a third the whole's and two thirds its best sentence's.

Source: maximum over parts as in Dai and Callan 2019 (arXiv 1905.09217, BERT-MaxP); the shares by measurement,
docs/experiments.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise

from retriever_service.collection import CollectionSettings
from retriever_service.encoder import Encoder, PassageText
from retriever_service.encoding import Encoding
from retriever_service.vectors import PassageVectors, normalised
from serving.sentences import split_sentences

_ISO_639 = {
    "arabic": "ar", "danish": "da", "dutch": "nl", "english": "en", "finnish": "fi", "french": "fr", "german": "de",
    "greek": "el", "hungarian": "hu", "italian": "it", "norwegian": "no", "portuguese": "pt", "romanian": "ro",
    "russian": "ru", "spanish": "es", "swedish": "sv", "tamil": "ta", "turkish": "tr",
}  # fmt: skip


async def embed_passages(
    encoding: Encoding, encoder: Encoder, passages: Sequence[PassageText], settings: CollectionSettings
) -> list[PassageVectors]:
    """Vectors of passages as their collection keeps them; a passage of one sentence has the whole's alone."""
    parts: list[list[PassageText]] = [[] for _ in passages]
    if settings.sentence_vectors:
        language = _ISO_639.get(settings.language, "en")
        parts = [[PassageText(each, one.title) for each in split_sentences(one.text, language)] for one in passages]
    made = await encoding.embed_passages(encoder, [*passages, *chain.from_iterable(parts)])
    vectors = normalised(made, settings.metric)
    ends = accumulate(map(len, parts), initial=len(passages))
    return [
        PassageVectors(whole, vectors[start:end] if end > start else None)
        for whole, (start, end) in zip(vectors, pairwise(ends), strict=False)
    ]
