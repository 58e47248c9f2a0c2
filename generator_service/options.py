"""Decoding options made whole: the request's, then the checkpoint's, then the defaults; combinations checked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generator_service.decoding.sampling import Sampling
from generator_service.limits import Limits
from generator_service.models.defaults import GenerationDefaults
from generator_service.request import DecodingModel, DecodingOptions, Explanation
from serving.errors import InvalidRequest, Unimplemented

DEFAULT_MAX_NEW_TOKENS = 64


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
    stop: Sequence[str]
    num_hypotheses: int
    sampling: Sampling | None
    prune_prior_mass: float

    @property
    def num_rows(self) -> int:
        """K: beams, or samples drawn side by side."""
        return self.num_hypotheses if self.sampling is not None else self.num_beams


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
        Unimplemented: One is not available here.
    """
    if options.unimplemented:
        raise Unimplemented(f"decoding.{options.unimplemented[0]} is not implemented by this generator")
    model = options.model or default_model
    max_new = _max_new_tokens(options, defaults, min(limits.max_new_tokens, max_target_tokens))
    num_beams = options.num_beams or min(default_num_beams or defaults.num_beams, limits.max_num_beams)
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
        stop=options.stop,
        num_hypotheses=options.num_return_sequences or 1,
        sampling=options.sampling,
        prune_prior_mass=options.prune_prior_mass,
    )
    _check_num_hypotheses(resolved, limits)
    return resolved


def check_explanation(explanation: Explanation, decoding: Decoding) -> None:
    """Refuses explanations that the way of decoding cannot give.

    Raises:
        InvalidRequest: It has no meaning there.
        Unimplemented: It is not available there.
    """
    one_row = decoding.model in (DecodingModel.FUSION_IN_DECODER, DecodingModel.CLOSED_BOOK)
    if explanation.token_posteriors and one_row:
        raise InvalidRequest(
            f"{decoding.model.value} has no posteriors per token", field="explanation.token_posteriors"
        )
    if not explanation.leave_one_out:
        return
    if one_row:
        raise Unimplemented(f"explanation.leave_one_out with {decoding.model.value}")
    if decoding.sampling is not None:
        raise InvalidRequest("explanation.leave_one_out needs decoding without sampling", field="decoding.sampling")
    if decoding.model is DecodingModel.RAG_TOKEN and decoding.num_beams > 1:
        raise Unimplemented("explanation.leave_one_out with RAG_TOKEN beam search; num_beams = 1 has it")


def _check_sampling(options: DecodingOptions, model: DecodingModel) -> int:
    if model is DecodingModel.RAG_SEQUENCE:
        raise InvalidRequest("decoding.sampling is not defined for RAG_SEQUENCE", field="decoding.sampling")
    if options.num_beams > 1:
        raise InvalidRequest("decoding.sampling and num_beams > 1 exclude each other", field="decoding.sampling")
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
