"""The limits of a request and the checks that hold them. Every refusal names the field and the limit."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from generator_service.request import DecodingModel, DecodingOptions, Passage, ScoringRequest
from serving.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest request that is taken."""

    max_question_bytes: int = 8192
    max_passages: int = 100
    max_title_bytes: int = 1024
    max_passage_bytes: int = 65536
    max_num_beams: int = 16
    max_new_tokens: int = 512
    max_bad_words: int = 64
    max_forced_words: int = 16
    max_stop: int = 16
    max_stop_bytes: int = 64
    max_no_repeat_ngram_size: int = 512
    max_answers: int = 64
    max_answer_tokens: int = 512


def check_input(question: str, passages: Sequence[Passage], model: DecodingModel, limits: Limits) -> None:
    """Refuses a blank or oversize question, too many or no passages, and priors that are no probabilities.

    Raises:
        InvalidRequest: naming the field.
    """
    if not question.strip():
        raise InvalidRequest("input.question is blank", field="input.question", reason="BLANK")
    _check_bytes("input.question", question, limits.max_question_bytes)
    if model is DecodingModel.CLOSED_BOOK and passages:
        raise InvalidRequest("CLOSED_BOOK takes no passages", field="input.passages")
    if model is not DecodingModel.CLOSED_BOOK and not passages:
        raise InvalidRequest(f"{model.value} needs at least 1 passage", field="input.passages", reason="NO_PASSAGES")
    if len(passages) > limits.max_passages:
        raise _over("input.passages", len(passages), limits.max_passages, "passages")
    for i, passage in enumerate(passages):
        _check_bytes(f"input.passages[{i}].title", passage.title, limits.max_title_bytes)
        _check_bytes(f"input.passages[{i}].text", passage.text, limits.max_passage_bytes)
        if math.isnan(passage.log_prior) or passage.log_prior == math.inf:
            raise InvalidRequest(
                f"input.passages[{i}].log_prior is {passage.log_prior}, not a log-probability",
                field=f"input.passages[{i}].log_prior",
            )
    if passages and all(passage.log_prior == -math.inf for passage in passages):
        raise InvalidRequest("every log_prior is -inf", field="input.passages")


def check_scoring(request: ScoringRequest, limits: Limits) -> None:
    """Refuses a bad input, and no or too many answers to score.

    Raises:
        InvalidRequest: naming the field and the limit.
    """
    check_input(request.question, request.passages, request.model or DecodingModel.RAG_SEQUENCE, limits)
    answers = request.answers
    if request.scores_question and request.scores_no_answer:
        raise InvalidRequest("score_no_answer cannot go with score_question", field="score_no_answer")
    for name, is_asked in (("score_question", request.scores_question), ("score_no_answer", request.scores_no_answer)):
        if is_asked:
            if answers or request.model is not None:
                raise InvalidRequest(f"{name} takes neither answers nor model", field=name)
            return
    if not answers:
        raise InvalidRequest("answers is empty; 1 is the least", field="answers")
    if len(answers) > limits.max_answers:
        raise _over("answers", len(answers), limits.max_answers, "answers")
    for i, answer in enumerate(answers):
        _check_bytes(f"answers[{i}]", answer, limits.max_passage_bytes)


def check_options(options: DecodingOptions, limits: Limits) -> None:
    """Refuses options outside their range; the combinations are checked where they are resolved.

    Raises:
        InvalidRequest: naming the option and its limits.
    """
    _check_range("decoding.num_beams", options.num_beams, 0, limits.max_num_beams)
    _check_range("decoding.max_new_tokens", options.max_new_tokens, 0, limits.max_new_tokens)
    _check_range("decoding.no_repeat_ngram_size", options.no_repeat_ngram_size, 0, limits.max_no_repeat_ngram_size)
    _check_range("decoding.bad_words, their number,", len(options.bad_words), 0, limits.max_bad_words)
    _check_range("decoding.forced_words, their number,", len(options.forced_words), 0, limits.max_forced_words)
    _check_range("decoding.stop, their number,", len(options.stop), 0, limits.max_stop)
    for i, stop in enumerate(options.stop):
        _check_bytes(f"decoding.stop[{i}]", stop, limits.max_stop_bytes)
    for name in ("stop", "bad_words", "forced_words"):
        if not all(getattr(options, name)):
            raise InvalidRequest(f"decoding.{name} holds an empty string", field=f"decoding.{name}")
    if options.num_candidates is not None:
        _check_range("decoding.candidate_ranking.num_candidates", options.num_candidates, 2, limits.max_num_beams)
    _check_range("decoding.prune_prior_mass", options.prune_prior_mass, 0.0, 1.0)
    if options.prune_prior_mass == 1.0:
        raise InvalidRequest("decoding.prune_prior_mass must be below 1", field="decoding.prune_prior_mass")
    if options.length_penalty is not None and not math.isfinite(options.length_penalty):
        raise InvalidRequest("decoding.length_penalty must be finite", field="decoding.length_penalty")
    if options.sampling is not None:
        sampling = options.sampling
        if not 0.0 < sampling.temperature < math.inf:
            raise InvalidRequest("decoding.sampling.temperature must be > 0", field="decoding.sampling.temperature")
        if not 0.0 < sampling.top_p <= 1.0:
            raise InvalidRequest("decoding.sampling.top_p must be in (0, 1]", field="decoding.sampling.top_p")


def _check_bytes(field: str, text: str, limit: int) -> None:
    size = len(text.encode())
    if size > limit:
        raise _over(field, size, limit, "bytes")


def _check_range(field: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        name = field.split(",")[0]
        raise InvalidRequest(f"{field} is {value}; it must be from {low} to {high}", field=name, reason="OUT_OF_RANGE")


def _over(field: str, value: int, limit: int, unit: str) -> InvalidRequest:
    return InvalidRequest(f"{field} has {value} {unit}; the limit is {limit}", field=field, reason="TOO_LARGE")
