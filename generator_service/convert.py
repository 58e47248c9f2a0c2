"""Between the wire and the generator's values, and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TypeVar

from generator_service.decoding.sampling import Sampling
from generator_service.decoding.search import Ending
from generator_service.limits import Limits
from generator_service.models.base import ModelSpec
from generator_service.request import (
    AnswerHypothesis,
    AnswerScore,
    DecodingModel,
    DecodingOptions,
    Delta,
    Explanation,
    Generation,
    GenerationRequest,
    LeaveOneOut,
    Passage,
    Scores,
    ScoringRequest,
    Timings,
    TokenAttribution,
)
from generator_service.task_prompts import TaskPrompt
from protos.rag.v1 import common_pb2, generator_pb2
from serving.errors import InvalidRequest

_T = TypeVar("_T")

_WIRE_MODELS = {
    DecodingModel.RAG_SEQUENCE: common_pb2.DECODING_MODEL_RAG_SEQUENCE,
    DecodingModel.RAG_TOKEN: common_pb2.DECODING_MODEL_RAG_TOKEN,
    DecodingModel.FUSION_IN_DECODER: common_pb2.DECODING_MODEL_FUSION_IN_DECODER,
    DecodingModel.CLOSED_BOOK: common_pb2.DECODING_MODEL_CLOSED_BOOK,
}
_MODELS: Mapping[int, DecodingModel | None] = {
    common_pb2.DECODING_MODEL_UNSPECIFIED: None,
    **{int(number): model for model, number in _WIRE_MODELS.items()},
}
_SCORINGS: Mapping[int, bool] = {
    common_pb2.SEQUENCE_SCORING_UNSPECIFIED: False,
    common_pb2.SEQUENCE_SCORING_THOROUGH: False,
    common_pb2.SEQUENCE_SCORING_FAST: True,
}
_ENDINGS = {
    Ending.END_OF_SEQUENCE: common_pb2.FINISH_REASON_END_OF_SEQUENCE,
    Ending.LENGTH: common_pb2.FINISH_REASON_LENGTH,
    Ending.STOP: common_pb2.FINISH_REASON_STOP,
}
_UNITS = {"bytes": "bytes", "tokens": "tokens"}


def generation_request(
    request: generator_pb2.GenerateRequest | generator_pb2.StreamGenerateRequest,
) -> GenerationRequest:
    """What is asked, out of the wire's message."""
    explanation = request.explanation
    return GenerationRequest(
        request.input.question,
        _passages(request.input),
        _options(request.decoding),
        Explanation(explanation.token_posteriors, explanation.leave_one_out),
    )


def scoring_request(request: generator_pb2.ScoreRequest) -> ScoringRequest:
    """What is to be scored, out of the wire's message."""
    model = _known(_MODELS, request.model, "model")
    return ScoringRequest(
        request.input.question,
        _passages(request.input),
        list(request.answers),
        model,
        scores_question=request.score_question,
        scores_no_answer=request.score_no_answer,
    )


def generate_response(generation: Generation, provenance: common_pb2.Provenance) -> generator_pb2.GenerateResponse:
    """An answer for the wire."""
    return generator_pb2.GenerateResponse(
        generation=_generation(generation), provenance=provenance, timings=_timings(generation.timings)
    )


def delta_response(delta: Delta) -> generator_pb2.StreamGenerateResponse:
    """New text for the wire."""
    tokens = [_attribution(each) for each in delta.tokens]
    return generator_pb2.StreamGenerateResponse(delta=generator_pb2.TokenDelta(text=delta.text, tokens=tokens))


def score_response(scores: Scores, provenance: common_pb2.Provenance) -> generator_pb2.ScoreResponse:
    """Scores for the wire."""
    return generator_pb2.ScoreResponse(
        scores=[_answer_score(each) for each in scores.answers],
        provenance=provenance,
        timings=_timings(scores.timings),
    )


def provenance(spec: ModelSpec, build_version: str) -> common_pb2.Provenance:
    """Which model answered."""
    return common_pb2.Provenance(generator=spec.name, generator_digest=spec.digest, build_version=build_version)


def model_info(spec: ModelSpec) -> common_pb2.ModelInfo:
    """The loaded model for the wire."""
    return common_pb2.ModelInfo(
        name=spec.name,
        digest=spec.digest,
        architecture=spec.architecture,
        dtype=spec.dtype,
        device=spec.device,
        num_parameters=spec.num_parameters,
        max_input_tokens=spec.max_input_tokens,
    )


def limits(values: Limits, *, max_message_bytes: int) -> list[common_pb2.Limit]:
    """The limits in force for the wire; the unit is the name's last word."""
    named = {**asdict(values), "max_message_bytes": max_message_bytes}
    return [
        common_pb2.Limit(name=name, value=value, unit=_UNITS.get(name.rsplit("_", 1)[1], "items"))
        for name, value in named.items()
    ]


