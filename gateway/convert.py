"""What callers send and get ↔ the gateway's values. What the stages will check themselves is left to them."""

import copy
import hashlib
import math
from collections.abc import Mapping, MutableSequence, Sequence

from gateway.convert_backends import enum_name, likelihood_rerank
from gateway.feedback import Feedback
from gateway.ranking import CandidateWeights
from gateway.stages import Answer, Delta, Event, Question, Retrieval, StageEnded
from protos.rag.v1 import common_pb2, gateway_pb2, generator_pb2
from serving.errors import InvalidRequest, Unimplemented

MAX_TEXT_BYTES = 8192
MAX_ANSWER_ID_BYTES = 64
MAX_HELPFUL_PASSAGES = 100
MIN_CANDIDATES, MAX_CANDIDATES = 2, 16
MIN_COMPARED, MAX_COMPARED = 2, 8


def question(request: gateway_pb2.AnswerRequest | gateway_pb2.StreamAnswerRequest) -> Question:
    """The question of a request, with the defaults of its kind: thorough when unary, greedy tokens when streamed.

    Raises:
        InvalidRequest: Names the field and the limit.
        Unimplemented: Names the option whose work comes later.
    """
    if not request.question.strip():
        raise InvalidRequest("question must not be blank", field="question", reason="BLANK")
    _check_size("question", request.question)
    if request.history:
        raise Unimplemented("history (dialogue over several turns) is not implemented yet")
    if request.task not in (gateway_pb2.TASK_UNSPECIFIED, gateway_pb2.TASK_QUESTION_ANSWERING):
        raise Unimplemented(f"task {enum_name(gateway_pb2.Task, request.task)} is not implemented yet")
    options = request.options
    min_confidence = options.min_confidence if options.HasField("min_confidence") else None
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise InvalidRequest(
            f"options.min_confidence must be in [0, 1], not {min_confidence}", field="options.min_confidence"
        )
    is_stream = isinstance(request, gateway_pb2.StreamAnswerRequest)
    if is_stream:
        options = _with_stream_defaults(options)
    model, ranking = options.decoding.model, _candidate_weights(options)
    return Question(
        text=request.question,
        options=options,
        min_confidence=min_confidence,
        needs_passages=model != common_pb2.DECODING_MODEL_CLOSED_BOOK,
        streams_tokens=is_stream and ranking is None and model != common_pb2.DECODING_MODEL_RAG_SEQUENCE,
        rerank=likelihood_rerank(options.retrieval, "options.retrieval"),
        ranking=ranking,
        cache_key=_cache_key(request, options),
    )


def compared_questions(request: gateway_pb2.CompareAnswersRequest) -> list[Question]:
    """The question, once for each index generation.

    Raises:
        InvalidRequest: Names the field and the limit.
        Unimplemented: Names the option whose work comes later.
    """
    count = len(request.index_generations)
    if not MIN_COMPARED <= count <= MAX_COMPARED:
        raise InvalidRequest(
            f"index_generations must be {MIN_COMPARED} to {MAX_COMPARED}, not {count}",
            field="index_generations",
            reason="OUT_OF_RANGE",
        )
    if request.options.retrieval.index_generation:
        raise InvalidRequest(
            "options.retrieval.index_generation cannot go with index_generations",
            field="options.retrieval.index_generation",
        )
    questions = []
    for generation in request.index_generations:
        asked = gateway_pb2.AnswerRequest(question=request.question, options=request.options)
        asked.options.retrieval.index_generation = generation
        questions.append(question(asked))
    return questions


def _cache_key(
    request: gateway_pb2.AnswerRequest | gateway_pb2.StreamAnswerRequest, options: gateway_pb2.AnswerOptions
) -> bytes | None:
    """Everything asked, as one digest; `min_confidence` only decides how the answer is shown."""
    if options.decoding.HasField("sampling") and not options.decoding.sampling.HasField("seed"):
        return None
    keyed = copy.deepcopy(request)
    keyed.options.CopyFrom(options)
    keyed.options.ClearField("min_confidence")
    content = keyed.SerializeToString(deterministic=True)
    return hashlib.sha256(type(request).__name__.encode() + content).digest()


