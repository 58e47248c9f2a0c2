"""What callers send → the gateway's values. What the stages will check themselves is left to them."""

import copy
import hashlib
import math
from collections.abc import Sequence

from gateway import convert_tasks
from gateway.convert_names import enum_name
from gateway.convert_retriever import generator_rerank
from gateway.convert_tasks import MAX_TEXT_BYTES, check_size
from gateway.feedback import Feedback
from gateway.ranking import CandidateWeights
from gateway.stages import Question, Task
from protos.rag.v1 import common_pb2, gateway_pb2
from serving.errors import InvalidRequest

MAX_ANSWER_ID_BYTES = 64
MAX_HELPFUL_PASSAGES = 100
MIN_CANDIDATES, MAX_CANDIDATES = 2, 16
MIN_COMPARED, MAX_COMPARED = 2, 8

_WITHOUT_TOKENS = (Task.FACT_VERIFICATION, Task.RECOMMENDATION, Task.DOCUMENT_GENERATION)


def question(request: gateway_pb2.AnswerRequest | gateway_pb2.StreamAnswerRequest) -> Question:
    """The question of a request, with the defaults of its kind: thorough when unary, greedy tokens when streamed.

    Raises:
        InvalidRequest: Names the field and the limit.
        Unimplemented: The task is newer than this gateway.
    """
    task = convert_tasks.task_of(request)
    task_options = convert_tasks.task_options(request, task)
    convert_tasks.check_question(request, task, task_options)
    options = convert_tasks.with_task_defaults(request.options, task)
    min_confidence = options.min_confidence if options.HasField("min_confidence") else None
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise InvalidRequest(
            f"options.min_confidence must be in [0, 1], not {min_confidence}", field="options.min_confidence"
        )
    is_stream = isinstance(request, gateway_pb2.StreamAnswerRequest) and task not in _WITHOUT_TOKENS
    if is_stream:
        options = _with_stream_defaults(options)
    model, ranking = options.decoding.model, _candidate_weights(options)
    return Question(
        text=request.question,
        options=options,
        min_confidence=min_confidence,
        needs_passages=model != common_pb2.DECODING_MODEL_CLOSED_BOOK,
        streams_tokens=is_stream and ranking is None and model != common_pb2.DECODING_MODEL_RAG_SEQUENCE,
        rerank=generator_rerank(options.retrieval, "options.retrieval"),
        ranking=ranking,
        cache_key=_cache_key(request, options),
        task=task,
        task_options=task_options,
        history=convert_tasks.history(request),
    )


def compared_questions(request: gateway_pb2.CompareAnswersRequest) -> list[Question]:
    """The question, once for each index generation.

    Raises:
        InvalidRequest: Names the field and the limit.
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


def feedback(message: gateway_pb2.Feedback) -> Feedback:
    """Feedback.

    Raises:
        InvalidRequest: Names the field and the limit.
    """
    if not message.answer_id.strip():
        raise InvalidRequest("feedback.answer_id must not be blank", field="feedback.answer_id", reason="BLANK")
    check_size("feedback.answer_id", message.answer_id, MAX_ANSWER_ID_BYTES)
    check_size("feedback.expected_answer", message.expected_answer)
    check_size("feedback.comment", message.comment)
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
    sizes = {"max_question_bytes": MAX_TEXT_BYTES, "max_turn_bytes": MAX_TEXT_BYTES}
    sizes |= {"max_feedback_bytes": MAX_TEXT_BYTES, "max_message_bytes": max_message_bytes}
    counts = {
        "max_admitted_items": max_items,
        "max_turns": convert_tasks.MAX_TURNS,
        "max_labels": convert_tasks.MAX_LABELS,
        "max_summarized_passages": convert_tasks.MAX_SUMMARIZED_PASSAGES,
        "max_sections": convert_tasks.MAX_SECTIONS,
        "max_liked_sources": convert_tasks.MAX_LIKED_SOURCES,
    }
    units = dict.fromkeys(sizes, "bytes") | dict.fromkeys(counts, "items")
    return [common_pb2.Limit(name=name, value=value, unit=units[name]) for name, value in (sizes | counts).items()]
