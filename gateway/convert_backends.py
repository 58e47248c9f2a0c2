"""What the retriever and the generator are asked and reply ↔ the gateway's values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from gateway.context import Part, join
from gateway.ranking import LikelihoodRerank, RankedCandidate, RerankedHit, Vectors
from gateway.stages import Generation, Question, Retrieval, Space
from protos.rag.v1 import common_pb2, generator_pb2, retriever_pb2
from serving.errors import InvalidRequest, RagError

DEFAULT_COLLECTION = "default"
DEFAULT_TOP_K, MAX_TOP_K = 5, 100
DEFAULT_RERANKED, MAX_RERANKED = 20, 100
MAX_PASSAGE_BYTES = 65_536

Request = TypeVar("Request", generator_pb2.GenerateRequest, generator_pb2.StreamGenerateRequest)


def likelihood_rerank(options: common_pb2.RetrievalOptions, path: str) -> LikelihoodRerank | None:
    """How hits are reranked by the likelihood of the question; None where the retriever ranks alone.

    Args:
        options: As the caller gave them.
        path: Where they stand in the caller's request, for messages.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    if options.rerank.method != common_pb2.Rerank.METHOD_QUESTION_LIKELIHOOD:
        return None
    if options.HasField("diversity"):
        raise InvalidRequest(
            f"{path}.diversity cannot go with rerank by QUESTION_LIKELIHOOD: it would choose before the reranking",
            field=f"{path}.diversity",
        )
    top_k = options.top_k if options.HasField("top_k") else DEFAULT_TOP_K
    for name, value, least, most in (
        ("top_k", top_k, 1, MAX_TOP_K),
        ("rerank.num_candidates", options.rerank.num_candidates, 0, MAX_RERANKED),
    ):
        if not least <= value <= most:
            raise InvalidRequest(
                f"{path}.{name} must be {least} to {most}, not {value}", field=f"{path}.{name}", reason="OUT_OF_RANGE"
            )
    if options.HasField("temperature") and not 0 < options.temperature < math.inf:
        raise InvalidRequest(f"{path}.temperature must be > 0", field=f"{path}.temperature", reason="OUT_OF_RANGE")
    if not math.isfinite(options.min_score):
        raise InvalidRequest(f"{path}.min_score must be finite", field=f"{path}.min_score", reason="OUT_OF_RANGE")
    return LikelihoodRerank(
        num_candidates=max(top_k, options.rerank.num_candidates or DEFAULT_RERANKED),
        top_k=top_k,
        min_score=options.min_score if options.HasField("min_score") else -math.inf,
        temperature=options.temperature if options.HasField("temperature") else 1.0,
    )


def retrieval_options(
    given: common_pb2.RetrievalOptions, rerank: LikelihoodRerank | None
) -> common_pb2.RetrievalOptions:
    """What the retriever is told: where the gateway reranks, what concerns the reranked hits is kept from it."""
    if rerank is None:
        return given
    options = common_pb2.RetrievalOptions()
    options.CopyFrom(given)
    for name in ("rerank", "min_score", "temperature"):
        options.ClearField(name)
    options.top_k = rerank.num_candidates
    return options


def retrieve_request(question: Question) -> retriever_pb2.RetrieveRequest:
    """What the retriever is asked."""
    request = retriever_pb2.RetrieveRequest(
        queries=[retriever_pb2.Query(text=question.text)],
        options=retrieval_options(question.options.retrieval, question.rerank),
    )
    request.options.include_vectors |= question.ranking is not None
    return request


def retrieval(reply: retriever_pb2.RetrieveResponse, question: Question) -> Retrieval:
    """What it found for the one query."""
    num_bytes = reply.ByteSize()
    passages = reply.results[0].passages
    space = None
    if question.ranking is not None and passages:
        if not reply.temperature > 0 or not all(passage.HasField("vector") for passage in passages):
            raise RagError("the retriever returned no vectors to rank candidates with")
        space = Space(
            vectors([passage.vector for passage in passages]),
            reply.temperature,
            reply.metric == retriever_pb2.METRIC_COSINE,
            reply.provenance.encoder_digest,
        )
        if not question.options.retrieval.include_vectors:
            for passage in passages:
                passage.ClearField("vector")
    return Retrieval(
        passages=passages,
        log_priors=[passage.log_prior for passage in passages],
        space=space,
        state=reply.provenance.collection_state,
        num_bytes=num_bytes,
        provenance=reply.provenance,
        timings=_timings(reply.timings),
    )


def vectors(messages: Sequence[common_pb2.Vector]) -> Vectors:
    """Vectors (N, D), asked for as float32."""
    return np.stack([np.frombuffer(message.data, "<f4") for message in messages])


def reranked(
    passages: Sequence[common_pb2.RetrievedPassage], hits: Sequence[RerankedHit]
) -> list[common_pb2.RetrievedPassage]:
    """The passages in their new order, with their new scores."""
    result = []
    for rank, hit in enumerate(hits, start=1):
        passage = common_pb2.RetrievedPassage()
        passage.CopyFrom(passages[hit.index])
        passage.rank, passage.score, passage.rerank_score, passage.log_prior = rank, hit.score, hit.score, hit.log_prior
        result.append(passage)
    return result


