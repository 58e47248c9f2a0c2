"""Joint training on a toy task: it lowers the loss, lifts recall, and goes on exactly after being killed."""

import multiprocessing
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from retriever_service.bi_encoder import BiEncoder
from retriever_service.encoder import PassageText
from tests.training.joint_toy import WORDS, make_world, save_encoder
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.joint import __main__ as program
from training.joint import refresh
from training.joint.knowledge import KnowledgeBase, read_from_files
from training.runtime.display import ProgressDisplay
from training.runtime.logs import read_log
from training.runtime.loop import Report


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder


def _train(world: Path, out: Path, *more: str, data: Path | None = None) -> list[dict[str, float]]:
    questions = str(world / "questions.jsonl.gz")
    program.main(
        ["--questions", questions, "--dev", questions, "--data-dir", str(data or world / "data"),
         "--collection", "toy", "--encoder", str(world / "encoder"), "--generator", str(world / "generator"),
         "--search", "dense", "--encoder-rate", "1e-2", "--generator-rate", "1e-4", "--batch-size", "8",
         "--dtype", "float32", "--threads", "1", "--measure-answers", "24", "--out", str(out), *more]
    )  # fmt: skip
    return read_log(out)


@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_training_lowers_the_loss_and_lifts_recall_and_answers(world: Path, tmp_path: Path, kind: str) -> None:
    *steps, measured = _train(world, tmp_path, "--model", kind, "--max-steps", "40")
    losses, first = ([step[name] for step in steps] for name in ("train/nll", "train/gold_first"))
    assert sum(losses[-5:]) < 0.4 * sum(losses[:5])
    assert sum(first[:5]) / 5 < 0.7
    assert measured["dev/recall@1"] > 0.8
    assert measured["dev/em"] > 0.8
    assert {"train/prior_entropy", "train/posterior_kl", "train/gold_found"} <= steps[0].keys()
    assert 300 < measured["dev/distinct_passages_per_1k"] <= 500


def test_a_prior_over_the_whole_batch_learns_faster_and_the_generator_learns_to_abstain(
    world: Path, tmp_path: Path
) -> None:
    how = ("--max-steps", "12", "--sampled", "1", "--generator-rate", "3e-3", "--passages", "2")
    alone = _train(world, tmp_path / "alone", *how)
    *steps, measured = _train(world, tmp_path / "batch", *how, "--in-batch", "--abstain", "1")
    assert steps[0]["train/nll"] > alone[0]["train/nll"]  # Of one more share of the prior that answers nothing.
    assert measured["dev/recall@1"] >= alone[-1]["dev/recall@1"]
    abstained = [step["train/abstain"] for step in steps]
    assert sum(abstained[-3:]) < 0.5 * sum(abstained[:3])


class _InProcess:
    """Re-encodes where the process that does it would be started."""

    def __init__(self, command: list[str], **streams: Any) -> None:
        refresh.main(command[3:])

    def wait(self) -> int:
        return 0

    def poll(self) -> int:
        return 0


def _killed(step: int, world: Path, out: Path, *more: str, data: Path) -> None:
    """Trains in a process of its own, which dies without warning after a step; every step before it is saved."""

    def die(display: Any, report: Report) -> None:
        if report.step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    def run() -> None:
        ProgressDisplay.show = die  # type: ignore[method-assign]
        _train(world, out, "--save-every", "0", *more, data=data)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


@pytest.mark.parametrize(
    "how",
    [
        ("--sampled", "1", "--accumulate", "2", "--dtype", "bfloat16", "--include-gold", "4", "--abstain", "1"),
        ("--refresh-every", "2", "--model", "token", "--recompute", "--search", "hybrid", "--in-batch"),
    ],
    ids=["frozen passages", "refreshed passages"],
)
def test_a_killed_run_goes_on_bit_for_bit(
    world: Path, tmp_path: Path, how: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh.subprocess, "Popen", _InProcess)
    how = (*how, "--max-steps", "8", "--measure-every", "4", "--measure-answers", "4")
    logs, weights = [], []
    for name in ("whole", "killed"):
        data, out = tmp_path / name / "data", tmp_path / name / "out"
        shutil.copytree(world / "data", data)
        if name == "killed":
            _killed(6, world, out, *how, data=data)
        logs.append(_train(world, out, "--resume", *how, data=data))
        weights.append({path.parent.name: load_file(path) for path in (out / "checkpoint").rglob("*.safetensors")})
    assert logs[0] == logs[1]
    assert weights[0].keys() == weights[1].keys()
    for folder, tensors in weights[0].items():
        for key, tensor in tensors.items():
            assert torch.equal(tensor, weights[1][folder][key]), (folder, key)


def test_a_refresh_adds_generations_and_leaves_those_before_as_they_were(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh.subprocess, "Popen", _InProcess)
    data = tmp_path / "data"
    shutil.copytree(world / "data", data)
    before = read_from_files(data, "toy")
    _train(world, tmp_path / "out", "--refresh-every", "2", "--max-steps", "5", data=data)
    newest, first = read_from_files(data, "toy"), read_from_files(data, "toy", before.index_generation)
    assert torch.equal(first.vectors, before.vectors)
    assert newest.index_generation > before.index_generation + 1
    expected = _embedded(tmp_path / "out/refresh/2/encoder", newest)
    np.testing.assert_allclose(newest.vectors.numpy(), expected, atol=1e-6)
    assert not np.allclose(newest.vectors.numpy(), before.vectors.numpy(), atol=1e-2)


def _embedded(encoder: Path, base: KnowledgeBase) -> Any:
    return BiEncoder(str(encoder)).encode([PassageText(one.text, one.title) for one in base.passages])


def test_without_refresh_the_saved_encoder_embeds_passages_as_the_collection_has_them(
    world: Path, tmp_path: Path
) -> None:
    _train(world, tmp_path, "--max-steps", "2")
    base = read_from_files(world / "data", "toy")
    expected = _embedded(tmp_path / "checkpoint/encoder", base)
    np.testing.assert_allclose(base.vectors.numpy(), expected, atol=1e-6)
    assert (tmp_path / "checkpoint/encoder/query/model.safetensors").exists()


@pytest.mark.slow
def test_the_collection_is_re_encoded_by_a_process_beside_the_training(world: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(world / "data", data)
    _train(world, tmp_path / "out", "--refresh-every", "2", "--max-steps", "5", data=data)
    newest = read_from_files(data, "toy")
    expected = _embedded(tmp_path / "out/refresh/1/encoder", newest)
    np.testing.assert_allclose(newest.vectors.numpy(), expected, atol=1e-6)


def test_what_cannot_be_trained_is_refused_by_the_flags_name(world: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        _train(world, tmp_path, "--sampled", "1", "--label-smoothing", "0.1")
    with pytest.raises(SystemExit, match="no collection 'other'"):
        _train(world, tmp_path, "--collection", "other")
    stranger = tmp_path / "stranger"
    save_encoder(stranger, tiny_tokenizer(WORDS), seed=7)
    with pytest.raises(SystemExit, match="did not make this collection's vectors"):
        _train(world, tmp_path, "--encoder", str(stranger))
