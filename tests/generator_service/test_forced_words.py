"""Forced words occur in every answer, at the exact probability, and change nothing where they occur anyway."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generator_service.decoding import marginal
from generator_service.decoding.beam import BeamOptions, BeamSearch
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.forced_beam import ForcedBeamSearch
from generator_service.decoding.forced_words import ForcedWords
from generator_service.decoding.fused import Fused
from generator_service.decoding.given import ScoreGiven
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.plain_first import PlainFirst
from generator_service.decoding.rag_sequence import RagSequence, SequenceProgramOptions
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.limits import Limits
from generator_service.models.defaults import GenerationDefaults
from generator_service.options import resolve
from generator_service.request import DecodingModel, DecodingOptions
from tests.generator_service.every_answer import every_answer

VOCAB, EOS = 12, 2
tokens = st.integers(3, VOCAB - 1)
spellings = st.lists(st.lists(tokens, min_size=1, max_size=3).map(tuple), min_size=1, max_size=2).map(tuple)
"""One word: one or two ways to write it."""


def contains(ids: Any, words: Any) -> bool:
    text = ",".join(map(str, ["", *ids, ""]))
    return all(any(f",{','.join(map(str, each))}," in text for each in word) for word in words)


def decodes(
    rows: Any, kind: str, *, beams: int, constraints: Constraints, words: Any = (), is_stopped: Any = None,
    penalty: float = 1.0, before_stop: Any = None,
) -> Any:  # fmt: skip
    shared: Any = {
        "num_problems": len(rows) if kind == "sequence" else 1, "start_token_id": 1, "constraints": constraints,
        "is_stopped": is_stopped,
    }  # fmt: skip
    options = BeamOptions(beams, penalty)
    if words:
        search: Any = ForcedBeamSearch(forced=ForcedWords.of(words), before_stop=before_stop, options=options, **shared)
    else:
        search = GreedySearch(**shared) if beams == 1 else BeamSearch(options=options, **shared)
    prior = marginal.normalize_log_prior([-0.3 * i for i in range(len(rows))])
    if kind == "sequence":
        return RagSequence(rows, prior, search, SequenceProgramOptions(beams, 99))
    if kind == "fusion":
        return Fused(rows, lambda row, sure: RagToken(row, sure, search, TokenProgramOptions(beams, beams)))
    return RagToken(rows, prior, search, TokenProgramOptions(beams, beams))


def log_probability(tiny: Any, model: Any, rows: Any, kind: str, ids: Any) -> float:
    if kind == "fusion":
        rows = [[token for row in rows for token in row]]
    prior = marginal.normalize_log_prior([-0.3 * i for i in range(len(rows))])
    (score,) = tiny.run(model, ScoreGiven(rows, prior, [ids], per_token=kind != "sequence"))
    return float(score.log_probability)


@pytest.mark.parametrize("kind", ["token", "sequence", "fusion"])
@settings(max_examples=40, deadline=None)
@given(
    words=st.lists(spellings, min_size=1, max_size=3), beams=st.integers(1, 5), seed=st.integers(0, 99),
    room=st.integers(0, 5), forced_eos=st.booleans(), min_new_tokens=st.integers(0, 4),
)  # fmt: skip
def test_every_answer_contains_every_word_at_its_exact_probability(
    tiny: Any, kind: str, words: Any, beams: int, seed: int, room: int, forced_eos: bool, min_new_tokens: int
) -> None:
    source = random.Random(seed)
    rows = tiny.rows(source, source.randrange(1, 4), vocab_size=VOCAB)
    length = ForcedWords.of(words).num_tokens + forced_eos + room
    constraints = Constraints(
        EOS, max_new_tokens=length, min_new_tokens=min(min_new_tokens, length),
        forced_eos_token_id=EOS if forced_eos else None,
    )  # fmt: skip
    model = tiny.fake()
    decoded = tiny.run(model, decodes(rows, kind, beams=beams, constraints=constraints, words=words))
    assert decoded.hypotheses
    for each in decoded.hypotheses:
        assert contains(each.token_ids, words)
        assert len(each.token_ids) <= length
        assert EOS not in each.token_ids[:-1]
        exact = log_probability(tiny, model, rows, kind, each.token_ids)
        assert each.log_probability == pytest.approx(exact, abs=1e-4)
    assert len({each.token_ids for each in decoded.hypotheses}) == len(decoded.hypotheses)


@pytest.mark.parametrize("words", [[((3,),)], [((3, 4),)], [((4,), (3, 0))], [((3,),), ((4,), (0, 0))]])
def test_with_enough_beams_the_best_answer_with_the_words_is_found(tiny: Any, words: Any) -> None:
    model = tiny.fake(vocab_size=5)
    rows = [[3, 4], [1, 3, 3]]
    answers = [each for each in every_answer(5, EOS, 4) if contains(each, words)]
    for kind in ("token", "sequence"):
        prior = marginal.normalize_log_prior([-0.3 * i for i in range(len(rows))])
        scores = tiny.run(model, ScoreGiven(rows, prior, answers, per_token=kind == "token"))
        best = max(range(len(answers)), key=lambda i: scores[i].log_probability)
        program = decodes(
            rows, kind, beams=400, constraints=Constraints(EOS, max_new_tokens=4), words=words, penalty=0.0
        )
        decoded = tiny.run(model, program)
        assert decoded.hypotheses[0].token_ids == answers[best]
        assert decoded.hypotheses[0].log_probability == pytest.approx(scores[best].log_probability, abs=1e-4)


@pytest.mark.parametrize("kind", ["token", "sequence", "fusion"])
@pytest.mark.parametrize("beams", [1, 3])
def test_words_that_occur_anyway_leave_the_answer_as_it_is(tiny: Any, kind: str, beams: int) -> None:
    for seed in range(10):
        source = random.Random(seed)
        rows = tiny.rows(source, 2, vocab_size=VOCAB)
        constraints = Constraints(EOS, max_new_tokens=8, min_new_tokens=4)
        plain = tiny.run(tiny.fake(), decodes(rows, kind, beams=beams, constraints=constraints))
        ids = plain.hypotheses[0].token_ids
        start = source.randrange(3)
        words = ((ids[start : start + 2],),)

        def both(wanted: Any, rows: Any = rows, constraints: Any = constraints) -> Any:
            forced = ForcedWords.of(wanted)
            free = decodes(rows, kind, beams=beams, constraints=constraints)
            bound = decodes(rows, kind, beams=3, constraints=constraints, words=wanted)
            return tiny.run(tiny.fake(), PlainFirst(free, bound, forced.are_in))

        kept = both(words)
        assert kept.hypotheses[0] == plain.hypotheses[0]
        assert all(contains(each.token_ids, words) for each in kept.hypotheses)
        missing = next(token for token in range(3, VOCAB) if token not in ids)
        changed = both((((missing,),),))
        assert all(missing in each.token_ids for each in changed.hypotheses)


def test_a_word_inside_the_stop_string_does_not_count(tiny: Any) -> None:
    word, stop = 7, (7, 7)

    def before_stop(ids: Any) -> Any:
        ends = [i for i in range(len(ids)) if tuple(ids[i : i + 2]) == stop]
        return ids[: ends[0]] if ends else ids

    for seed in range(40):
        rows = tiny.rows(random.Random(seed), 2, vocab_size=VOCAB)
        constraints = Constraints(EOS, max_new_tokens=6)
        program = decodes(
            rows, "token", beams=3, constraints=constraints, words=[((word,),)],
            is_stopped=lambda ids: before_stop(ids) != ids, before_stop=before_stop,
        )  # fmt: skip
        for each in tiny.run(tiny.fake(), program).hypotheses:
            assert word in before_stop(each.token_ids)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(spellings, min_size=1, max_size=3), ids=st.lists(tokens, max_size=12))
def test_what_is_missing_is_counted_as_the_tokens_come(words: Any, ids: Any) -> None:
    forced = ForcedWords.of(words)
    present: frozenset[int] = frozenset()
    for end in range(1, len(ids) + 1):
        present = forced.present_after(present, ids[:end])
        missing = forced.num_missing(present, ids[:end])
        assert (missing == 0) == contains(ids[:end], words) == forced.are_in(ids[:end])
        assert 0 <= missing <= forced.num_tokens
        for token in forced.next_tokens(present, ids[:end]):
            longer = [*ids[:end], token]
            after = forced.num_missing(forced.present_after(present, longer), longer)
            assert after <= forced.num_tokens
        if missing:
            nearer = [[*ids[:end], token] for token in forced.next_tokens(present, ids[:end])]
            assert missing - 1 >= min(
                forced.num_missing(forced.present_after(present, longer), longer) for longer in nearer
            )


def test_a_search_for_forced_words_ranks_by_probability_unless_a_length_penalty_is_asked_for() -> None:
    def search(**options: Any) -> BeamOptions:
        defaults = GenerationDefaults(num_beams=1, length_penalty=1.0)
        asked = DecodingOptions(forced_words=["x"], **options)
        model = DecodingModel.RAG_TOKEN
        return resolve(asked, defaults, Limits(), max_target_tokens=60, default_model=model).forced_search

    assert search() == BeamOptions(num_beams=4, length_penalty=0.0)
    assert search(num_beams=1, length_penalty=0.5) == BeamOptions(num_beams=4, length_penalty=0.5)
    assert search(num_beams=2) == BeamOptions(num_beams=2, length_penalty=0.0)


def test_a_word_inside_another_is_not_counted_twice() -> None:
    assert ForcedWords.of([((3,),), ((4, 3), (5, 3))]).num_tokens == 2
    assert ForcedWords.of([((3,),), ((4, 3), (5, 6))]).num_tokens == 3
    assert ForcedWords.of([((3,),), ((3,),)]).num_tokens == 1
