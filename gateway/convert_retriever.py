"""What the retriever is asked and replies ↔ the gateway's values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from gateway.convert_names import head, timings
from gateway.mixture import keep
from gateway.ranking import GeneratorRerank, RerankedHit, RerankMethod, Vectors
from gateway.stages import Facts, Question, Retrieval, Space
from protos.rag.v1 import common_pb2, retriever_pb2
from serving.errors import InvalidRequest, RagError

DEFAULT_COLLECTION = "default"
DEFAULT_TOP_K, MAX_TOP_K = 5, 100
DEFAULT_RERANKED, MAX_RERANKED = {RerankMethod.QUESTION_LIKELIHOOD: 20, RerankMethod.ANSWERABILITY: 10}, 100
DEFAULT_ANSWERABILITY_WEIGHT = 0.085  # Measured for cosine plus 0.04 BM25; 0.06 to 0.12 do the same (docs/ranking.md).
MAX_QUERY_BYTES = 8192

_FIELDS = frozenset(common_pb2.RetrievalOptions.DESCRIPTOR.fields_by_name)
_BY_THE_GENERATOR = {
    int(common_pb2.Rerank.METHOD_QUESTION_LIKELIHOOD): RerankMethod.QUESTION_LIKELIHOOD,
    int(common_pb2.Rerank.METHOD_ANSWERABILITY): RerankMethod.ANSWERABILITY,
}


def rerank_method(options: common_pb2.RetrievalOptions) -> RerankMethod | None:
    """What the generator is asked of the hits; None where the retriever ranks alone."""
    return _BY_THE_GENERATOR.get(options.rerank.method)


def generator_rerank(options: common_pb2.RetrievalOptions, path: str) -> GeneratorRerank | None:
    """How hits are reranked by what the generator says of them; None where the retriever ranks alone.

    Args:
        options: As the caller gave them.
        path: Where they stand in the caller's request, for messages.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    method, rerank = rerank_method(options), options.rerank
    if method is None:
        return None
    if options.HasField("diversity"):
        raise InvalidRequest(
            f"{path}.diversity cannot go with rerank by {method}: it would choose before the reranking",
            field=f"{path}.diversity",
        )
    top_k = options.top_k if options.HasField("top_k") else DEFAULT_TOP_K
    for name, value, least, most in (
        ("top_k", top_k, 1, MAX_TOP_K),
        ("rerank.num_candidates", rerank.num_candidates, 0, MAX_RERANKED),
    ):
        if not least <= value <= most:
            raise InvalidRequest(
                f"{path}.{name} must be {least} to {most}, not {value}", field=f"{path}.{name}", reason="OUT_OF_RANGE"
            )
    if options.HasField("temperature") and not 0 < options.temperature < math.inf:
        raise InvalidRequest(f"{path}.temperature must be > 0", field=f"{path}.temperature", reason="OUT_OF_RANGE")
    if not math.isfinite(options.min_score):
        raise InvalidRequest(f"{path}.min_score must be finite", field=f"{path}.min_score", reason="OUT_OF_RANGE")
    return GeneratorRerank(
        method=method,
        num_candidates=max(top_k, rerank.num_candidates or DEFAULT_RERANKED[method]),
        top_k=top_k,
        min_score=options.min_score if options.HasField("min_score") else -math.inf,
        temperature=options.temperature if options.HasField("temperature") else 1.0,
        weight=_answerability_weight(rerank, method, f"{path}.rerank.answerability_weight"),
    )


def _answerability_weight(rerank: common_pb2.Rerank, method: RerankMethod, field: str) -> float:
    if not rerank.HasField("answerability_weight"):
        return DEFAULT_ANSWERABILITY_WEIGHT
    if method is not RerankMethod.ANSWERABILITY:
        raise InvalidRequest(f"{field} has no meaning for {method}", field=field)
    if not 0 <= rerank.answerability_weight < math.inf:
        raise InvalidRequest(
            f"{field} must be finite and at least 0, not {rerank.answerability_weight}",
            field=field,
            reason="OUT_OF_RANGE",
        )
    return rerank.answerability_weight


def retrieval_options(
    given: common_pb2.RetrievalOptions, rerank: GeneratorRerank | None
) -> common_pb2.RetrievalOptions:
    """What the retriever is told: where the gateway reranks, what concerns the reranked hits is kept from it."""
    if rerank is None:
        return given
    options = common_pb2.RetrievalOptions()
    options.CopyFrom(given)
    for name in ("rerank", "min_score"):
        options.ClearField(name)
    if rerank.method is RerankMethod.QUESTION_LIKELIHOOD:  # ANSWERABILITY goes on from the retriever's own prior.
        options.ClearField("temperature")
    options.top_k = rerank.num_candidates
    return options


def retrieve_request(question: Question, queries: Iterable[str]) -> retriever_pb2.RetrieveRequest:
    """What the retriever is asked; a text that is too long for a query is cut."""
    request = retriever_pb2.RetrieveRequest(
        queries=[retriever_pb2.Query(text=_cut(query)) for query in queries],
        options=retrieval_options(question.options.retrieval, question.rerank),
    )
    request.options.include_vectors |= question.ranking is not None
    if question.task_options.liked_sources:
        _leave_out(request.options, question.task_options.liked_sources)
    return request


def _cut(query: str) -> str:
    return query.encode()[:MAX_QUERY_BYTES].decode(errors="ignore")


