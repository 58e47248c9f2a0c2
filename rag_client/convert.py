"""Wire messages → the client's values. The other way is `wire.py`."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from protos.rag.v1 import common_pb2, gateway_pb2, retriever_pb2
from rag_client import answer_types, types
from rag_client.enums import DecodingModel, FinishReason
from rag_client.errors import error_from_item

Choice = TypeVar("Choice", bound=StrEnum)

_NUMPY_DTYPES = {
    common_pb2.DATA_TYPE_UNSPECIFIED: "<f4",
    common_pb2.DATA_TYPE_FLOAT32: "<f4",
    common_pb2.DATA_TYPE_FLOAT16: "<f2",
}


def choice(kind: type[Choice], wire_enum: Any, prefix: str, number: int) -> Choice | None:
    """The named choice of a wire number; None when unspecified or newer than this client."""
    if number == 0 or number not in wire_enum.values():
        return None
    return kind(wire_enum.Name(number).removeprefix(prefix).lower())


def passage(message: common_pb2.Passage) -> types.Passage:
    """A passage."""
    span = message.span
    return types.Passage(
        id=message.id,
        text=message.text,
        title=message.title,
        source=message.source,
        span=types.TextSpan(span.start_char, span.end_char, span.page) if message.HasField("span") else None,
        metadata={name: value(each) for name, each in message.metadata.items()},
        content_digest=message.content_digest,
        sequence=message.sequence,
    )


def value(message: common_pb2.Value) -> types.Value:
    """A metadata value."""
    kind = message.WhichOneof("kind")
    if kind == "string_list":
        return tuple(message.string_list.values)
    result: types.Value = getattr(message, kind) if kind else ""
    return result


def vector(message: common_pb2.Vector) -> types.Vector:
    """An embedding, widened to float32 (D,)."""
    if message.dtype == common_pb2.DATA_TYPE_BFLOAT16:
        return (np.frombuffer(message.data, "<u2").astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(message.data, _NUMPY_DTYPES[message.dtype]).astype(np.float32)


def retrieved(message: common_pb2.RetrievedPassage) -> types.RetrievedPassage:
    """A passage as one query found it."""
    return types.RetrievedPassage(
        passage=passage(message.passage),
        rank=message.rank,
        score=message.score,
        log_prior=message.log_prior,
        dense_score=optional(message, "dense_score"),
        lexical_score=optional(message, "lexical_score"),
        rerank_score=optional(message, "rerank_score"),
        neighbors=tuple(map(passage, message.neighbors)),
        vector=vector(message.vector) if message.HasField("vector") else None,
    )


def retrievals(message: retriever_pb2.RetrieveResponse) -> list[types.Retrieval]:
    """One result per query."""
    made_by, times = provenance(message.provenance), timings(message.timings)
    return [
        types.Retrieval(
            passages=tuple(map(retrieved, result.passages)),
            provenance=made_by,
            timings=times,
            error=error_from_item(result.status.code, result.status.message, result.status.reason),
        )
        for result in message.results
    ]


def provenance(message: common_pb2.Provenance) -> types.Provenance:
    """Which artefacts made a reply."""
    return types.Provenance(**{field.name: getattr(message, field.name) for field in message.DESCRIPTOR.fields})


def timings(messages: Iterable[common_pb2.StageTiming]) -> tuple[types.StageTiming, ...]:
    """How long each stage took."""
    return tuple(map(timing, messages))


def timing(message: common_pb2.StageTiming) -> types.StageTiming:
    """How long one stage took."""
    known = message.stage in common_pb2.Stage.values()
    name = common_pb2.Stage.Name(message.stage).removeprefix("STAGE_").lower() if known else str(message.stage)
    return types.StageTiming(name, message.duration_seconds)


def answer(reply: gateway_pb2.AnswerResponse) -> answer_types.Answer:
    """An answer with its provenance and timings."""
    message = reply.answer
    citations = [answer_types.Citation(retrieved(c.retrieved), c.prior, c.posterior) for c in message.citations]
    return answer_types.Answer(
        answer_id=message.answer_id,
        text=message.text,
        raw_text=message.raw_text,
        finish_reason=finish_reason(message.finish_reason),
        log_probability=message.log_probability,
        confidence=message.confidence,
        model=decoding_model(message.model),
        citations=tuple(citations),
        provenance=provenance(reply.provenance),
        timings=timings(reply.timings),
        tokens=tuple(map(token, message.tokens)),
        hypotheses=tuple(map(hypothesis, message.hypotheses)),
        leave_one_out=tuple(
            answer_types.LeaveOneOut(each.passage_id, each.flips, each.exact, each.text, each.log_probability)
            for each in message.leave_one_out
        ),
        pruned_prior_mass=message.pruned_prior_mass,
        num_new_tokens=message.num_new_tokens,
        num_input_tokens=message.num_input_tokens,
        from_cache=message.from_cache,
        rewritten_question=message.rewritten_question,
        labels=tuple(
            answer_types.LabelProbability(each.label, each.probability, each.log_probability) for each in message.labels
        ),
        sections=tuple(
            answer_types.Section(
                each.heading,
                each.text,
                each.prior,
                each.log_probability,
                each.confidence,
                _cited(each.citations, citations),
            )
            for each in message.sections
        ),
        items=tuple(
            answer_types.RecommendedItem(each.name, each.probability, _cited(each.citations, citations))
            for each in message.items
        ),
    )


def _cited(
    places: Iterable[gateway_pb2.CitationPlace], citations: Sequence[answer_types.Citation]
) -> tuple[answer_types.Citation, ...]:
    """The citations of a part of an answer, with the posteriors that they have there."""
    return tuple(replace(citations[place.index], posterior=place.posterior) for place in places)


def hypothesis(message: common_pb2.Hypothesis) -> answer_types.Hypothesis:
    """A finished sequence that the decoder also considered."""
    return answer_types.Hypothesis(
        text=message.text,
        raw_text=message.raw_text,
        log_probability=message.log_probability,
        posteriors=tuple(message.posteriors),
        retrieval_score=optional(message, "retrieval_score"),
        ranking_score=optional(message, "ranking_score"),
        confidence=message.confidence,
        finish_reason=finish_reason(message.finish_reason),
        num_new_tokens=message.num_new_tokens,
    )


def finish_reason(number: int) -> FinishReason:
    """Why decoding ended."""
    return choice(FinishReason, common_pb2.FinishReason, "FINISH_REASON_", number) or FinishReason.UNSPECIFIED


def decoding_model(number: int) -> DecodingModel | None:
    """A decoding model; None when unspecified."""
    return choice(DecodingModel, common_pb2.DecodingModel, "DECODING_MODEL_", number)


def token(message: common_pb2.TokenAttribution) -> answer_types.Token:
    """One generated token."""
    return answer_types.Token(message.token_id, message.text, message.log_probability, tuple(message.posteriors))


def event(message: gateway_pb2.StreamAnswerResponse) -> answer_types.Event | None:
    """One event of a streamed answer; None for a kind that this client does not know."""
    match message.WhichOneof("event"):
        case "stage":
            return answer_types.StageEnded(timing(message.stage.timing), message.stage.section)
        case "passages":
            found = tuple(map(retrieved, message.passages.passages))
            return answer_types.PassagesRetrieved(found, provenance(message.passages.provenance))
        case "delta":
            return answer_types.TokenDelta(message.delta.text, tuple(map(token, message.delta.tokens)))
        case "final":
            return answer_types.FinalAnswer(answer(message.final))
        case _:
            return None


def moment(message: Timestamp) -> datetime:
    """A moment, in UTC."""
    return message.ToDatetime(tzinfo=UTC)


def optional(message: Any, name: str) -> float | None:
    """The number, or None where it was left out."""
    return getattr(message, name) if message.HasField(name) else None
