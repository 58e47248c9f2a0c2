"""Generator training: it learns, it resumes exactly, and its examples are what they claim to be."""

import gzip
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast

from evaluation.calibration import area_under_curve
from generator_service.prompt import PromptFormat
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.generator.examples import ExampleStream, SpecialIds, collate
from training.generator.losses import guidance_loss, span_loss
from training.generator.negatives import TermIndex, mine_negatives
from training.generator.objective import Objective
from training.generator.pool import Source, TrainingPool, read_pool
from training.generator.task import GeneratorTask, peak_rate
from training.generator.warm_start import GeneratorShape, random_generator
from training.runtime.loop import Report, Schedule, train
from training.runtime.optimizer import MasterWeights
from training.runtime.states import Progress

IDS = SpecialIds(cls_id=2, sep_id=3, pad_id=0)
PLACES = tuple(f"place{i}" for i in range(12))
NAMES = tuple(f"name{i}" for i in range(12))
FILLER = tuple(f"word{i}" for i in range(30))
WORDS = ("where", "is", "?", "lives", "in", ":", "atlas", *PLACES, *NAMES, *FILLER)
SOURCES = (Source("passages.jsonl.gz", "questions.jsonl.gz", 0.3),)
SHAPE = GeneratorShape(
    vocab_size=80, d_model=32, heads=4, ffn_dim=64, encoder_layers=1, decoder_layers=1, max_position_embeddings=320,
    cls_id=2, sep_id=3, init_std=0.2,
)  # fmt: skip


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer(WORDS)


@pytest.fixture(scope="module")
def pool(tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory) -> TrainingPool:
    """200 passages saying who lives where among filler words, one question each; "dev-" passages beside them."""
    folder, rng = tmp_path_factory.mktemp("data"), random.Random(0)
    passages: list[dict[str, object]] = [{"id": "dev-1", "title": "", "text": "Name0 lives in Place0"}]
    questions: list[dict[str, object]] = []
    for number in range(200):
        name, place = rng.choice(NAMES).title(), rng.choice(PLACES).title()
        before, after = rng.choices(FILLER, k=rng.randint(0, 12)), rng.choices(FILLER, k=rng.randint(0, 60))
        text = " ".join((*before, name, "lives in", place, *after))
        passages.append({"id": f"p{number}", "title": "Atlas", "text": text})
        asked = f"Where is {name}?"
        questions.append({"id": f"q{number}", "question": asked, "answers": [place], "passage_id": f"p{number}"})
    _write(folder / "passages.jsonl.gz", passages)
    _write(folder / "questions.jsonl.gz", questions)
    return read_pool(folder, tokenizer, prompt=PromptFormat(), sources=SOURCES)


def _stream(pool: TrainingPool) -> ExampleStream:
    return ExampleStream(pool, mine_negatives(pool, pool.questions), prompt=PromptFormat(), ids=IDS, seed=7)


def _objective() -> Objective:
    return Objective(random_generator(SHAPE, seed=0))


def _run(
    pool: TrainingPool,
    tokenizer: PreTrainedTokenizerFast,
    folder: Path,
    max_steps: int,
    *,
    objective: Objective | None = None,
    resume: bool = False,
    report: Callable[[Report], None] = lambda report: None,
) -> Progress:
    schedule = Schedule(max_steps, seed=7, dtype=torch.float32)
    objective = objective or _objective()
    task = GeneratorTask(objective, _stream(pool), tokenizer, schedule, batch_size=8, ids=IDS, held_out=pool.held_out)
    weights = MasterWeights(objective, rate=peak_rate, dtype=torch.float32, warmup_ratio=0.03)
    return train(task, weights, schedule, folder, resume=resume, report=report)


def test_dev_passages_never_enter_the_pool(pool: TrainingPool) -> None:
    assert not any(passage.id.startswith("dev-") for passage in pool.passages)


def test_held_out_passages_have_no_training_question(pool: TrainingPool) -> None:
    assert pool.held_out
    assert not {q.passage for q in pool.held_out} & {q.passage for q in pool.questions}


def test_a_positive_holds_its_answer_where_it_says(pool: TrainingPool, tokenizer: PreTrainedTokenizerFast) -> None:
    stream = _stream(pool)
    for number in range(300):
        example = stream.example(number)
        assert example.target_ids[-1] == IDS.sep_id
        if example.answer_start is not None:
            wanted = example.target_ids[:-1]
            assert example.input_ids[example.answer_start : example.answer_start + len(wanted)] == wanted