def models() -> Sequence[common_pb2.DecodingModel]:
    """The decoding models that every generator has."""
    return list(_WIRE_MODELS.values())


def tasks(prompts: Sequence[TaskPrompt]) -> list[generator_pb2.TaskPrompt]:
    """What the checkpoint was taught, for the wire."""
    return [generator_pb2.TaskPrompt(task=each.task, template=each.template, labels=each.labels) for each in prompts]


def _passages(source: generator_pb2.GenerationInput) -> list[Passage]:
    return [Passage(each.id, each.title, each.text, each.log_prior, each.score) for each in source.passages]


def _options(options: common_pb2.DecodingOptions) -> DecodingOptions:
    return DecodingOptions(
        model=_known(_MODELS, options.model, "decoding.model"),
        is_fast=_known(_SCORINGS, options.sequence_scoring, "decoding.sequence_scoring"),
        num_beams=options.num_beams,
        max_new_tokens=options.max_new_tokens,
        min_new_tokens=options.min_new_tokens if options.HasField("min_new_tokens") else None,
        length_penalty=options.length_penalty if options.HasField("length_penalty") else None,
        no_repeat_ngram_size=options.no_repeat_ngram_size,
        bad_words=list(options.bad_words),
        forced_words=list(options.forced_words),
        stop=list(options.stop),
        num_return_sequences=options.num_return_sequences,
        sampling=_sampling(options.sampling) if options.HasField("sampling") else None,
        prune_prior_mass=options.prune_prior_mass,
        early_stopping=options.early_stopping,
        num_candidates=options.candidate_ranking.num_candidates if options.HasField("candidate_ranking") else None,
    )


def _sampling(sampling: common_pb2.Sampling) -> Sampling:
    return Sampling(
        temperature=sampling.temperature if sampling.HasField("temperature") else 1.0,
        top_k=sampling.top_k,
        top_p=sampling.top_p if sampling.HasField("top_p") else 1.0,
        seed=sampling.seed if sampling.HasField("seed") else None,
    )


def _known(names: Mapping[int, _T], number: int, field: str) -> _T:
    if number not in names:
        raise InvalidRequest(f"{field} has no value {number}", field=field)
    return names[number]


def _generation(generation: Generation) -> generator_pb2.Generation:
    return generator_pb2.Generation(
        text=generation.best.text,
        raw_text=generation.best.raw_text,
        finish_reason=_ENDINGS[generation.best.ending],
        log_probability=generation.best.log_probability,
        confidence=generation.best.confidence,
        log_priors=generation.log_priors,
        posteriors=generation.best.posteriors,
        tokens=[_attribution(each) for each in generation.tokens],
        hypotheses=[_hypothesis(each) for each in generation.hypotheses],
        leave_one_out=[_leave_one_out(each) for each in generation.leave_one_out],
        num_new_tokens=generation.best.num_new_tokens,
        num_input_tokens=generation.num_input_tokens,
        pruned_prior_mass=generation.pruned_prior_mass,
        model=_WIRE_MODELS[generation.model],
        min_confidence=generation.min_confidence,
    )


def _hypothesis(hypothesis: AnswerHypothesis) -> common_pb2.Hypothesis:
    return common_pb2.Hypothesis(
        text=hypothesis.text,
        raw_text=hypothesis.raw_text,
        log_probability=hypothesis.log_probability,
        posteriors=hypothesis.posteriors,
        confidence=hypothesis.confidence,
        finish_reason=_ENDINGS[hypothesis.ending],
        num_new_tokens=hypothesis.num_new_tokens,
    )


def _attribution(token: TokenAttribution) -> common_pb2.TokenAttribution:
    return common_pb2.TokenAttribution(
        token_id=token.token_id,
        text=token.text,
        log_probability=token.share.log_probability,
        posteriors=token.share.posteriors,
    )


def _leave_one_out(each: LeaveOneOut) -> common_pb2.LeaveOneOut:
    return common_pb2.LeaveOneOut(
        passage_id=each.passage_id,
        flips=each.flips,
        exact=each.exact,
        text=each.text,
        log_probability=each.log_probability,
    )


def _answer_score(score: AnswerScore) -> generator_pb2.AnswerScore:
    return generator_pb2.AnswerScore(
        log_probability=score.log_probability,
        posteriors=score.posteriors,
        passage_log_probabilities=score.passage_log_probabilities,
        tokens=[_attribution(each) for each in score.tokens],
    )


def _timings(timings: Timings) -> list[common_pb2.StageTiming]:
    seconds = {
        common_pb2.STAGE_TOKENIZE: timings.tokenize_seconds,
        common_pb2.STAGE_QUEUE: timings.engine.queue_seconds,
        common_pb2.STAGE_PREFILL: timings.engine.prefill_seconds,
        common_pb2.STAGE_DECODE: timings.engine.decode_seconds,
        common_pb2.STAGE_TOTAL: timings.total_seconds,
    }
    return [common_pb2.StageTiming(stage=stage, duration_seconds=value) for stage, value in seconds.items()]
