"""Multi-task training: it learns, resumes exactly, and leaves a checkpoint that names its tasks."""

import random
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import BartForConditionalGeneration

from generator_service.models.loading import load_generator
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.generator.examples import SpecialIds
from training.generator.warm_start import GeneratorShape, random_generator
from training.runtime.logs import read_log
from training.runtime.loop import Schedule, train
from training.runtime.optimizer import MasterWeights
from training.tasks.cases import LABELS, VERIFICATION, Case
from training.tasks.stream import Batches, Mixture, encode
from training.tasks.task import TasksTask, peak_rate
from training.tasks.writing import Writer

NAMES = tuple(f"name{number}" for number in range(8))
PLACES = tuple(f"place{number}" for number in range(8))
WORDS = (*" ".join(LABELS).split(), "verify", ":", "lives", "in", "nobody", *NAMES, *PLACES)
IDS = SpecialIds(cls_id=2, sep_id=3, pad_id=0)
SHAPE = GeneratorShape(
    vocab_size=40, d_model=32, heads=4, ffn_dim=64, encoder_layers=1, decoder_layers=1, max_position_embeddings=64,
    cls_id=2, sep_id=3, init_std=0.2,
)  # fmt: skip


def _claim(rng: random.Random) -> Case | None:
    """Anything the passage says is supported; the first draw of a name is none, as a maker may do."""
    if rng.random() < 0.2:
        return None
    name, place, label = rng.choice(NAMES), rng.choice(PLACES), rng.choice(LABELS[:2])
    told = f"{name} lives in {place}" if label == LABELS[0] else "nobody"
    return Case(VERIFICATION, f"{name} lives in {place}", label, text=told)


def _task(seed: int = 0) -> TasksTask:
    tokenizer = tiny_tokenizer(WORDS)
    mixture = Mixture(((1.0, _claim),))
    kept = encode([mixture.case(number, 99) for number in range(16)], tokenizer)
    return TasksTask(
        random_generator(SHAPE, seed=0),
        Batches(mixture, tokenizer, batch_size=8, seed=seed, ids=IDS),
        tokenizer,
        batch_size=8,
        accumulate=1,
        ids=IDS,
        held_out={VERIFICATION: kept},
    )


def _train(folder: Path, schedule: Schedule, *, resume: bool = False, stop_at: int = 0) -> None:
    task = _task()
    weights = MasterWeights(task.module, rate=lambda name: 20 * peak_rate(name), dtype=torch.float32, warmup_ratio=0.1)

    def report(report):
        if report.step == stop_at:
            raise KeyboardInterrupt

    try:
        train(task, weights, schedule, folder, resume=resume, report=report)
    except KeyboardInterrupt:
        pass


def test_it_learns_to_verify_and_its_checkpoint_serves_the_task(tmp_path: Path) -> None:
    _train(tmp_path, Schedule(120, dtype=torch.float32))
    log = read_log(tmp_path)
    assert log[-1][f"dev/{VERIFICATION}"] > -0.2
    cases = [case for case in map(_claim, map(random.Random, range(40))) if case is not None]
    chosen = Writer(tmp_path / "checkpoint").choose(cases)
    assert sum(label == case.target for label, case in zip(chosen, cases, strict=True)) >= 0.9 * len(cases)
    loaded = load_generator(str(tmp_path / "checkpoint"), dtype="float32", device="cpu", cache_dir=tmp_path)
    tasks = {"fact_verification", "summarization", "document_generation", "query_rewriting"}
    assert {prompt.task for prompt in loaded.tasks} == tasks


def test_a_run_that_was_killed_goes_on_bit_for_bit(tmp_path: Path) -> None:
    schedule = Schedule(50, dtype=torch.float32, save_every_seconds=0)
    _train(tmp_path / "whole", schedule)
    _train(tmp_path / "parts", schedule, stop_at=45)  # After the first block of 40 batches.
    _train(tmp_path / "parts", schedule, resume=True)
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "parts")
    whole, parts = (load_file(tmp_path / name / "checkpoint/model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_each_example_counts_the_same_however_long_its_target(tmp_path: Path) -> None:
    task = _task()
    model: BartForConditionalGeneration = task.module
    tokenizer = tiny_tokenizer(WORDS)
    cases = [Case(VERIFICATION, "name1", label, text="nobody") for label in (LABELS[0], LABELS[2])]
    losses = []
    for example in encode(cases, tokenizer):
        labels = torch.tensor([example.target_ids])
        decoder_ids = torch.tensor([[IDS.cls_id, *example.target_ids[:-1]]])
        inputs = torch.tensor([example.input_ids])
        losses.append(model(input_ids=inputs, decoder_input_ids=decoder_ids, labels=labels).loss.item())
    mixture = Mixture(((1.0, lambda rng: rng.choice(cases)),))
    batches = Batches(mixture, tokenizer, batch_size=8, seed=0, ids=IDS)
    whole = TasksTask(model, batches, tokenizer, batch_size=8, accumulate=1, ids=IDS, held_out={})
    lengths = (batches.batch(0).target_ids != -100).sum(1).tolist()
    expected = sum(losses[int(length > 2)] for length in lengths) / len(lengths)
    assert whole.terms(0, 0).total.item() == pytest.approx(expected, rel=1e-4)
