"""Wire messages ↔ the gateway's values. What the stages will check themselves is left to them."""

from collections.abc import Iterable, Mapping, MutableSequence, Sequence
from typing import Any, TypeVar

from gateway.feedback import Feedback
from gateway.stages import Answer, Delta, Event, Generation, Question, Retrieval, StageEnded
from protos.rag.v1 import common_pb2, gateway_pb2, generator_pb2, retriever_pb2
from serving.errors import InvalidRequest, Unimplemented

MAX_TEXT_BYTES = 8192
MAX_ANSWER_ID_BYTES = 64
MAX_HELPFUL_PASSAGES = 100

Request = TypeVar("Request", generator_pb2.GenerateRequest, generator_pb2.StreamGenerateRequest)


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
        raise Unimplemented(f"task {_name(gateway_pb2.Task, request.task)} is not implemented yet")
    options = request.options
    min_confidence = options.min_confidence if options.HasField("min_confidence") else None
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise InvalidRequest(
            f"options.min_confidence must be in [0, 1], not {min_confidence}", field="options.min_confidence"
        )
    if isinstance(request, gateway_pb2.StreamAnswerRequest):
        options = _with_stream_defaults(options)
    model = options.decoding.model
    return Question(
        text=request.question,
        options=options,
        min_confidence=min_confidence,
        needs_passages=model != common_pb2.DECODING_MODEL_CLOSED_BOOK,
        streams_tokens=isinstance(request, gateway_pb2.StreamAnswerRequest)
        and model != common_pb2.DECODING_MODEL_RAG_SEQUENCE,
    )


def _with_stream_defaults(options: gateway_pb2.AnswerOptions) -> gateway_pb2.AnswerOptions:
    completed = gateway_pb2.AnswerOptions()
    completed.CopyFrom(options)
    decoding = completed.decoding
    if decoding.model == common_pb2.DECODING_MODEL_UNSPECIFIED:
        decoding.model = common_pb2.DECODING_MODEL_RAG_TOKEN
    if decoding.num_beams == 0 and decoding.model != common_pb2.DECODING_MODEL_RAG_SEQUENCE:
        decoding.num_beams = 1
    return completed


def retrieve_request(question: Question) -> retriever_pb2.RetrieveRequest:
    """What the retriever is asked."""
    return retriever_pb2.RetrieveRequest(
        queries=[retriever_pb2.Query(text=question.text)], options=question.options.retrieval
    )


def retrieval(reply: retriever_pb2.RetrieveResponse) -> Retrieval:
    """What it found for the one query."""
    passages = reply.results[0].passages
    return Retrieval(
        passages=passages,
        log_priors=[passage.log_prior for passage in passages],
        provenance=reply.provenance,
        timings=_timings(reply.timings),
    )


def generate_request(kind: type[Request], question: Question, found: Retrieval) -> Request:
    """What the generator is asked."""
    passages = [
        generator_pb2.GeneratorPassage(
            id=each.passage.id,
            title=each.passage.title,
            text=each.passage.text,
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


def generation(reply: generator_pb2.GenerateResponse) -> Generation:
    """What it decoded."""
    message = reply.generation
    return Generation(
        message=message,
        finish_reason=_name(common_pb2.FinishReason, message.finish_reason, "FINISH_REASON_"),
        model=_name(common_pb2.DecodingModel, message.model, "DECODING_MODEL_"),
        confidence=message.confidence,
        posteriors=message.posteriors,
        provenance=reply.provenance,
        timings=_timings(reply.timings),
    )


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
        answer_id=answer.answer_id, finish_reason="FINISH_REASON_" + answer.finish_reason.upper()
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
        rating=_name(gateway_pb2.Feedback.Rating, message.rating, "RATING_") if message.rating else "",
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


def _timings(messages: Iterable[common_pb2.StageTiming]) -> dict[str, float]:
    """Seconds by stage name; the backend's own total is what the gateway measures as its stage."""
    timings: dict[str, float] = {}
    for each in messages:
        if each.stage != common_pb2.STAGE_TOTAL:
            name = _name(common_pb2.Stage, each.stage, "STAGE_")
            timings[name] = timings.get(name, 0.0) + each.duration_seconds
    return timings


def _timing_messages(timings: Mapping[str, float]) -> list[common_pb2.StageTiming]:
    return [
        common_pb2.StageTiming(stage="STAGE_" + name.upper(), duration_seconds=seconds)
        for name, seconds in timings.items()
    ]


def _name(wire_enum: Any, number: int, prefix: str = "") -> str:
    """The lower-case name of a wire number; "unspecified" for one that is newer than this gateway."""
    if number not in wire_enum.values():
        number = 0
    name = str(wire_enum.Name(number))
    return name.removeprefix(prefix).lower() if prefix else name