def test_negatives_come_at_about_their_ratio_and_ask_for_the_empty_answer(pool: TrainingPool) -> None:
    stream = _stream(pool)
    examples = [stream.example(number) for number in range(600)]
    negatives = [example for example in examples if example.answer_start is None]
    assert 0.2 < len(negatives) / len(examples) < 0.4
    assert all(example.target_ids == (IDS.sep_id,) for example in negatives)


def test_a_mined_negative_never_holds_the_answer(pool: TrainingPool) -> None:
    mined = mine_negatives(pool, pool.questions)
    assert any(mined.values())
    for question in pool.questions:
        for index in mined[question.id]:
            assert question.answers[0].lower() not in pool.passages[index].text.lower().split()


def test_bm25_ranks_the_passage_with_the_rare_term_first() -> None:
    index = TermIndex([(1, 2), (1, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13), (14, 15), (16, 17), (18, 19)])
    assert index.nearest((5, 99), 3) == [2]


def test_the_stream_repeats_from_any_step(pool: TrainingPool) -> None:
    first = _stream(pool).batches(8, first_step=0)
    for _ in range(45):
        next(first)
    resumed = _stream(pool).batches(8, first_step=45)
    for _ in range(3):
        assert torch.equal(next(first).input_ids, next(resumed).input_ids)


def test_training_input_is_what_the_prompt_gives_in_serving(tokenizer: PreTrainedTokenizerFast) -> None:
    prompt = PromptFormat(max_input_tokens=16)
    ids = prompt.encode(tokenizer, "Where is name1?", "Atlas", "Name1 lives in place2 word1")
    assert ids == tokenizer.encode("Where is name1?", "Atlas: Name1 lives in place2 word1")


def test_truncation_takes_from_the_passage_and_never_from_the_question(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = PromptFormat(max_input_tokens=8).encode(tokenizer, "Where is name1?", "", "name2 lives in place2")
    assert len(ids) == 8
    assert ids[:6] == tokenizer.encode("Where is name1?")


def test_span_loss_is_the_entropy_of_the_real_tokens_when_scores_are_equal() -> None:
    mask = torch.tensor([[1, 1, 1, 1, 0, 0]])
    loss = span_loss(torch.zeros(1, 6, 2), mask, torch.tensor([[1, 2]]))
    assert loss.item() == pytest.approx(torch.tensor(4.0).log().item(), abs=1e-4)


def test_guidance_loss_counts_copied_tokens_only() -> None:
    weights = torch.full((1, 2, 2, 4), 0.25)
    assert guidance_loss(weights, torch.tensor([[3, -1]])).item() == pytest.approx(1.386, abs=1e-3)
    assert guidance_loss(weights, torch.tensor([[-1, -1]])).item() == 0.0


def test_area_under_curve_counts_pairs_and_halves_ties() -> None:
    assert area_under_curve([0.9, 0.5], [0.1, 0.5]) == pytest.approx(3.5 / 4)


def test_training_lowers_the_loss_and_lifts_the_held_out_likelihood(
    pool: TrainingPool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    reports: list[Report] = []
    _run(pool, tokenizer, tmp_path, 50, report=reports.append)
    losses = [report.shown["lm"] for report in reports]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert reports[-1].measured["log_p"] > -losses[0]


def test_a_run_stopped_by_a_signal_resumes_to_bit_identical_weights(
    pool: TrainingPool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    def stop_at_fifth(report: Report) -> None:
        if report.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    _run(pool, tokenizer, whole, 20)
    assert _run(pool, tokenizer, parts, 20, report=stop_at_fifth).step == 5
    _run(pool, tokenizer, parts, 20, resume=True)
    expected = load_file(whole / "checkpoint" / "model.safetensors")
    for name, tensor in load_file(parts / "checkpoint" / "model.safetensors").items():
        assert torch.equal(tensor, expected[name]), name


def test_the_word_embeddings_stay_as_they_were(
    pool: TrainingPool, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    objective = _objective()
    before = objective.generator.model.shared.weight.detach().clone()
    _run(pool, tokenizer, tmp_path, 5, objective=objective)
    assert torch.equal(objective.generator.model.shared.weight, before)


def test_padding_changes_no_loss(pool: TrainingPool) -> None:
    stream, objective = _stream(pool), _objective()
    examples = [stream.example(number) for number in range(6)]
    alone = collate(examples, IDS)
    longer = collate(examples, IDS)
    padded = type(longer)(
        *(torch.nn.functional.pad(t, (0, 16)) for t in (longer.input_ids, longer.attention_mask)),
        longer.decoder_ids, longer.target_ids, longer.spans, longer.gold_positions,
    )  # fmt: skip
    assert objective(padded).total.item() == pytest.approx(objective(alone).total.item(), abs=1e-4)