def reranked_retrieval(found: Retrieval, hits: Sequence[RerankedHit]) -> Retrieval:
    """A retrieval of the reranked hits alone."""
    space = found.space
    if space is not None:
        space = replace(space, vectors=space.vectors[[hit.index for hit in hits]])
    log_priors = [hit.log_prior for hit in hits]
    return replace(found, passages=reranked(found.passages, hits), log_priors=log_priors, space=space)


def candidate_texts(generation: Generation) -> list[str]:
    """The candidates' texts, in the generator's order."""
    return [candidate.text for candidate in _candidates(generation)]


def candidate_log_probabilities(generation: Generation) -> list[float]:
    """The candidates' log p(c|x), in the generator's order."""
    return [candidate.log_probability for candidate in _candidates(generation)]


def ranked_generation(generation: Generation, ranking: Sequence[RankedCandidate]) -> Generation:
    """The generation whose answer is the best of the ranking; all candidates, with their scores, are its hypotheses."""
    given = _candidates(generation)
    message = generator_pb2.Generation()
    message.CopyFrom(generation.message)
    del message.hypotheses[:]
    for each in ranking:
        hypothesis = message.hypotheses.add()
        hypothesis.CopyFrom(given[each.index])
        hypothesis.retrieval_score, hypothesis.ranking_score = each.retrieval_score, each.ranking_score
    best = message.hypotheses[0]
    for name in ("text", "raw_text", "log_probability", "confidence", "finish_reason", "num_new_tokens"):
        setattr(message, name, getattr(best, name))
    message.posteriors[:] = best.posteriors
    return replace(
        generation,
        message=message,
        finish_reason=_finish_reason(message),
        confidence=message.confidence,
        posteriors=message.posteriors,
        chosen=ranking[0].index,
    )


def generate_request(kind: type[Request], question: Question, found: Retrieval) -> Request:
    """What the generator is asked."""
    passages = [
        generator_pb2.GeneratorPassage(
            id=each.passage.id,
            title=each.passage.title,
            text=_text_to_read(each),
            log_prior=each.log_prior,
            score=each.score,
        )
        for each in found.passages
    ]
    return kind(
        input=generator_pb2.GenerationInput(question=question.text, passages=passages),
        decoding=question.options.decoding,
        explanation=question.options.explanation,
    )


def _text_to_read(found: common_pb2.RetrievedPassage) -> str:
    """The passage's text among its neighbours', where there are any and a generator takes that much."""
    if not found.neighbors:
        return str(found.passage.text)
    text = join(map(_part, (found.passage, *found.neighbors)))
    return text if len(text.encode()) <= MAX_PASSAGE_BYTES else str(found.passage.text)


def _part(passage: common_pb2.Passage) -> Part:
    if not passage.HasField("span"):
        return Part(passage.id, passage.text)
    return Part(passage.id, passage.text, passage.span.start_char, passage.span.end_char)


def score_request(question: str, passages: Iterable[common_pb2.RetrievedPassage]) -> generator_pb2.ScoreRequest:
    """Asks for log p(question | passage) of each passage."""
    read = [
        generator_pb2.GeneratorPassage(id=each.passage.id, title=each.passage.title, text=each.passage.text)
        for each in passages
    ]
    return generator_pb2.ScoreRequest(
        input=generator_pb2.GenerationInput(question=question, passages=read), score_question=True
    )


def generation(reply: generator_pb2.GenerateResponse) -> Generation:
    """What it decoded."""
    message = reply.generation
    return Generation(
        message=message,
        finish_reason=_finish_reason(message),
        model=enum_name(common_pb2.DecodingModel, message.model, "DECODING_MODEL_"),
        confidence=message.confidence,
        min_confidence=message.min_confidence,
        posteriors=message.posteriors,
        digest=reply.provenance.generator_digest,
        num_bytes=reply.ByteSize(),
        provenance=reply.provenance,
        timings=_timings(reply.timings),
    )


def enum_name(wire_enum: Any, number: int, prefix: str = "") -> str:
    """The lower-case name of a wire number; "unspecified" for one that is newer than this gateway."""
    if number not in wire_enum.values():
        number = 0
    name = str(wire_enum.Name(number))
    return name.removeprefix(prefix).lower() if prefix else name


def _finish_reason(message: generator_pb2.Generation) -> str:
    return enum_name(common_pb2.FinishReason, message.finish_reason, "FINISH_REASON_")


def _candidates(generation: Generation) -> Sequence[common_pb2.Hypothesis]:
    message: generator_pb2.Generation = generation.message
    if not message.hypotheses:
        raise RagError("the generator returned no candidates")
    return message.hypotheses


def _timings(messages: Iterable[common_pb2.StageTiming]) -> dict[str, float]:
    """Seconds by stage name; the backend's own total is what the gateway measures as its stage."""
    timings: dict[str, float] = {}
    for each in messages:
        if each.stage != common_pb2.STAGE_TOTAL:
            name = enum_name(common_pb2.Stage, each.stage, "STAGE_")
            timings[name] = timings.get(name, 0.0) + each.duration_seconds
    return timings
