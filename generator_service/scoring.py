"""From a scoring request to a program: which rows are read, which targets are scored, and under which prior."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from generator_service.decoding.fused import Fused
from generator_service.decoding.given import GivenScore, ScoreGiven
from generator_service.decoding.program import Program, TokenIds
from generator_service.limits import Limits
from generator_service.models.base import ModelSpec
from generator_service.planning import PassagePrior
from generator_service.request import DecodingModel, ScoringRequest
from generator_service.text import TextCodec
from serving.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class ScoringPlan:
    """A scoring request ready to run; `targets` end with end-of-sequence."""

    program: Program[list[GivenScore]]
    targets: Sequence[TokenIds]
    prior: PassagePrior
    model: DecodingModel


def plan_scoring(
    request: ScoringRequest, *, spec: ModelSpec, codec: TextCodec, limits: Limits, max_slice_tokens: int
) -> ScoringPlan:
    """The program that scores what is asked. The input was checked.

    Raises:
        InvalidRequest: A target is longer than the model or the limit allows.
    """
    prior = PassagePrior.of(request.passages, 0.0)
    passages = [request.passages[i] for i in prior.kept]
    if request.scores_question:
        rows = [codec.passage_row(passage) for passage in passages]
        texts = {"input.question": request.question}
    else:
        rows = codec.rows(request.question, passages)
        answers = [""] if request.scores_no_answer else request.answers
        texts = {f"answers[{i}]": answer for i, answer in enumerate(answers)}
    targets = [
        codec.target(text, eos_token_id=spec.eos_token_id, forced_bos_token_id=spec.forced_bos_token_id)
        for text in texts.values()
    ]
    longest = min(limits.max_answer_tokens, spec.max_target_tokens)
    for field, target in zip(texts, targets, strict=True):
        if len(target) > longest:
            raise InvalidRequest(
                f"{field} has {len(target)} tokens; the limit is {longest}", field=field, reason="TOO_LARGE"
            )
    model = request.model or DecodingModel.RAG_SEQUENCE

    def score(rows: Sequence[TokenIds], log_prior: Tensor) -> Program[list[GivenScore]]:
        per_token = model is DecodingModel.RAG_TOKEN
        return ScoreGiven(rows, log_prior, targets, per_token=per_token, max_slice_tokens=max_slice_tokens)

    fuses = model is DecodingModel.FUSION_IN_DECODER
    return ScoringPlan(Fused(rows, score) if fuses else score(rows, prior.log_prior), targets, prior, model)