def _candidate_weights(options: gateway_pb2.AnswerOptions) -> CandidateWeights | None:
    """How candidates are ranked, None where one answer is decoded.

    Raises:
        InvalidRequest: A number is out of its range, or something is asked for that only the decoder's own choice has.
    """
    if not options.decoding.HasField("candidate_ranking"):
        return None
    given, path = options.decoding.candidate_ranking, "options.decoding.candidate_ranking"
    if not MIN_CANDIDATES <= given.num_candidates <= MAX_CANDIDATES:
        raise InvalidRequest(
            f"{path}.num_candidates must be {MIN_CANDIDATES} to {MAX_CANDIDATES}, not {given.num_candidates}",
            field=f"{path}.num_candidates",
            reason="OUT_OF_RANGE",
        )
    for name in ("generation_weight", "retrieval_weight"):
        weight = getattr(given, name)
        if not 0 <= weight < math.inf:
            raise InvalidRequest(f"{path}.{name} must be finite and at least 0, not {weight}", field=f"{path}.{name}")
    if options.decoding.model == common_pb2.DECODING_MODEL_CLOSED_BOOK:
        raise InvalidRequest("candidate_ranking needs passages; CLOSED_BOOK has none", field=path)
    for name in ("token_posteriors", "leave_one_out"):
        if getattr(options.explanation, name):
            raise InvalidRequest(
                f"options.explanation.{name} explains what the decoder chose; it cannot go with candidate_ranking",
                field=f"options.explanation.{name}",
            )
    return CandidateWeights(
        given.generation_weight if given.HasField("generation_weight") else 1.0,
        given.retrieval_weight if given.HasField("retrieval_weight") else 1.0,
    )


def _with_stream_defaults(options: gateway_pb2.AnswerOptions) -> gateway_pb2.AnswerOptions:
    completed = gateway_pb2.AnswerOptions()
    completed.CopyFrom(options)
    decoding = completed.decoding
    if decoding.model == common_pb2.DECODING_MODEL_UNSPECIFIED:
        decoding.model = common_pb2.DECODING_MODEL_RAG_TOKEN
    has_tokens_early = decoding.model != common_pb2.DECODING_MODEL_RAG_SEQUENCE and not decoding.HasField(
        "candidate_ranking"
    )
    if decoding.num_beams == 0 and has_tokens_early:
        decoding.num_beams = 1
    return completed


def answer_response(answer: Answer, build_version: str) -> gateway_pb2.AnswerResponse:
    """An answer, as the caller sees it."""
    provenance = common_pb2.Provenance()
    for stage in (answer.retrieval, answer.generation):
        if stage is not None and stage.provenance is not None:
            provenance.MergeFrom(stage.provenance)
    provenance.build_version = build_version
    return gateway_pb2.AnswerResponse(
        answer=_answer(answer), provenance=provenance, timings=_timing_messages(answer.timings)
    )


def _answer(answer: Answer) -> gateway_pb2.Answer:
    message = gateway_pb2.Answer(
        answer_id=answer.answer_id,
        finish_reason="FINISH_REASON_" + answer.finish_reason.upper(),
        from_cache=answer.from_cache,
    )
    if answer.generation is None:
        return message
    decoded: generator_pb2.Generation = answer.generation.message
    for cited in answer.citations:
        message.citations.add(
            retrieved=answer.retrieval.passages[cited.index], prior=cited.prior, posterior=cited.posterior
        )
    message.log_probability = decoded.log_probability
    message.confidence = decoded.confidence
    message.model = decoded.model
    message.pruned_prior_mass = decoded.pruned_prior_mass
    message.num_new_tokens = decoded.num_new_tokens
    message.num_input_tokens = decoded.num_input_tokens
    if answer.has_text:
        message.text, message.raw_text = decoded.text, decoded.raw_text
        message.tokens.extend(decoded.tokens)
        message.hypotheses.extend(decoded.hypotheses)
        message.leave_one_out.extend(decoded.leave_one_out)
        order = [cited.index for cited in answer.citations]
        for token in message.tokens:
            _reorder(token.posteriors, order)
        for hypothesis in message.hypotheses:
            _reorder(hypothesis.posteriors, order)
    return message


