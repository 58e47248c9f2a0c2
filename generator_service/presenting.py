"""From token sequences to texts with their evidence. Runs off the event loop; knows no engine and no wire."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from generator_service.confidence import Confidence, Evidence
from generator_service.decoding.given import GivenScore
from generator_service.decoding.marginal import TokenShare
from generator_service.decoding.program import Decoded, EmittedToken, LeftOut, Program, ScoredHypothesis
from generator_service.entry import Finished
from generator_service.options import Decoding
from generator_service.planning import PassagePrior
from generator_service.request import (
    AnswerHypothesis,
    AnswerScore,
    DecodingModel,
    Delta,
    Generation,
    GenerationRequest,
    LeaveOneOut,
    Timings,
    TokenAttribution,
)
from generator_service.text import DeltaText, TextCodec
from serving.errors import InvalidRequest


@dataclass(frozen=True, slots=True)
class Plan:
    """A request ready to run."""

    request: GenerationRequest
    decoding: Decoding
    prior: PassagePrior
    program: Program[Decoded]
    accepted_at: float
    tokenize_seconds: float

    @property
    def num_input_tokens(self) -> int:
        """Encoder tokens over all rows, without padding."""
        return sum(len(row) for row in self.program.rows)


class Presenter:
    """Writes answers with a checkpoint's tokenizer and confidence model."""

    def __init__(self, codec: TextCodec, confidence: Confidence) -> None:
        self._codec = codec
        self._confidence = confidence

    def generation(self, plan: Plan, finished: Finished[Decoded]) -> Generation:
        """Texts and evidence of what was decoded.

        Raises:
            InvalidRequest: nothing satisfies the constraints.
        """
        decoded, prior = finished.result, plan.prior
        if not decoded.hypotheses:
            raise InvalidRequest("the constraints leave no possible answer", field="decoding", reason="NO_ANSWER")
        best = decoded.hypotheses[0]
        hypotheses = [self._hypothesis(plan, each) for each in decoded.hypotheses]
        log_priors = prior.spread(prior.log_prior.tolist(), missing=float("-inf"))
        evidence = Evidence(
            log_probability=best.log_probability,
            num_new_tokens=len(best.token_ids),
            log_priors=log_priors,
            posteriors=hypotheses[0].posteriors,
            scores=[passage.score for passage in plan.request.passages],
        )
        return Generation(
            best=hypotheses[0],
            ending=best.ending,
            confidence=self._confidence(evidence),
            log_priors=log_priors,
            tokens=self._attributions(best.token_ids, decoded.shares, prior),
            hypotheses=hypotheses if len(hypotheses) > 1 else (),
            leave_one_out=self._left_out(plan, decoded.left_out, hypotheses[0]),
            num_new_tokens=len(best.token_ids),
            num_input_tokens=plan.num_input_tokens,
            pruned_prior_mass=prior.pruned_mass,
            model=plan.decoding.model,
            timings=Timings(
                plan.tokenize_seconds,
                finished.timings,
                time.monotonic() - plan.accepted_at,
                finished.first_token_seconds,
            ),
        )

    def _hypothesis(self, plan: Plan, scored: ScoredHypothesis) -> AnswerHypothesis:
        """A hypothesis as text, in the surface of the passage it most probably came from."""
        prior = plan.prior
        fuses = plan.decoding.model is DecodingModel.FUSION_IN_DECODER
        shares = prior.log_prior.exp().tolist() if fuses else scored.posteriors
        posteriors = prior.spread(shares, missing=0.0)
        passages = plan.request.passages
        order = sorted(range(len(passages)), key=posteriors.__getitem__, reverse=True)
        answer = self._codec.answer(scored.token_ids, [passages[i] for i in order], plan.decoding.stop)
        return AnswerHypothesis(answer.text, answer.raw, scored.log_probability, posteriors)

    def _attributions(
        self, ids: Sequence[int], shares: Sequence[TokenShare], prior: PassagePrior
    ) -> list[TokenAttribution]:
        """Tokens with their text and shares; a forced first token has no share and is left out."""
        if not shares:
            return []
        pieces = self._codec.pieces(ids)
        skipped = len(ids) - len(shares)
        return [
            TokenAttribution(token, piece, _spread_share(share, prior))
            for token, piece, share in zip(ids[skipped:], pieces[skipped:], shares, strict=True)
        ]

    def _left_out(self, plan: Plan, left_out: Sequence[LeftOut], answer: AnswerHypothesis) -> list[LeaveOneOut]:
        """What each kept passage's removal does; a passage that pruning dropped already changes nothing."""
        if not left_out:
            return []
        passages, prior = plan.request.passages, plan.prior
        results = []
        for i, passage in enumerate(passages):
            if i not in prior.kept:
                results.append(LeaveOneOut(passage.id, False, False, answer.text, answer.log_probability))
                continue
            each = left_out[prior.kept.index(i)]
            others = [other for other in passages if other is not passage]
            text = "" if each.token_ids is None else self._codec.answer(each.token_ids, others, plan.decoding.stop).text
            is_exact = each.exact and not prior.pruned_mass
            results.append(LeaveOneOut(passage.id, each.flips, is_exact, text, each.log_probability))
        return results

    def answer_scores(
        self, scores: Sequence[GivenScore], targets: Sequence[Sequence[int]], prior: PassagePrior
    ) -> list[AnswerScore]:
        """The scores of given answers, token by token too."""
        return [
            AnswerScore(
                score.log_probability,
                prior.spread(score.posteriors, missing=0.0),
                prior.spread(score.passage_log_probabilities, missing=float("-inf")),
                self._attributions(target, score.shares, prior),
            )
            for score, target in zip(scores, targets, strict=True)
        ]


class Deltas:
    """The deltas of one stream."""

    def __init__(self, codec: TextCodec, plan: Plan) -> None:
        self._codec = codec
        self._plan = plan
        self._text = DeltaText(codec, plan.decoding.stop)
        self._ids: list[int] = []
        self._pending: list[EmittedToken] = []

    def push(self, tokens: Sequence[EmittedToken]) -> Delta | None:
        """The delta that these tokens make certain, if any."""
        self._ids.extend(each.token_id for each in tokens)
        self._pending.extend(tokens)
        text = self._text.push(self._ids)
        return Delta(text, self._take(self._pending[:-1])) if text else None

    def finish(self, generation: Generation) -> Delta | None:
        """The rest of the raw text, where deltas were begun."""
        if not self._ids:
            return None
        text = self._text.finish(generation.best.raw_text)
        tokens = self._take(self._pending)
        return Delta(text, tokens) if text or tokens else None

    def _take(self, tokens: Sequence[EmittedToken]) -> list[TokenAttribution]:
        self._pending = self._pending[len(tokens) :]
        if not self._plan.request.explanation.token_posteriors:
            return []
        pieces = self._codec.pieces(self._ids)
        first = len(self._ids) - len(self._pending) - len(tokens)
        return [
            TokenAttribution(each.token_id, piece, _spread_share(each.share, self._plan.prior))
            for each, piece in zip(tokens, pieces[first : first + len(tokens)], strict=True)
        ]


def _spread_share(share: TokenShare, prior: PassagePrior) -> TokenShare:
    """A token's share, at the places of all passages."""
    return TokenShare(share.log_probability, tuple(prior.spread(share.posteriors, missing=0.0)))
