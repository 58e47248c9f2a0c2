"""Drafts come from the inputs, stop where they do not help, and change nothing but the number of steps."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from generator_service.config import GeneratorConfig
from generator_service.decoding import marginal
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.fused import Fused
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.program import Decoded, Program
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.decoding.sampling import Sampling, sampler
from generator_service.decoding.speculation import LookupDrafter
from generator_service.models import lean


def test_a_draft_is_what_follows_the_last_token_in_an_input() -> None:
    assert LookupDrafter([[1, 2], [5, 6, 7, 8]], max_tokens=4).draft([9, 6], room=9) == [7, 8]


def test_the_longest_match_decides() -> None:
    drafter = LookupDrafter([[3, 6, 1, 1], [5, 6, 7, 8]], max_tokens=4)
    assert drafter.draft([5, 6], room=9) == [7, 8]
    assert drafter.draft([3, 6], room=9) == [1, 1]


def test_matches_that_disagree_give_what_they_agree_on() -> None:
    drafter = LookupDrafter([[5, 6, 7, 8], [5, 6, 7, 9], [5, 6, 7, 8]], max_tokens=4)
    drafter.record(2, 2)
    assert drafter.draft([5], room=9) == [6, 7]
    assert drafter.draft([7], room=9) == []


def test_a_draft_never_runs_from_one_input_into_the_next() -> None:
    drafter = LookupDrafter([[5, 6], [7, 8]], max_tokens=4)
    assert drafter.draft([5], room=9) == [6]
    assert drafter.draft([6], room=9) == []
    assert drafter.draft([8], room=9) == []


@pytest.mark.parametrize(("room", "expected"), [(9, [6, 7]), (1, [6]), (0, []), (-1, [])])
def test_a_draft_keeps_to_the_room_there_is(room: int, expected: list[int]) -> None:
    assert LookupDrafter([[5, 6, 7, 8]], max_tokens=2).draft([5], room=room) == expected


def test_nothing_is_drafted_before_the_first_token_or_without_a_match() -> None:
    drafter = LookupDrafter([[5, 6]], max_tokens=2)
    assert drafter.draft([], room=9) == []
    assert drafter.draft([4], room=9) == []


def test_drafts_lengthen_while_they_come_true_and_end_when_they_do_not() -> None:
    drafter = LookupDrafter([list(range(20))], max_tokens=6)
    lengths = []
    for _ in range(3):
        lengths.append(len(drafter.draft([3], room=99)))
        drafter.record(lengths[-1], lengths[-1])
    assert lengths == [2, 4, 6]
    wasted = 0
    while draft := drafter.draft([3], room=99):
        wasted += len(draft)
        drafter.record(len(draft), 0)
    assert wasted == 12


def copying(tiny: Any) -> Any:
    """A fake model that likes to go on as its row goes on."""

    class Copying(tiny.fake):  # type: ignore[misc]
        def open(self, rows: Any, *, num_beams: int = 1) -> Any:
            self.following: dict[int, dict[int, int]] = getattr(self, "following", {})
            for row in rows:
                tokens = row.states[:, 0].long().tolist()
                self.following[self._seed(row)] = dict(itertools.pairwise(tokens))
            return super().open(rows, num_beams=num_beams)

        def _logits(self, seeds: list[int], tokens: torch.Tensor, position: int) -> torch.Tensor:
            logits: torch.Tensor = super()._logits(seeds, tokens, position).clone()
            for k, n in torch.cartesian_prod(*map(torch.arange, tokens.shape)).tolist():
                following = self.following[seeds[n]].get(int(tokens[k, n]))
                if following is not None:
                    logits[k, n, following] += 8.0
            return logits

    return Copying(vocab_size=20)


def case(seed: int, vocabulary: int, eos: int) -> Any:
    """A request's make-up: everything random but the draft length."""
    source = random.Random(seed)
    phrase = [source.randrange(3, vocabulary) for _ in range(8)]
    rows = [
        [*(source.randrange(3, vocabulary) for _ in range(source.randrange(5))), *phrase[source.randrange(3) :]]
        for _ in range(source.randrange(1, 5))
    ]
    longest = source.randrange(1, 16)
    constraints = Constraints(
        eos,
        max_new_tokens=longest,
        min_new_tokens=source.choice([0, 0, min(6, longest)]),
        no_repeat_ngram_size=source.choice([0, 0, 2, 3]),
        bad_words=source.choice([(), ((phrase[3],), (phrase[4], phrase[5]))]),
        forced_eos_token_id=source.choice([None, eos]),
    )
    stop = source.choice([None, lambda ids: len(ids) > 2 and (ids[-1] + ids[-2]) % 5 == 0])
    prior = marginal.normalize_log_prior([source.gauss(0, 1) for _ in rows])
    fuses = source.random() < 0.2
    leave_one_out = source.random() < 0.5 and not fuses

    def program(draft_tokens: int, start: int) -> Program[Decoded]:
        search = GreedySearch(num_problems=1, start_token_id=start, constraints=constraints, is_stopped=stop)
        options = TokenProgramOptions(leave_one_out=leave_one_out, token_shares=True, draft_tokens=draft_tokens)
        if fuses:
            return Fused(rows, lambda row, sure: RagToken(row, sure, search, options))
        return RagToken(rows, prior, search, options)

    return program


