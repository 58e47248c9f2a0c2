"""Our decoding returns what transformers' RAG models return, over the same tiny random weights.

Reference tests 1 to 5 of the RAG formulas; transformers is the oracle.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.given import ScoreGiven
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions

FAMILIES = ["bart", "t5"]


def constraints_of(model: Any, **fields: Any) -> Constraints:
    spec = model.spec
    pad = (spec.pad_token_id,)  # random weights would choose it, and transformers does not count it
    fields = {"max_new_tokens": 7, **fields, "bad_words": (pad, *fields.pop("bad_words", ()))}
    return Constraints(
        spec.eos_token_id,
        forced_bos_token_id=spec.forced_bos_token_id,
        forced_eos_token_id=spec.forced_eos_token_id,
        **fields,
    )


def search_of(model: Any, problems: int, beams: int, constraints: Constraints, **options: Any) -> Any:
    start = model.spec.decoder_start_token_id
    if beams == 1:
        return GreedySearch(num_problems=problems, start_token_id=start, constraints=constraints)
    return BeamSearch(
        num_problems=problems, start_token_id=start, options=BeamOptions(beams, **options), constraints=constraints
    )


def token_program(model: Any, rows: Any, scores: Any, beams: int, constraints: Constraints, **options: Any) -> RagToken:
    search = search_of(model, 1, beams, constraints, **options)
    return RagToken(rows, marginal.normalize_log_prior(scores), search, TokenProgramOptions(beams, beams))


def sequence_program(
    model: Any, rows: Any, scores: Any, beams: int, constraints: Constraints, *, thorough: bool = True, **options: Any
) -> RagSequence:
    search = search_of(model, len(rows), beams, constraints, **options)
    kept = SequenceProgramOptions(beams, 100, thorough)
    return RagSequence(rows, marginal.normalize_log_prior(scores), search, kept)


def stripped(ids: Any, model: Any) -> tuple[int, ...]:
    """New tokens of a transformers output: without start and what follows the first end-of-sequence."""
    new = ids.tolist()[1:]
    eos = model.spec.eos_token_id
    return tuple(new[: new.index(eos) + 1] if eos in new else [t for t in new if t != model.spec.pad_token_id])


def random_options(source: random.Random) -> tuple[dict[str, Any], dict[str, Any]]:
    """Beam options, constraints: often the defaults."""
    beam = {"length_penalty": source.choice([1.0, 1.0, 0.0, 2.0, -1.0]), "early_stopping": source.choice([False, True])}
    bounds = {
        "max_new_tokens": source.choice([1, 4, 7]),
        "no_repeat_ngram_size": source.choice([0, 0, 1, 2, 3]),
        "min_new_tokens": source.choice([0, 0, 1, 3]),
    }
    bounds["min_new_tokens"] = min(bounds["min_new_tokens"], bounds["max_new_tokens"])
    return beam, bounds


def hf_options(model: Any, beams: int, beam: dict[str, Any], bounds: dict[str, Any], words: Any = ()) -> dict[str, Any]:
    bad_words = [[model.spec.pad_token_id], *map(list, words)]
    options = {"num_beams": beams, "do_sample": False, "min_length": 0, "bad_words_ids": bad_words, **bounds}
    if beams > 1:
        options.update(beam)
    return options


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(42))
def test_rag_token_ids_equal_transformers(tiny: Any, family: str, seed: int) -> None:
    source = random.Random(seed)
    num_docs, beams = source.randrange(1, 6), source.randrange(1, 6)
    forced = {"forced_eos_token_id": 2} if family == "bart" and seed % 5 == 0 else {}
    reference = tiny.family(family, seed, **forced)
    model = tiny.adapt(reference)
    rows = tiny.rows(source, num_docs)
    scores = [source.gauss(0, 2) for _ in rows]
    beam, bounds = random_options(source)
    words = ((7,), (8, 9)) if forced else ()
    ids, mask = tiny.padded(rows, model.spec.pad_token_id)
    expected = tiny.rag(reference, num_docs, per_token=True).generate(
        max_length=bounds["max_new_tokens"] + 1,  # all that this one of transformers' generate methods reads
        context_input_ids=ids,
        context_attention_mask=mask,
        doc_scores=torch.tensor([scores]),
        n_docs=num_docs,
        **forced,
        **hf_options(model, beams, beam, {key: bounds[key] for key in bounds if key != "max_new_tokens"}, words),
    )
    constraints = constraints_of(model, bad_words=words, **bounds)
    decoded = tiny.run(model, token_program(model, rows, scores, beams, constraints, **beam if beams > 1 else {}))
    assert decoded.hypotheses[0].token_ids == stripped(expected[0], model)


def loss_of(peer: Any, arguments: dict[str, Any], model: Any, ids: Any, **options: Any) -> float:
    labels = torch.tensor([[model.spec.decoder_start_token_id, *ids]])
    with torch.no_grad():
        return float(peer(**arguments, labels=labels, **options).loss)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(20))
def test_rag_sequence_thorough_ids_and_scores_equal_transformers(tiny: Any, family: str, seed: int) -> None:
    source = random.Random(1000 + seed)
    num_docs, beams = source.randrange(1, 5), source.randrange(1, 5)
    reference = tiny.family(family, seed)
    model = tiny.adapt(reference)
    # transformers' generate attends to padding here, so rows of one length.
    rows = [[source.randrange(5, tiny.vocab) for _ in range(7)] for _ in range(num_docs)]
    scores = [source.gauss(0, 2) for _ in rows]
    beam, bounds = random_options(source)
    bounds = {**bounds, "min_new_tokens": 2, "max_new_tokens": 7}  # transformers drops the prior of one-token targets
    ids, mask = tiny.padded(rows, model.spec.pad_token_id)
    peer = tiny.rag(reference, num_docs, per_token=False)
    arguments = {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": torch.tensor([scores])}
    expected = peer.generate(**arguments, n_docs=num_docs, **hf_options(model, beams, beam, bounds))
    constraints = constraints_of(model, **bounds)
    decoded = tiny.run(model, sequence_program(model, rows, scores, beams, constraints, **beam if beams > 1 else {}))
    assert decoded.hypotheses[0].token_ids == stripped(expected[0], model)
    for hypothesis in decoded.hypotheses:
        loss = loss_of(peer, arguments, model, hypothesis.token_ids, exclude_bos_score=False)
        assert hypothesis.log_probability == pytest.approx(-loss, abs=5e-4)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(12))
def test_rag_sequence_of_ragged_passages_equals_the_beams_and_losses_of_transformers(
    tiny: Any, family: str, seed: int
) -> None:
    source = random.Random(4000 + seed)
    num_docs, beams = source.randrange(2, 5), source.randrange(1, 5)
    reference = tiny.family(family, seed)
    model = tiny.adapt(reference)
    rows = tiny.rows(source, num_docs)
    scores = [source.gauss(0, 2) for _ in rows]
    beam, bounds = random_options(source)
    bounds = {**bounds, "min_new_tokens": 2, "max_new_tokens": 7}
    ids, mask = tiny.padded(rows, model.spec.pad_token_id)
    options = hf_options(model, beams, beam, bounds)
    generated = reference.generate(ids, attention_mask=mask, num_return_sequences=beams, **options)
    candidates = {stripped(each, model) for each in generated}
    constraints = constraints_of(model, **bounds)
    decoded = tiny.run(model, sequence_program(model, rows, scores, beams, constraints, **beam if beams > 1 else {}))
    assert {each.token_ids for each in decoded.hypotheses} == candidates
    peer = tiny.rag(reference, num_docs, per_token=False)
    arguments = {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": torch.tensor([scores])}
    losses = [loss_of(peer, arguments, model, each.token_ids) for each in decoded.hypotheses]
    assert [each.log_probability for each in decoded.hypotheses] == pytest.approx([-loss for loss in losses], abs=5e-4)
    assert losses == pytest.approx(sorted(losses), abs=5e-4)


@pytest.mark.parametrize("seed", range(4))
def test_a_forced_first_token_does_not_count(tiny: Any, seed: int) -> None:
    source = random.Random(2000 + seed)
    reference = tiny.bart(seed)
    reference.generation_config.forced_bos_token_id = 0
    model = tiny.adapt(reference)
    rows = [[source.randrange(5, tiny.vocab) for _ in range(7)] for _ in range(3)]
    scores = [source.gauss(0, 2) for _ in rows]
    ids, mask = tiny.padded(rows, model.spec.pad_token_id)
    arguments = {"context_input_ids": ids, "context_attention_mask": mask, "doc_scores": torch.tensor([scores])}
    peer = tiny.rag(reference, 3, per_token=False, bos=0)
    bounds = {"min_new_tokens": 3, "max_new_tokens": 8}
    expected = peer.generate(**arguments, **hf_options(model, 3, {}, bounds))
    constraints = constraints_of(model, **bounds)
    best = tiny.run(model, sequence_program(model, rows, scores, 3, constraints)).hypotheses[0]
    assert best.token_ids == stripped(expected[0], model)
    assert best.token_ids[0] == 0
    loss = loss_of(peer, arguments, model, best.token_ids, exclude_bos_score=True)
    assert best.log_probability == pytest.approx(-loss, abs=5e-4)


@pytest.mark.parametrize("per_token", [True, False])
@pytest.mark.parametrize("num_docs", range(1, 6))
def test_given_answers_score_as_the_loss_of_transformers(tiny: Any, num_docs: int, per_token: bool) -> None:
    source = random.Random(num_docs)
    reference = tiny.bart(num_docs)
    model = tiny.adapt(reference)
    rows = tiny.rows(source, num_docs)
    scores = [source.gauss(0, 3) for _ in rows]
    targets = [[9, 12, 2], [7, 8, 9, 10, 11, 2], [20, 2]]
    prior = marginal.normalize_log_prior(scores)
    given = tiny.run(model, ScoreGiven(rows, prior, targets, per_token=per_token))
    ids, mask = tiny.padded(rows, 1)
    peer = tiny.rag(reference, num_docs, per_token=per_token)
    width = max(len(target) for target in targets)
    labels = torch.tensor([[2, *target] + [1] * (width - len(target)) for target in targets])
    with torch.no_grad():
        loss = peer(
            context_input_ids=ids.repeat(3, 1),
            context_attention_mask=mask.repeat(3, 1),
            doc_scores=torch.tensor([scores] * 3),
            labels=labels,
            n_docs=num_docs,
        ).loss
    for answer, expected in zip(given, loss.tolist(), strict=True):
        assert answer.log_probability == pytest.approx(-expected, abs=5e-4)
        assert sum(share.log_probability for share in answer.shares) == pytest.approx(-expected, abs=5e-4)
        assert sum(answer.posteriors) == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("seed", range(6))
def test_one_passage_is_plain_sequence_to_sequence(tiny: Any, family: str, seed: int) -> None:
    source = random.Random(3000 + seed)
    beams = source.randrange(1, 5)
    reference = tiny.family(family, seed)
    model = tiny.adapt(reference)
    rows = tiny.rows(source, 1)
    constraints = constraints_of(model)
    expected = reference.generate(
        torch.tensor(rows), num_return_sequences=beams, **hf_options(model, beams, {}, {"max_new_tokens": 7})
    )
    plain = [stripped(ids, model) for ids in expected]
    token = tiny.run(model, token_program(model, rows, [3.0], beams, constraints))
    assert [each.token_ids for each in token.hypotheses] == plain
    sequence = tiny.run(model, sequence_program(model, rows, [3.0], beams, constraints))
    assert {each.token_ids for each in sequence.hypotheses} == set(plain)
    for each in sequence.hypotheses:
        scored = model.score(model.encode(rows), [each.token_ids])[0].sum()
        assert each.log_probability == pytest.approx(float(scored), abs=5e-4)