def _reorder(posteriors: MutableSequence[float], order: Sequence[int]) -> None:
    """From the passages' order into the citations'."""
    if posteriors:
        posteriors[:] = [posteriors[index] for index in order]


def event(event: Event, build_version: str) -> gateway_pb2.StreamAnswerResponse:
    """One event of a streamed answer."""
    match event:
        case StageEnded(stage, seconds):
            (timing,) = _timing_messages({stage: seconds})
            return gateway_pb2.StreamAnswerResponse(stage=gateway_pb2.StageEvent(timing=timing))
        case Retrieval():
            return gateway_pb2.StreamAnswerResponse(
                passages=gateway_pb2.RetrievedPassages(passages=event.passages, provenance=event.provenance)
            )
        case Delta(message):
            return gateway_pb2.StreamAnswerResponse(delta=message)
        case Answer():
            return gateway_pb2.StreamAnswerResponse(final=answer_response(event, build_version))


def feedback(message: gateway_pb2.Feedback) -> Feedback:
    """Feedback.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    if not message.answer_id.strip():
        raise InvalidRequest("feedback.answer_id must not be blank", field="feedback.answer_id", reason="BLANK")
    _check_size("feedback.answer_id", message.answer_id, MAX_ANSWER_ID_BYTES)
    _check_size("feedback.expected_answer", message.expected_answer)
    _check_size("feedback.comment", message.comment)
    if len(message.helpful_passage_ids) > MAX_HELPFUL_PASSAGES:
        raise InvalidRequest(
            f"feedback.helpful_passage_ids has {len(message.helpful_passage_ids)} ids, at most {MAX_HELPFUL_PASSAGES}",
            field="feedback.helpful_passage_ids",
            reason="TOO_MANY",
        )
    if not (message.rating or message.expected_answer or message.comment or message.helpful_passage_ids):
        raise InvalidRequest("feedback says nothing besides answer_id", field="feedback", reason="EMPTY")
    return Feedback(
        answer_id=message.answer_id,
        rating=enum_name(gateway_pb2.Feedback.Rating, message.rating, "RATING_") if message.rating else "",
        expected_answer=message.expected_answer,
        comment=message.comment,
        helpful_passage_ids=tuple(message.helpful_passage_ids),
    )


def limits(max_items: int, max_message_bytes: int) -> Sequence[common_pb2.Limit]:
    """The gateway's own limits."""
    return [
        common_pb2.Limit(name="max_question_bytes", value=MAX_TEXT_BYTES, unit="bytes"),
        common_pb2.Limit(name="max_feedback_bytes", value=MAX_TEXT_BYTES, unit="bytes"),
        common_pb2.Limit(name="max_admitted_items", value=max_items, unit="items"),
        common_pb2.Limit(name="max_message_bytes", value=max_message_bytes, unit="bytes"),
    ]


def _check_size(field: str, text: str, limit: int = MAX_TEXT_BYTES) -> None:
    size = len(text.encode())
    if size > limit:
        raise InvalidRequest(f"{field} has {size} bytes, at most {limit}", field=field, reason="TOO_LARGE")


def _timing_messages(timings: Mapping[str, float]) -> list[common_pb2.StageTiming]:
    return [
        common_pb2.StageTiming(stage="STAGE_" + name.upper(), duration_seconds=seconds)
        for name, seconds in timings.items()
    ]
