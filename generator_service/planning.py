"""From a request's options to a decoding program: which search, over which rows, with which prior."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.forced_beam import ForcedBeamSearch
from generator_service.decoding.forced_words import ForcedWords
from generator_service.decoding.fused import Fused
from generator_service.decoding.greedy import GreedySearch, most_likely
from generator_service.decoding.leaving_out import LeavingOut, Marginal
from generator_service.decoding.plain_first import PlainFirst
from generator_service.decoding.program import Decoded, Program, TokenIds
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.decoding.sampling import sampler
from generator_service.decoding.search import Search, StopTest
from generator_service.models.base import ModelSpec
from generator_service.options import Decoding
from generator_service.request import DecodingModel, Explanation, Passage
from generator_service.text import TextCodec
from serving.errors import InvalidRequest


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
    rows: Sequence[TokenIds],
    prior: PassagePrior,
    decoding: Decoding,
    explanation: Explanation,
    *,
    spec: ModelSpec,
    codec: TextCodec,
    draft_tokens: int = 0,
) -> Program[Decoded]:
    """The program that decodes `rows` (one per kept passage) as asked; greedy search drafts up to `draft_tokens`.

    Raises:
        InvalidRequest: The forced words cannot be written within the limits.
    """
    recipe = _Recipe.of(decoding, spec, codec, draft_tokens=draft_tokens)
    if not explanation.leave_one_out or len(rows) < 2:
        return recipe.program(rows, prior.log_prior, token_shares=explanation.token_posteriors)
    program = recipe.program(
        rows,
        prior.log_prior,
        token_shares=explanation.token_posteriors,
        leave_one_out=recipe.knows_some_removals,
    )
    if recipe.knows_all_removals:
        return program

    def without(index: int) -> Program[Decoded]:
        others = [i for i in range(len(rows)) if i != index]
        return recipe.program([rows[i] for i in others], prior.log_prior[others].log_softmax(0))

    return LeavingOut(program, without, prior.log_prior, _COMBINE[decoding.model])


_COMBINE: Mapping[DecodingModel, Marginal | None] = {
    DecodingModel.RAG_SEQUENCE: lambda prior, log_probs: marginal.sequence_log_probability(prior, log_probs.sum(-1)),
    DecodingModel.RAG_TOKEN: marginal.token_log_probability,
    DecodingModel.FUSION_IN_DECODER: None,
}


@dataclass(frozen=True, slots=True)
class _Recipe:
    """How the programs of one request are made: for all its passages, and for all but one."""

    decoding: Decoding
    spec: ModelSpec
    constraints: Constraints
    forced: ForcedWords
    is_stopped: StopTest | None
    before_stop: Callable[[TokenIds], TokenIds]
    draft_tokens: int

    @classmethod
    def of(cls, decoding: Decoding, spec: ModelSpec, codec: TextCodec, *, draft_tokens: int) -> "_Recipe":
        constraints = Constraints(
            eos_token_id=spec.eos_token_id,
            max_new_tokens=decoding.max_new_tokens,
            min_new_tokens=decoding.min_new_tokens,
            no_repeat_ngram_size=decoding.no_repeat_ngram_size,
            bad_words=(*decoding.bad_word_ids, *codec.word_ids(decoding.bad_words)),
            forced_bos_token_id=spec.forced_bos_token_id,
            forced_eos_token_id=spec.forced_eos_token_id,
        )
        stop = decoding.stop
        return cls(
            decoding,
            spec,
            constraints,
            _forced_words(decoding.forced_words, constraints, codec),
            (lambda ids: codec.contains_stop(ids, stop)) if stop else None,
            lambda ids: codec.before_stop(ids, stop),
            draft_tokens,
        )

    @property
    def knows_some_removals(self) -> bool:
        """RAG-Token's greedy choice says which removals change it; forced words are beyond its knowledge."""
        is_greedy = self.decoding.model is DecodingModel.RAG_TOKEN and self.decoding.num_beams == 1
        return not self.forced.words and (is_greedy or self.decoding.model is DecodingModel.RAG_SEQUENCE)

    @property
    def knows_all_removals(self) -> bool:
        """RAG-Sequence searches each passage on its own, so ranking again without one is decoding again."""
        return not self.forced.words and self.decoding.model is DecodingModel.RAG_SEQUENCE

    def program(
        self, rows: Sequence[TokenIds], log_prior: Tensor, *, token_shares: bool = False, leave_one_out: bool = False
    ) -> Program[Decoded]:
        """Decodes some rows."""
        make = functools.partial(self._program, token_shares=token_shares, leave_one_out=leave_one_out)
        if self.decoding.model is DecodingModel.FUSION_IN_DECODER:
            return Fused(rows, make)
        return make(rows, log_prior)

    def _program(
        self, rows: Sequence[TokenIds], log_prior: Tensor, *, token_shares: bool, leave_one_out: bool
    ) -> Program[Decoded]:
        def decodes(beams: BeamOptions, forced: ForcedWords) -> Program[Decoded]:
            search = functools.partial(self._search, beams, forced)
            shared: dict[str, Any] = {"num_hypotheses": self.decoding.num_hypotheses, "token_shares": token_shares}
            if self.decoding.model is DecodingModel.RAG_SEQUENCE:
                options = SequenceProgramOptions(
                    num_beams=beams.num_beams,
                    is_thorough=self.decoding.is_thorough,
                    leave_one_out=leave_one_out,
                    **shared,
                )
                return RagSequence(rows, log_prior, search(num_problems=len(rows)), options)
            samples = self.decoding.num_hypotheses if self.decoding.sampling is not None else 1
            token_options = TokenProgramOptions(
                num_rows=max(beams.num_beams, samples),
                draft_tokens=self.draft_tokens,
                leave_one_out=leave_one_out,
                **shared,
            )
            return RagToken(rows, log_prior, search(num_problems=samples), token_options)

        decoding = self.decoding
        beams = BeamOptions(decoding.num_beams, decoding.length_penalty, decoding.early_stopping)
        plain = decodes(beams, ForcedWords())
        if not self.forced.words:
            return plain
        forced = decodes(decoding.forced_search, self.forced)
        return PlainFirst(plain, forced, lambda ids: self.forced.are_in(self.before_stop(ids)))

    def _search(self, beams: BeamOptions, forced: ForcedWords, *, num_problems: int) -> Search:
        shared: dict[str, Any] = {
            "num_problems": num_problems,
            "start_token_id": self.spec.decoder_start_token_id,
            "constraints": self.constraints,
            "is_stopped": self.is_stopped,
        }
        if forced.words:
            return ForcedBeamSearch(forced=forced, before_stop=self.before_stop, options=beams, **shared)
        if beams.num_beams == 1:
            sampling = self.decoding.sampling
            return GreedySearch(choose=most_likely if sampling is None else sampler(sampling), **shared)
        return BeamSearch(options=beams, **shared)


def _forced_words(words: Sequence[str], constraints: Constraints, codec: TextCodec) -> ForcedWords:
    """The words as tokens.

    Raises:
        InvalidRequest: The tokenizer cannot write one, or `max_new_tokens` cannot hold them all.
    """
    spellings = []
    for i, word in enumerate(words):
        found = codec.writable_ids(word)
        if not found:
            raise InvalidRequest(
                f"decoding.forced_words[{i}] has characters that the model's tokenizer cannot write",
                field=f"decoding.forced_words[{i}]",
            )
        spellings.append(found)
    forced = ForcedWords.of(spellings)
    room = constraints.max_new_tokens
    room -= sum(token is not None for token in (constraints.forced_bos_token_id, constraints.forced_eos_token_id))
    if forced.num_tokens > room:
        raise InvalidRequest(
            f"decoding.forced_words need {forced.num_tokens} tokens; "
            f"max_new_tokens {constraints.max_new_tokens} leaves room for {room}",
            field="decoding.forced_words",
            reason="TOO_LARGE",
        )
    return forced
