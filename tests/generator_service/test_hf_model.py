"""The transformers adapter keeps the promises of `Seq2SeqModel`."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from generator_service.models.base import EncodedRow, StepItem

FAMILIES = ["bart", "t5"]


def teacher_forced(reference: Any, tiny: Any, rows: list[list[int]], target: list[int]) -> torch.Tensor:
    """(N, U) by transformers' plain forward pass, one row at a time."""
    start = reference.config.decoder_start_token_id
    scores = []
    for row in rows:
        with torch.no_grad():
            logits = reference(
                input_ids=torch.tensor([row]), decoder_input_ids=torch.tensor([[start, *target[:-1]]])
            ).logits[0]
        scores.append(logits.log_softmax(-1)[range(len(target)), target])
    return torch.stack(scores)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_of_ragged_rows_and_targets_equal_the_plain_forward_pass(tiny: Any, family: str) -> None:
    reference = tiny.family(family, 1)
    model = tiny.adapt(reference)
    rows = tiny.rows(random.Random(1), 5)
    targets = [[7, 8, 9, 1], [11], [12, 13, 14, 15, 16, 17], [5, 5]]
    scores = model.score(model.encode(rows), targets)
    for target, score in zip(targets, scores, strict=True):
        assert score.dtype == torch.float32
        torch.testing.assert_close(score, teacher_forced(reference, tiny, rows, target), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_steps_with_reordered_growing_and_shrinking_beams_equal_teacher_forcing(tiny: Any, family: str) -> None:
    reference = tiny.family(family, 2)
    model = tiny.adapt(reference)
    source = random.Random(2)
    rows = tiny.rows(source, 3)
    state = model.open(model.encode(rows))
    start = model.spec.decoder_start_token_id
    prefixes = [[[] for _ in rows]]
    tokens = torch.full((1, 3), start)
    for beams in (1, 4, 4, 2, 3):
        logits = model.step([StepItem(state, tokens)])[0]
        assert logits.shape == (tokens.shape[0], 3, tiny.vocab)
        for k, row_prefixes in enumerate(prefixes):
            for n, prefix in enumerate(row_prefixes):
                expected = teacher_forced(reference, tiny, [rows[n]], [*prefix, 6])[0, -1]
                assert float(logits[k, n].log_softmax(-1)[6]) == pytest.approx(float(expected), abs=2e-4)
        parents = torch.tensor([[source.randrange(len(prefixes)) for _ in rows] for _ in range(beams)])
        tokens = torch.tensor([[source.randrange(5, tiny.vocab) for _ in rows] for _ in range(beams)])
        prefixes = [[[*prefixes[parents[k, n]][n], int(tokens[k, n])] for n in range(len(rows))] for k in range(beams)]
        model.reorder(state, parents)
        assert (state.num_beams, state.num_rows) == (beams, 3)
    assert state.position == 5


def test_joined_rows_are_one_row_for_fusion_in_decoder(tiny: Any) -> None:
    model = tiny.adapt(tiny.bart(3))
    encoded = model.encode(tiny.rows(random.Random(3), 2))
    joined = EncodedRow(torch.cat([row.states for row in encoded]))
    assert model.score([joined], [[5, 2]])[0].shape == (1, 2)


def test_encoding_does_not_depend_on_the_other_rows(tiny: Any) -> None:
    model = tiny.adapt(tiny.t5(4))
    rows = [[5] * 3, [6] * 12, [7], [8] * 11]
    for row, encoded in zip(rows, model.encode(rows), strict=True):
        assert encoded.states.shape[0] == len(row)
        torch.testing.assert_close(encoded.states, model.encode([row])[0].states, atol=1e-5, rtol=1e-5)
