"""Constraints forbid what transformers' logits processors forbid; sampling shapes as its warpers do."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from transformers import (
    ForcedBOSTokenLogitsProcessor,
    ForcedEOSTokenLogitsProcessor,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from generator_service.decoding.constraints import Constraints
from generator_service.decoding.sampling import Sampling, sampler, shape

VOCAB, EOS = 9, 2


def oracle(constraints: Constraints) -> LogitsProcessorList:
    processors: list[Any] = []
    if constraints.no_repeat_ngram_size:
        processors.append(NoRepeatNGramLogitsProcessor(constraints.no_repeat_ngram_size))
    if constraints.bad_words:
        processors.append(NoBadWordsLogitsProcessor([list(word) for word in constraints.bad_words], EOS))
    if constraints.min_new_tokens:
        processors.append(MinNewTokensLengthLogitsProcessor(1, constraints.min_new_tokens, EOS))
    if constraints.forced_bos_token_id is not None:
        processors.append(ForcedBOSTokenLogitsProcessor(constraints.forced_bos_token_id))
    if constraints.forced_eos_token_id is not None:
        processors.append(
            ForcedEOSTokenLogitsProcessor(constraints.max_new_tokens + 1, constraints.forced_eos_token_id)
        )
    return LogitsProcessorList(processors)


@pytest.mark.parametrize("seed", range(60))
def test_the_same_tokens_are_forbidden_as_in_transformers(seed: int) -> None:
    source = random.Random(seed)
    words = tuple(
        tuple(source.randrange(VOCAB) for _ in range(source.randrange(1, 4))) for _ in range(source.randrange(4))
    )
    constraints = Constraints(
        eos_token_id=EOS,
        max_new_tokens=6,
        min_new_tokens=source.choice([0, 1, 3]),
        no_repeat_ngram_size=source.choice([0, 1, 2, 3]),
        bad_words=words,
        forced_bos_token_id=source.choice([None, None, 4]),
        forced_eos_token_id=source.choice([None, EOS]),
    )
    for length in range(6):
        prefixes = torch.tensor([[1, *(source.randrange(VOCAB) for _ in range(length))] for _ in range(4)])
        scores = torch.randn(4, VOCAB)
        torch.testing.assert_close(constraints.apply(scores, prefixes), oracle(constraints)(prefixes, scores.clone()))


def test_scores_without_an_active_constraint_are_passed_through() -> None:
    scores = torch.randn(2, VOCAB)
    constraints = Constraints(EOS, max_new_tokens=6, min_new_tokens=1)
    assert constraints.apply(scores, torch.tensor([[1, 5], [1, 6]])) is scores


@pytest.mark.parametrize("seed", range(10))
def test_sampling_shapes_the_distribution_as_transformers_does(seed: int) -> None:
    source = random.Random(seed)
    sampling = Sampling(source.uniform(0.5, 2), source.choice([0, 1, 3]), source.choice([0.3, 0.8, 1.0]))
    warpers: list[Any] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        warpers.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        warpers.append(TopPLogitsWarper(sampling.top_p))
    scores = torch.randn(5, VOCAB)
    torch.testing.assert_close(shape(scores, sampling), LogitsProcessorList(warpers)(None, scores))


def test_the_same_seed_draws_the_same_tokens_and_never_one_outside() -> None:
    scores = torch.zeros(200, VOCAB)
    scores[:, 4:] = -torch.inf
    first, second = (sampler(Sampling(seed=2**64 - 1))(scores) for _ in range(2))
    assert torch.equal(first, second)
    assert set(first.tolist()) == {0, 1, 2, 3}
