"""What the generator is asked and replies ↔ the gateway's values."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from gateway.context import Part, join
from gateway.convert_names import enum_name, head, timings
from gateway.convert_retriever import text_value
from gateway.prompts import Checkpoint, TaskPrompt
from gateway.ranking import RankedCandidate, RerankMethod, choose
from gateway.stages import Generation, Label, Question, Retrieval
from protos.rag.v1 import common_pb2, generator_pb2
from serving.errors import RagError

MAX_PASSAGE_BYTES = 65_536

_DECODING_FIELDS = frozenset(common_pb2.DecodingOptions.DESCRIPTOR.fields_by_name)
_EXPLANATION_FIELDS = frozenset(common_pb2.ExplanationOptions.DESCRIPTOR.fields_by_name)

Request = TypeVar("Request", generator_pb2.GenerateRequest, generator_pb2.StreamGenerateRequest)


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
        text=message.text,
        finish_reason=_finish_reason(message),
        confidence=message.confidence,
        posteriors=message.posteriors,
        chosen=ranking[0].index,
    )


def generate_request(kind: type[Request], question: Question, found: Retrieval) -> Request:
    """What the generator is asked; where nothing was found, it is a closed book with nothing to explain."""
    request = kind(
        input=_input(question, found), decoding=question.options.decoding, explanation=question.options.explanation
    )
    if not found.passages:
        request.decoding.model = common_pb2.DECODING_MODEL_CLOSED_BOOK
        request.ClearField("explanation")
    request.decoding.max_new_tokens = request.decoding.max_new_tokens or question.max_new_tokens
    return request


def rewrite_request(prompt: str) -> generator_pb2.GenerateRequest:
    """Asks for what the generator makes of a text alone, as its checkpoint decodes by itself."""
    return generator_pb2.GenerateRequest(
        input=generator_pb2.GenerationInput(question=prompt),
        decoding=common_pb2.DecodingOptions(model=common_pb2.DECODING_MODEL_CLOSED_BOOK),
    )


def choose_request(question: Question, found: Retrieval, labels: Sequence[str]) -> generator_pb2.ScoreRequest:
    """Asks for log p(label | question) of each label."""
    return generator_pb2.ScoreRequest(
        input=_input(question, found), answers=labels, model=question.options.decoding.model
    )


def rerank_request(question: Question, found: Retrieval) -> generator_pb2.ScoreRequest:
    """Asks for log p(question | passage) of each passage, or for log p(no answer | question, passage).

    The latter's passages are read as they will be for the answer, so that the generator still has them then; all of
    them are, however improbable.
    """
    assert question.rerank is not None
    if question.rerank.method is RerankMethod.ANSWERABILITY:
        given = _input(question, found)
        for passage in given.passages:
            passage.ClearField("log_prior")
        return generator_pb2.ScoreRequest(input=given, score_no_answer=True)
    read = [
        generator_pb2.GeneratorPassage(id=each.passage.id, title=each.passage.title, text=each.passage.text)
        for each in found.passages
    ]
    return generator_pb2.ScoreRequest(
        input=generator_pb2.GenerationInput(question=question.text, passages=read), score_question=True
    )


def generation(reply: generator_pb2.GenerateResponse) -> Generation:
    """What it decoded."""
    message = reply.generation
    return Generation(
        message=message,
        text=message.text,
        finish_reason=_finish_reason(message),
        model=enum_name(common_pb2.DecodingModel, message.model, "DECODING_MODEL_"),
        confidence=message.confidence,
        min_confidence=message.min_confidence,
        posteriors=message.posteriors,
        digest=reply.provenance.generator_digest,
        num_bytes=reply.ByteSize(),
        provenance=reply.provenance,
        timings=timings(reply.timings),
    )


def choice(reply: generator_pb2.ScoreResponse, labels: Sequence[str], question: Question) -> Generation:
    """The most probable label as what was generated, its probability as the confidence.

    Raises:
        RagError: There is not one score for each label.
    """
    if len(reply.scores) != len(labels):
        raise RagError(f"the generator returned {len(reply.scores)} scores for {len(labels)} labels")
    log_probabilities = [score.log_probability for score in reply.scores]
    order, probabilities = choose(log_probabilities)
    best = reply.scores[order[0]]
    model = question.options.decoding.model or common_pb2.DECODING_MODEL_RAG_SEQUENCE
    message = generator_pb2.Generation(
        text=labels[order[0]],
        raw_text=labels[order[0]],
        finish_reason=common_pb2.FINISH_REASON_END_OF_SEQUENCE,
        log_probability=best.log_probability,
        confidence=probabilities[order[0]],
        posteriors=best.posteriors,
        model=model,
    )
    scored = generator_pb2.GenerateResponse(generation=message, provenance=reply.provenance, timings=reply.timings)
    ranked = [Label(labels[i], probabilities[i], log_probabilities[i]) for i in order]
    return replace(generation(scored), labels=ranked)


def checkpoint(reply: generator_pb2.GeneratorServiceGetInfoResponse) -> Checkpoint:
    """What the generator says of its checkpoint."""
    return Checkpoint(
        digest=reply.generator.digest,
        prompts={each.task: TaskPrompt(each.template, tuple(each.labels)) for each in reply.tasks},
        max_new_tokens=reply.max_new_tokens,
        max_input_tokens=reply.generator.max_input_tokens,
    )


def _input(question: Question, found: Retrieval) -> generator_pb2.GenerationInput:
    field = question.task_options.translation_field
    passages = [
        generator_pb2.GeneratorPassage(
            id=hit.passage.id,
            title="" if field else hit.passage.title,
            text=f"{hit.passage.text} => {text_value(hit.passage, field)}" if field else _text_to_read(hit),
            log_prior=log_prior,
            score=hit.score,
        )
        for hit, log_prior in zip(found.passages, found.log_priors, strict=True)
    ]
    return generator_pb2.GenerationInput(question=question.prompt or question.text, passages=passages)


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


def _finish_reason(message: generator_pb2.Generation) -> str:
    return enum_name(common_pb2.FinishReason, message.finish_reason, "FINISH_REASON_")


def _candidates(generation: Generation) -> Sequence[common_pb2.Hypothesis]:
    message: generator_pb2.Generation = generation.message
    if not message.hypotheses:
        raise RagError("the generator returned no candidates")
    return message.hypotheses


def asked_field(field: str | None) -> str | None:
    """A field of a GenerateRequest as the asker of a question knows it."""
    if field in ("decoding", "explanation"):
        return f"options.{field}"
    if field and field.startswith("answers"):
        return f"options.labels{field.removeprefix('answers')}"
    path = (field or "").removeprefix("input.").removeprefix("decoding.").removeprefix("explanation.")
    if head(path) in _DECODING_FIELDS:
        return f"options.decoding.{path}"
    if head(path) in _EXPLANATION_FIELDS:
        return f"options.explanation.{path}"
    return path or field
