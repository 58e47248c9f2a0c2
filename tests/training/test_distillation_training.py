"""Distillation on toy tasks: students approach their teachers, and what is written can be served."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from generator_service.models.loading import load_generator
from generator_service.prompt import PromptFormat
from retriever_service.bi_encoder import BiEncoder
from retriever_service.encoder import Query
from tests.training.joint_toy import make_world
from training.distillation import encoder, generator, rag
from training.distillation.generator_task import GeneratorDistillation, Mode, Pair, closest
from training.distillation.losses import IGNORED, Mixing
from training.distillation.shapes import StudentShape, cut
from training.generator.examples import ExampleStream, SpecialIds
from training.generator.pool import DEFAULT_SOURCES, Source, read_pool
from training.generator.warm_start import load_tokenizer
from training.runtime.logs import read_log
from training.runtime.loop import Schedule

RUN = ("--threads", "1", "--dtype", "float32")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The joint toy world, its passages and questions also as training files."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    questions = [
        json.loads(line) for line in gzip.decompress((folder / "questions.jsonl.gz").read_bytes()).splitlines()
    ]
    facts = {row["passage_id"]: (row["question"], row["answers"][0]) for row in questions if row["id"].endswith("a")}
    passages = [
        {"id": id_, "title": "", "text": f"word1 word2 . {asked.split()[2]} lives in {place} . word3"}
        for id_, (asked, place) in facts.items()
    ]
    for name, rows in (("passages", passages), ("questions", questions)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"train_{name}.jsonl.gz").write_bytes(gzip.compress(text.encode()))
    return folder


def _task(world: Path, mode: Mode, *, shape: str = "", num_beams: int = 1) -> tuple[GeneratorDistillation, Pair]:
    tokenizer = load_tokenizer(world / "generator")
    prompt, ids = PromptFormat(max_input_tokens=64), SpecialIds(2, 3, 0)
    sources = (Source("train_passages.jsonl.gz", "train_questions.jsonl.gz", 0.0),)
    pool = read_pool(world, tokenizer, prompt=prompt, sources=sources, held_out_ratio=0.0)
    teacher = AutoModelForSeq2SeqLM.from_pretrained(world / "generator", dtype=torch.float32)
    stream = ExampleStream(pool, {}, prompt=prompt, ids=ids, seed=0)
    batch = next(stream.batches(8, first_step=0))
    student = cut(teacher, StudentShape.parse(shape), lambda model: model(batch.input_ids, batch.attention_mask))
    pair = Pair(teacher, student, dtype=torch.float32)
    schedule = Schedule(max_steps=10, dtype=torch.float32)
    task = GeneratorDistillation(
        pair,
        stream,
        tokenizer,
        prompt,
        schedule,
        mode=mode,
        mixing=Mixing(),
        batch_size=8,
        num_beams=num_beams,
        held_out=(),
    )
    return task, pair


def test_student_that_is_the_teacher_has_only_the_gold_answers_left_to_learn(world: Path) -> None:
    task, _ = _task(world, Mode.TOKEN)
    terms = task.terms(0, 0)
    assert terms.shown["kl"] == pytest.approx(0, abs=1e-5)
    assert terms.shown["hidden"] == terms.shown["attention"] == 0
    assert terms.total.item() == pytest.approx(0.2 * terms.shown["nll"], rel=1e-3)


def test_only_the_student_learns_and_its_words_stay_the_teachers(world: Path) -> None:
    task, pair = _task(world, Mode.TOKEN, shape="ffn_dim=16")
    task.terms(0, 0).total.backward()
    assert not any(weight.requires_grad for weight in pair.teacher.parameters())
    assert pair.student.get_input_embeddings().weight.grad is None
    assert pair.student.model.encoder.layers[0].fc1.weight.grad is not None


def test_sequence_mode_learns_the_teachers_own_answers(world: Path) -> None:
    task, pair = _task(world, Mode.SEQUENCE)
    batch = next(task._stream.batches(8, first_step=0))
    labels = task._decoded(batch)
    assert all(row[row != IGNORED].tolist().count(3) == 1 for row in labels)  # One end each.
    start = torch.full((len(labels), 1), 2)
    shifted = torch.cat([start, labels[:, :-1].clamp(min=0)], 1)
    logits = pair.teacher(batch.input_ids, batch.attention_mask, decoder_input_ids=shifted).logits
    is_target = labels != IGNORED
    assert torch.equal(logits.argmax(-1)[is_target], labels[is_target])
    terms = task.terms(0, 0)
    assert terms.total.item() == pytest.approx(terms.shown["nll"], rel=1e-4)


def test_interpolated_sequences_are_no_farther_from_the_gold_answers(world: Path) -> None:
    batch = next(_task(world, Mode.SEQUENCE)[0]._stream.batches(8, first_step=0))
    right = [
        sum(torch.isin(mine, gold).sum() for mine, gold in zip(_task(world, mode, num_beams=4)[0]._decoded(batch),
                                                              batch.target_ids, strict=True))
        for mode in (Mode.SEQUENCE, Mode.SEQUENCE_INTER)
    ]  # fmt: skip
    assert right[1] >= right[0]


def test_closest_hypothesis_shares_most_with_the_gold_answer() -> None:
    hypotheses = torch.tensor([[5, 6, 3, IGNORED], [5, 7, 8, 3], [7, 8, 3, IGNORED]])
    assert torch.equal(closest(hypotheses, torch.tensor([7, 8, 3])), hypotheses[2])
    assert torch.equal(closest(hypotheses, torch.tensor([11, 12, 13])), hypotheses[0])


def test_generator_program_trains_a_smaller_student_that_serves(world: Path, tmp_path: Path) -> None:
    for source in DEFAULT_SOURCES:
        for name in ("passages", "questions"):
            path = tmp_path / getattr(source, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes((world / f"train_{name}.jsonl.gz").read_bytes())
    generator.main(
        ["--teacher", str(world / "generator"), "--student-shape", "ffn_dim=1", "--data", str(tmp_path),
         "--max-steps", "40", "--batch-size", "4", "--encoder-rate", "5e-3", "--decoder-rate", "5e-3",
         "--train", r"\.fc\d|_norm", "--serve-in", "bfloat16", "--out", str(tmp_path / "out"), *RUN]
    )  # fmt: skip
    log = read_log(tmp_path / "out")
    assert _mean(log[-10:], "train/kl") < 0.5 * _mean(log[:5], "train/kl")
    served = load_generator(str(tmp_path / "out/checkpoint"), dtype="auto", device="cpu", cache_dir=tmp_path)
    assert served.prompt.max_input_tokens == 64
    assert served.model.spec.dtype == "bfloat16"
    theirs, mine = (
        load_file(folder / "model.safetensors") for folder in (world / "generator", tmp_path / "out/checkpoint")
    )
    same = {name for name, tensor in mine.items() if torch.equal(tensor, theirs[name])}
    assert same == {name for name in mine if not re.search(r"\.fc\d|_norm", name)}


def test_encoder_program_trains_a_narrower_student_that_serves(world: Path, tmp_path: Path) -> None:
    encoder.main(
        ["--teacher", str(world / "encoder"), "--student-shape", "encoder_ffn_dim=16", "--dimension", "16",
         "--source", str(world / "train_passages.jsonl.gz"), str(world / "train_questions.jsonl.gz"),
         "--max-steps", "40", "--batch-size", "8", "--rate", "5e-3", "--hard-negatives", "0",
         "--out", str(tmp_path / "out"), *RUN]
    )  # fmt: skip
    log = read_log(tmp_path / "out")
    for name in ("train/embedding", "train/similarity"):
        assert _mean(log[-5:], name) < 0.7 * _mean(log[:5], name)
    vectors = BiEncoder(str(tmp_path / "out/checkpoint")).encode([Query("where lives name1 ?")])
    assert vectors.shape == (1, 16)


def _rag(world: Path, out: Path, *more: str) -> list[dict[str, float]]:
    rag.main(
        ["--teacher", str(world / "generator"), "--questions", str(world / "questions.jsonl.gz"),
         "--data-dir", str(world / "data"), "--collection", "toy", "--search", "dense", "--passages", "3",
         "--out", str(out), "--measure-answers", "4", *more, *RUN]
    )  # fmt: skip
    return read_log(out)


def test_rag_program_loses_nothing_where_the_student_is_the_teacher(world: Path, tmp_path: Path) -> None:
    log = _rag(world, tmp_path, "--student", str(world / "generator"), "--max-steps", "1")
    for name in ("prior", "document", "marginal", "posterior"):
        assert log[0][f"train/{name}"] == pytest.approx(0, abs=1e-5)


def test_rag_program_brings_a_student_closer_to_the_teacher(world: Path, tmp_path: Path) -> None:
    teacher = AutoModelForSeq2SeqLM.from_pretrained(world / "generator", dtype=torch.float32)
    given: dict[str, Any] = {"input_ids": torch.arange(4, 40)[None], "decoder_input_ids": torch.tensor([[2, 5]])}
    cut(teacher, StudentShape.parse("ffn_dim=8"), lambda model: model(**given)).save_pretrained(tmp_path / "student")
    load_tokenizer(world / "generator").save_pretrained(tmp_path / "student")
    log = _rag(
        world, tmp_path / "out", "--student", str(tmp_path / "student"), "--generator-rate", "3e-3", "--max-steps", "30"
    )
    assert _mean(log[-6:-1], "train/document") < 0.5 * _mean(log[:3], "train/document")
    assert _mean(log[-6:-1], "train/posterior") < _mean(log[:3], "train/posterior")
    assert {path.name for path in (tmp_path / "out/checkpoint").iterdir()} == {"encoder", "generator"}


def _mean(log: list[dict[str, float]], name: str) -> float:
    values = [each[name] for each in log if name in each]
    return sum(values) / len(values)
