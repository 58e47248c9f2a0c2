"""From a request's options to a decoding program: which search, over which rows, with which prior."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch, most_likely
from generator_service.decoding.program import Decoded, Program
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.decoding.sampling import sampler
from generator_service.decoding.search import Search
from generator_service.models.base import ModelSpec
from generator_service.options import Decoding
from generator_service.request import DecodingModel, Explanation, Passage
from generator_service.text import TextCodec


@dataclass(frozen=True, slots=True)
class PassagePrior:
    """The prior as used: `kept` are the indices of the passages that are read, `log_prior` (len(kept),) is theirs."""

    log_prior: Tensor
    kept: Sequence[int]
    pruned_mass: float
    num_passages: int

    @classmethod
    def of(cls, passages: Sequence[Passage], prune_prior_mass: float) -> "PassagePrior":
        """Normalises the passages' priors; drops those without any, and on request the least likely ones."""
        if not passages:
            return cls(marginal.normalize_log_prior([0.0]), (), 0.0, 0)
        log_prior = marginal.normalize_log_prior([passage.log_prior for passage in passages])
        kept, mass = marginal.prune(log_prior, prune_prior_mass)
        return cls(log_prior[kept].log_softmax(0), kept, mass, len(passages))

    def spread(self, values: Sequence[float], *, missing: float) -> list[float]:
        """Values of the kept passages, at the places of all passages."""
        spread = [missing] * self.num_passages
        for index, value in zip(self.kept, values, strict=False):
            spread[index] = value
        return spread


def build_program(
    rows: Sequence[Sequence[int]],
    prior: PassagePrior,
    decoding: Decoding,
    explanation: Explanation,
    *,
    spec: ModelSpec,
    codec: TextCodec,
) -> Program[Decoded]:
    """The program that decodes `rows` (one per kept passage) as asked."""
    if decoding.model is DecodingModel.RAG_SEQUENCE:
        search = _search(decoding, spec, codec, num_problems=len(rows))
        sequence_options = SequenceProgramOptions(
            num_beams=decoding.num_beams,
            num_hypotheses=decoding.num_hypotheses,
            is_thorough=decoding.is_thorough,
            leave_one_out=explanation.leave_one_out,
            token_shares=explanation.token_posteriors,
        )
        return RagSequence(rows, prior.log_prior, search, sequence_options)
    num_problems = decoding.num_rows if decoding.sampling is not None else 1
    token_options = TokenProgramOptions(
        num_rows=decoding.num_rows,
        num_hypotheses=decoding.num_hypotheses,
        fuses=decoding.model is DecodingModel.FUSION_IN_DECODER,
        leave_one_out=explanation.leave_one_out,
        token_shares=explanation.token_posteriors,
    )
    return RagToken(rows, prior.log_prior, _search(decoding, spec, codec, num_problems=num_problems), token_options)


def _search(decoding: Decoding, spec: ModelSpec, codec: TextCodec, *, num_problems: int) -> Search:
    constraints = Constraints(
        eos_token_id=spec.eos_token_id,
        max_new_tokens=decoding.max_new_tokens,
        min_new_tokens=decoding.min_new_tokens,
        no_repeat_ngram_size=decoding.no_repeat_ngram_size,
        bad_words=(*decoding.bad_word_ids, *codec.word_ids(decoding.bad_words)),
        forced_bos_token_id=spec.forced_bos_token_id,
        forced_eos_token_id=spec.forced_eos_token_id,
    )
    shared: dict[str, Any] = {
        "num_problems": num_problems,
        "start_token_id": spec.decoder_start_token_id,
        "constraints": constraints,
        "is_stopped": (lambda ids: codec.contains_stop(ids, decoding.stop)) if decoding.stop else None,
    }
    if decoding.num_beams == 1:
        choose = most_likely if decoding.sampling is None else sampler(decoding.sampling)
        return GreedySearch(choose=choose, **shared)
    options = BeamOptions(decoding.num_beams, decoding.length_penalty, decoding.early_stopping)
    return BeamSearch(options=options, **shared)
