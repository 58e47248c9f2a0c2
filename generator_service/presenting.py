"""From token sequences to texts with their evidence. Runs off the event loop; knows no engine and no wire."""

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from generator_service.confidence import Confidence, Evidence
from generator_service.decoding.given import GivenScore
from generator_service.decoding.marginal import TokenShare
from generator_service.decoding.program import Decoded, EmittedToken, LeftOut, Program
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
from generator_service.scoring import ScoringPlan
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

    @property
    def log_priors(self) -> list[float]:
        """The prior as used, at the places of all passages."""
        return self.prior.spread(self.prior.log_prior.tolist(), missing=float("-inf"))


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
        hypotheses = [self._hypothesis(plan, decoded, index) for index in range(len(decoded.hypotheses))]
        if plan.decoding.are_candidates:
            hypotheses = _distinct(hypotheses)
        return Generation(
            best=hypotheses[0],
            log_priors=plan.log_priors,
            tokens=self._attributions(decoded.hypotheses[0].token_ids, decoded.shares, prior),
            hypotheses=hypotheses if plan.decoding.num_hypotheses > 1 else (),
            leave_one_out=self._left_out(plan, decoded.left_out, hypotheses[0]),
            num_input_tokens=plan.num_input_tokens,
            pruned_prior_mass=prior.pruned_mass,
            model=plan.decoding.model,
            timings=Timings(
                plan.tokenize_seconds,
                finished.timings,
                time.monotonic() - plan.accepted_at,
                finished.first_token_seconds,
            ),
            min_confidence=self._confidence.min_confidence,
        )

    def _hypothesis(self, plan: Plan, decoded: Decoded, index: int) -> AnswerHypothesis:
        """A hypothesis as text, in the surface of the passage it most probably came from."""
        prior, scored = plan.prior, decoded.hypotheses[index]
        fuses = plan.decoding.model is DecodingModel.FUSION_IN_DECODER
        shares = prior.log_prior.exp().tolist() if fuses else scored.posteriors
        posteriors = prior.spread(shares, missing=0.0)
        passages = plan.request.passages
        order = sorted(range(len(passages)), key=posteriors.__getitem__, reverse=True)
        answer = self._codec.answer(scored.token_ids, [passages[i] for i in order], plan.decoding.stop)
        evidence = Evidence(
            log_probability=scored.log_probability,
            num_new_tokens=len(scored.token_ids),
            log_priors=plan.log_priors,
            posteriors=posteriors,
            scores=[passage.score for passage in passages],
            no_answer=_spread_no_answer(decoded.no_answer, prior),
            closed_book=decoded.closed_book[index] if decoded.closed_book else None,
        )
        return AnswerHypothesis(
            text=answer.text,
            raw_text=answer.raw,
            log_probability=scored.log_probability,
            posteriors=posteriors,
            confidence=self._confidence(evidence),
            ending=scored.ending,
            num_new_tokens=len(scored.token_ids),
        )

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
        """What each passage's removal does.

        The passages at hand are those that were read: one that pruning dropped changes nothing, and none takes the
        place of one that is removed.
        """
        if not left_out:
            return []
        passages, prior = plan.request.passages, plan.prior
        results = []
        for i, passage in enumerate(passages):
            if i not in prior.kept:
                results.append(LeaveOneOut(passage.id, False, True, answer.text, answer.log_probability))
                continue
            each = left_out[prior.kept.index(i)]
            others = [passages[j] for j in prior.kept if j != i]
            if each.token_ids is None:
                results.append(LeaveOneOut(passage.id, each.flips, each.exact, "", each.log_probability))
                continue
            without = self._codec.answer(each.token_ids, others, plan.decoding.stop)
            flips = each.flips and without.raw != answer.raw_text
            results.append(LeaveOneOut(passage.id, flips, each.exact, without.text, each.log_probability))
        return results

    def answer_scores(self, scores: Sequence[GivenScore], plan: ScoringPlan) -> list[AnswerScore]:
        """The scores of given answers, token by token too.

        Fusion-in-decoder draws no passage: its posterior is the prior, as in an answer, and it has no probabilities
        per passage.
        """
        prior = plan.prior
        fuses = plan.model is DecodingModel.FUSION_IN_DECODER
        results = []
        for score, target in zip(scores, plan.targets, strict=True):
            posteriors = prior.log_prior.exp().tolist() if fuses else score.posteriors
            passages = prior.spread(score.passage_log_probabilities, missing=float("-inf"))
            shares = [replace(each, posteriors=()) for each in score.shares] if fuses else score.shares
            results.append(
                AnswerScore(
                    score.log_probability,
                    prior.spread(posteriors, missing=0.0),
                    [] if fuses else passages,
                    self._attributions(target, shares, prior),
                )
            )
        return results


class Deltas:
    """The deltas of one stream."""

    def __init__(self, codec: TextCodec, plan: Plan) -> None:
        self._codec = codec
        self._plan = plan
        self._text = DeltaText(codec, plan.decoding.stop)
        self._ids: list[int] = []
        self._shares: list[TokenShare] = []
        self._num_told = 0

    def push(self, tokens: Sequence[EmittedToken]) -> Delta | None:
        """The delta that these tokens make certain, if any."""
        text = ""
        for each in tokens:  # One by one: the text comes one token late.
            self._ids.append(each.token_id)
            self._shares.append(each.share)
            text += self._text.push(self._ids)
        return Delta(text, self._told(self._text.given)) if text else None

    def finish(self, generation: Generation) -> Delta | None:
        """The rest of the raw text, where deltas were begun."""
        if not self._ids:
            return None
        text = self._text.finish(generation.best.raw_text)
        tokens = self._told(self._codec.decode(self._ids))
        return Delta(text, tokens) if text or tokens else None

    def _told(self, given: str) -> list[TokenAttribution]:
        """The tokens, where asked for, that are not told yet and whose text is given out."""
        if not self._plan.request.explanation.token_posteriors:
            return []
        pieces = self._codec.pieces(self._ids)
        whole = "".join(pieces)
        length = len(given) + len(whole) - len(whole.lstrip())
        first = self._num_told
        self._num_told = max(first, sum(end <= length for end in itertools.accumulate(map(len, pieces))))
        return [
            TokenAttribution(token, piece, _spread_share(share, self._plan.prior))
            for token, piece, share in list(zip(self._ids, pieces, self._shares, strict=True))[first : self._num_told]
        ]


def _distinct(hypotheses: Sequence[AnswerHypothesis]) -> list[AnswerHypothesis]:
    """The first of each raw text: different tokens, and samples, may say the same."""
    first: dict[str, AnswerHypothesis] = {}
    for each in hypotheses:
        first.setdefault(each.raw_text, each)
    return list(first.values())


def _spread_share(share: TokenShare, prior: PassagePrior) -> TokenShare:
    """A token's share, at the places of all passages; none stays none."""
    if not share.posteriors:
        return share
    return TokenShare(share.log_probability, tuple(prior.spread(share.posteriors, missing=0.0)))


def _spread_no_answer(no_answer: Sequence[float], prior: PassagePrior) -> Sequence[float]:
    """One for each passage; where one row reads them all (or there is none), it speaks for every one."""
    if len(no_answer) == 1:
        return [*no_answer] * max(1, prior.num_passages)
    return prior.spread(no_answer, missing=float("-inf")) if no_answer else ()
