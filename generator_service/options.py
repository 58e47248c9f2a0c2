"""Decoding options made whole: the request's, then the checkpoint's, then the defaults; combinations checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generator_service.decoding.beam import BeamOptions
from generator_service.decoding.sampling import Sampling
from generator_service.limits import Limits
from generator_service.models.defaults import GenerationDefaults
from generator_service.request import DecodingModel, DecodingOptions, Explanation
from serving.errors import InvalidRequest

DEFAULT_MAX_NEW_TOKENS = 64
_FORCED_BEAMS = 4
"""Beams of a search for forced words where the request or the checkpoint is greedy: one beam has nothing to trade."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """Options with nothing left open."""

    model: DecodingModel
    is_thorough: bool
    num_beams: int
    max_new_tokens: int
    min_new_tokens: int
    length_penalty: float
    early_stopping: bool | Literal["never"]
    no_repeat_ngram_size: int
    bad_words: Sequence[str]
    bad_word_ids: tuple[tuple[int, ...], ...]
    forced_words: Sequence[str]
    forced_search: BeamOptions
    stop: Sequence[str]
    num_hypotheses: int
    are_candidates: bool
    sampling: Sampling | None
    prune_prior_mass: float


def resolve(
    options: DecodingOptions,
    defaults: GenerationDefaults,
    limits: Limits,
    *,
    max_target_tokens: int,
    default_model: DecodingModel,
    default_num_beams: int | None = None,
) -> Decoding:
    """Completes the options.

    Args:
        options: Within their ranges.
        defaults: The checkpoint's.
        limits: The server's.
        max_target_tokens: The longest answer that the model can decode.
        default_model: Where the request names none.
        default_num_beams: Instead of the checkpoint's; streaming prefers greedy, whose tokens are certain.

    Raises:
        InvalidRequest: The options contradict each other.
    """
    model = options.model or default_model
    max_new = _max_new_tokens(options, defaults, min(limits.max_new_tokens, max_target_tokens))
    num_beams = options.num_beams or min(default_num_beams or defaults.num_beams, limits.max_num_beams)
    num_beams = max(num_beams, options.num_candidates or 0)
    if options.sampling is not None:
        num_beams = _check_sampling(options, model)
    resolved = Decoding(
        model=model,
        is_thorough=not options.is_fast,
        num_beams=num_beams,
        max_new_tokens=max_new,
        min_new_tokens=_min_new_tokens(options, defaults, max_new),
        length_penalty=defaults.length_penalty if options.length_penalty is None else options.length_penalty,
        early_stopping=options.early_stopping or defaults.early_stopping,
        no_repeat_ngram_size=options.no_repeat_ngram_size or defaults.no_repeat_ngram_size,
        bad_words=options.bad_words,
        bad_word_ids=defaults.bad_words,
        forced_words=options.forced_words,
        forced_search=_forced_search(options, num_beams, limits),
        stop=options.stop,
        num_hypotheses=max(options.num_return_sequences or 1, options.num_candidates or 1),
        are_candidates=options.num_candidates is not None,
        sampling=options.sampling,
        prune_prior_mass=options.prune_prior_mass,
    )
    _check_num_hypotheses(resolved, limits)
    return resolved


def check_explanation(explanation: Explanation, decoding: Decoding) -> None:
    """Refuses explanations that the way of decoding cannot give.

    Raises:
        InvalidRequest: It has no meaning there.
    """
    one_row = decoding.model in (DecodingModel.FUSION_IN_DECODER, DecodingModel.CLOSED_BOOK)
    if explanation.token_posteriors and one_row:
        raise InvalidRequest(
            f"{decoding.model.value} has no posteriors per token", field="explanation.token_posteriors"
        )
    if not explanation.leave_one_out:
        return
    if decoding.model is DecodingModel.CLOSED_BOOK:
        raise InvalidRequest(
            "CLOSED_BOOK reads no passages: there is none to leave out", field="explanation.leave_one_out"
        )
    if decoding.sampling is not None:
        raise InvalidRequest("explanation.leave_one_out needs decoding without sampling", field="decoding.sampling")


def _forced_search(options: DecodingOptions, num_beams: int, limits: Limits) -> BeamOptions:
    """How to search for forced words: by log p(y|x) unless the request sets a length penalty.

    A word that fits badly costs much; divided by the length it would be paid off with a long tail.
    """
    beams = num_beams if num_beams > 1 else min(_FORCED_BEAMS, limits.max_num_beams)
    return BeamOptions(beams, options.length_penalty or 0.0, options.early_stopping)


def _check_sampling(options: DecodingOptions, model: DecodingModel) -> int:
    if model is DecodingModel.RAG_SEQUENCE:
        raise InvalidRequest("decoding.sampling is not defined for RAG_SEQUENCE", field="decoding.sampling")
    if options.num_beams > 1:
        raise InvalidRequest("decoding.sampling and num_beams > 1 exclude each other", field="decoding.sampling")
    if options.forced_words:
        raise InvalidRequest(
            "decoding.forced_words needs a search; leave decoding.sampling out", field="decoding.forced_words"
        )
    return 1


def _max_new_tokens(options: DecodingOptions, defaults: GenerationDefaults, longest: int) -> int:
    if options.max_new_tokens > longest:
        raise InvalidRequest(
            f"decoding.max_new_tokens is {options.max_new_tokens}; the loaded model decodes at most {longest}",
            field="decoding.max_new_tokens",
            reason="OUT_OF_RANGE",
        )
    return options.max_new_tokens or min(defaults.max_new_tokens or DEFAULT_MAX_NEW_TOKENS, longest)


def _check_num_hypotheses(decoding: Decoding, limits: Limits) -> None:
    most = limits.max_num_beams if decoding.sampling is not None else decoding.num_beams
    if decoding.num_hypotheses > most:
        raise InvalidRequest(
            f"decoding.num_return_sequences is {decoding.num_hypotheses}; it must be from 1 to {most}",
            field="decoding.num_return_sequences",
            reason="OUT_OF_RANGE",
        )


def _min_new_tokens(options: DecodingOptions, defaults: GenerationDefaults, max_new: int) -> int:
    if options.min_new_tokens is None:
        return min(defaults.min_new_tokens, max_new)
    if options.min_new_tokens > max_new:
        raise InvalidRequest(
            f"decoding.min_new_tokens is {options.min_new_tokens}, above max_new_tokens {max_new}",
            field="decoding.min_new_tokens",
            reason="OUT_OF_RANGE",
        )
    return options.min_new_tokens