def _leave_out(options: common_pb2.RetrievalOptions, sources: Iterable[str]) -> None:
    """Adds to the filter that a passage is of none of these sources."""
    left_out = common_pb2.Filter()
    values = [common_pb2.Value(string_value=source) for source in sources]
    getattr(getattr(left_out, "not"), "in").CopyFrom(common_pb2.FieldIn(field="source", values=values))
    if options.HasField("filter"):
        left_out = common_pb2.Filter(all_of=common_pb2.FilterList(filters=[options.filter, left_out]))
    options.filter.CopyFrom(left_out)


def source_request(question: Question, name: str, num_passages: int) -> retriever_pb2.ListPassagesRequest:
    """Asks for passages of a source."""
    equals = common_pb2.FieldEquals(field="source", value=common_pb2.Value(string_value=name))
    return retriever_pb2.ListPassagesRequest(
        collection=collection(question), filter=common_pb2.Filter(equals=equals), page_size=num_passages
    )


def source_retrieval(passages: Sequence[common_pb2.Passage], state: str, question: Question) -> Retrieval:
    """A source's passages in its order (by where they start, else by id), all as probable."""
    ordered = sorted(passages, key=lambda passage: (passage.span.start_char, passage.id))
    log_prior = -math.log(len(ordered))
    return Retrieval(
        passages=[common_pb2.RetrievedPassage(passage=passage) for passage in ordered],
        log_priors=[log_prior] * len(ordered),
        facts=[_facts(passage, question) for passage in ordered],
        state=state,
        num_bytes=sum(passage.ByteSize() for passage in ordered),
        provenance=common_pb2.Provenance(collection=collection(question), collection_state=state),
    )


def collection(question: Question) -> str:
    """The name of the collection that a question is about."""
    return str(question.options.retrieval.collection or DEFAULT_COLLECTION)


def retrievals(reply: retriever_pb2.RetrieveResponse, question: Question) -> list[Retrieval]:
    """What it found for each query; of a translation memory, what has a translation."""
    found = [retrieval(result.passages, reply, question) for result in reply.results]
    field = question.task_options.translation_field
    if not field:
        return found
    return [
        keep(each, [i for i, hit in enumerate(each.passages) if text_value(hit.passage, field).strip()])
        for each in found
    ]


def retrieval(
    passages: Sequence[common_pb2.RetrievedPassage], reply: retriever_pb2.RetrieveResponse, question: Question
) -> Retrieval:
    """What it found for one query."""
    num_bytes = reply.ByteSize()
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
        log_priors=[hit.log_prior for hit in passages],
        facts=[_facts(hit.passage, question) for hit in passages],
        space=space,
        temperature=reply.temperature,
        state=reply.provenance.collection_state,
        num_bytes=num_bytes,
        provenance=reply.provenance,
        timings=timings(reply.timings),
    )


def _facts(passage: common_pb2.Passage, question: Question) -> Facts:
    field = question.task_options.item_field
    item = text_value(passage, field) if field else passage.source
    return Facts(passage.id, passage.title, passage.source, passage.text, item)


def text_value(passage: common_pb2.Passage, field: str) -> str:
    """A metadata value as text; empty where there is none, or a list."""
    if field not in passage.metadata:  # Looking it up would add it.
        return ""
    value = passage.metadata[field]
    kind = value.WhichOneof("kind")
    return str(getattr(value, kind)) if kind and kind != "string_list" else ""


def ranked_passages(found: Retrieval) -> list[common_pb2.RetrievedPassage]:
    """The passages as messages that say the rank and the prior that they have in the retrieval."""
    result = []
    for rank, (hit, log_prior) in enumerate(zip(found.passages, found.log_priors, strict=True), start=1):
        if (hit.rank, hit.log_prior) != (rank, log_prior):
            moved = common_pb2.RetrievedPassage()
            moved.CopyFrom(hit)
            moved.rank, moved.log_prior = rank, log_prior
            hit = moved
        result.append(hit)
    return result


def vectors(messages: Sequence[common_pb2.Vector]) -> Vectors:
    """Vectors (N, D), asked for as float32."""
    return np.stack([np.frombuffer(message.data, "<f4") for message in messages])


def _reranked(
    passages: Sequence[common_pb2.RetrievedPassage], hits: Sequence[RerankedHit]
) -> list[common_pb2.RetrievedPassage]:
    """The passages in their new order, with their new scores."""
    result = []
    for rank, hit in enumerate(hits, start=1):
        passage = common_pb2.RetrievedPassage()
        passage.CopyFrom(passages[hit.index])
        passage.rank, passage.score, passage.log_prior = rank, hit.score, hit.log_prior
        passage.rerank_score = hit.rerank_score
        result.append(passage)
    return result


def reranked_retrieval(found: Retrieval, hits: Sequence[RerankedHit]) -> Retrieval:
    """A retrieval of the reranked hits alone."""
    kept = keep(found, [hit.index for hit in hits])
    return replace(kept, passages=_reranked(found.passages, hits), log_priors=[hit.log_prior for hit in hits])


def asked_field(field: str | None) -> str | None:
    """A field of a RetrieveRequest as the asker of a question knows it."""
    path = (field or "").removeprefix("options.")
    if path.startswith(("quer", "text")):
        return "question"
    return f"options.retrieval.{path}" if head(path) in _FIELDS else field