def run(model: Any, programs: list[Program[Decoded]]) -> list[tuple[Any, list[Any]]]:
    """Each program's result and what it emitted, all stepped together."""
    emitted: list[list[Any]] = [[] for _ in programs]
    for program in programs:
        program.start(model, model.encode(program.rows))
    while running := [i for i, program in enumerate(programs) if not program.is_done]:
        logits = model.step([programs[i].items()[0] for i in running])
        for i, each in zip(running, logits, strict=True):
            emitted[i].extend(programs[i].advance([each]))
    return [(program.finish(), tokens) for program, tokens in zip(programs, emitted, strict=True)]


def test_results_and_emitted_tokens_are_those_of_plain_decoding_in_fewer_steps(tiny: Any) -> None:
    plain, speculative = copying(tiny), copying(tiny)
    for seed in range(150):
        program = case(seed, 20, plain.spec.eos_token_id)
        expected = run(plain, [program(0, 1)])
        assert run(speculative, [program(1 + seed % 6, 1)]) == expected
        (decoded, tokens), *_ = expected
        assert tuple(each.token_id for each in tokens) == decoded.hypotheses[0].token_ids
    assert speculative.counters["steps"] < 0.85 * plain.counters["steps"]
    assert speculative.counters["decoder_tokens"] > speculative.counters["decoder_rows"]


def test_requests_with_and_without_drafts_share_steps(tiny: Any) -> None:
    programs = [case(seed, 20, 2) for seed in range(12)]
    alone = [run(copying(tiny), [program(0, 1)])[0] for program in programs]
    assert run(copying(tiny), [program(i % 4, 1) for i, program in enumerate(programs)]) == alone


@pytest.mark.parametrize("kind", ["lean", "hf"])
@pytest.mark.parametrize("family", ["bart", "t5"])
def test_real_models_give_the_ids_of_plain_decoding(tiny: Any, family: str, kind: str, tmp_path: Path) -> None:
    reference = tiny.family(family, 1)
    reference.save_pretrained(tmp_path)
    model = lean.load(tmp_path) if kind == "lean" else tiny.adapt(reference)
    start = model.spec.decoder_start_token_id
    programs = [case(seed, tiny.vocab, model.spec.eos_token_id) for seed in range(12)]
    plain = run(model, [program(0, start) for program in programs])
    before = model.counters["decoder_tokens"] - model.counters["decoder_rows"]
    speculative = [run(model, [program(4, start)])[0] for program in programs]
    assert model.counters["decoder_tokens"] - model.counters["decoder_rows"] > before
    for (one, emitted), (other, streamed) in zip(plain, speculative, strict=True):
        assert other.hypotheses[0].token_ids == one.hypotheses[0].token_ids
        assert other.hypotheses[0].log_probability == pytest.approx(one.hypotheses[0].log_probability, abs=1e-3)
        assert [each.token_id for each in streamed] == [each.token_id for each in emitted]
        assert [each.flips for each in other.left_out] == [each.flips for each in one.left_out]


def test_large_steps_take_no_drafts(tiny: Any) -> None:
    model = copying(tiny)
    programs = [case(seed, 20, 2)(4, 1) for seed in range(40)]
    for program in programs:
        program.start(model, model.encode(program.rows))
    items = [program.items()[0] for program in programs]
    assert sum(program.num_decoder_rows for program in programs) > 64
    for program, logits in zip(programs, model.step(items), strict=True):
        program.advance([logits])
    assert all(program.items()[0].tokens.ndim == 2 for program in programs if not program.is_done)


def test_samples_take_no_drafts(tiny: Any) -> None:
    search = GreedySearch(
        num_problems=1, start_token_id=1, constraints=Constraints(2, 8), choose=sampler(Sampling(seed=1))
    )
    model = copying(tiny)
    run(model, [RagToken([[3, 4, 5]], torch.zeros(1), search, TokenProgramOptions(draft_tokens=4))])
    assert model.counters["decoder_tokens"] == model.counters["decoder_rows"]


@pytest.mark.parametrize(
    ("device", "speculation", "expected"),
    [("cpu", "auto", True), ("cuda:0", "auto", False), ("cpu", "off", False), ("cuda:0", "lookup", True)],
)
def test_a_gpu_drafts_only_when_told_to(device: str, speculation: Any, expected: bool) -> None:
    assert GeneratorConfig(device=device, speculation=speculation).speculates is expected
