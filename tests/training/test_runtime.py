"""The training loop: it learns, resumes exactly, stops early, and leaves what it froze alone."""

import os
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.runtime.logs import RunLog, read_log
from training.runtime.loop import Report, Schedule, Terms, train
from training.runtime.optimizer import MasterWeights

FLOAT32 = torch.float32


class Line:
    """Learns y = 3x from noisy points; ``offset`` is frozen."""

    def __init__(self, *, batch_size: int = 8, quality: Mapping[int, float] | None = None) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.module.bias.requires_grad_(False)
        with torch.no_grad():
            self.module.weight.fill_(0.1)
            self.module.bias.fill_(1 / 3)
        self.batch_size, self.quality, self.num_measured = batch_size, quality, 0

    @property
    def num_questions_per_step(self) -> int:
        return self.batch_size

    def terms(self, step: int, part: int) -> Terms:
        points = torch.randn(self.batch_size, 1, generator=torch.Generator().manual_seed(step * 10 + part))
        dtype = self.module.weight.dtype
        loss = (self.module(points.to(dtype)) - 3 * points.to(dtype)).square().mean()
        return Terms(loss, {"loss": loss.item()})

    def save(self, folder: Path) -> None:
        save_file(
            {name: tensor.contiguous() for name, tensor in self.module.state_dict().items()},
            folder / "line.safetensors",
        )

    def measure(self) -> Mapping[str, float]:
        self.num_measured += 1
        return {} if self.quality is None else {"quality": self.quality[self.num_measured]}


def _weights(line: Line, dtype: torch.dtype = FLOAT32) -> MasterWeights:
    return MasterWeights(line.module, rate=lambda name: 0.05, dtype=dtype, warmup_ratio=0.1)


def _run(line: Line, schedule: Schedule, folder: Path, *, resume: bool = False, report=lambda report: None):
    return train(line, _weights(line, schedule.dtype), schedule, folder, resume=resume, report=report)


def test_it_lowers_the_loss_and_logs_every_step(tmp_path: Path) -> None:
    _run(Line(), Schedule(60, dtype=FLOAT32), tmp_path)
    losses = [record["train/loss"] for record in read_log(tmp_path) if "train/loss" in record]
    assert len(losses) == 60
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_a_run_stopped_by_a_signal_goes_on_to_the_same_bits_and_the_same_log(tmp_path: Path) -> None:
    def stop_at_fifth(report: Report) -> None:
        if report.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    schedule = Schedule(12, dtype=FLOAT32)
    _run(Line(), schedule, tmp_path / "whole")
    stopped = _run(Line(), schedule, tmp_path / "parts", report=stop_at_fifth)
    assert stopped.step == 5
    _run(Line(), schedule, tmp_path / "parts", resume=True)
    whole, parts = (load_file(tmp_path / name / "checkpoint" / "line.safetensors") for name in ("whole", "parts"))
    assert torch.equal(whole["weight"], parts["weight"])
    assert read_log(tmp_path / "whole") == read_log(tmp_path / "parts")


def test_a_resumed_log_drops_what_came_after_the_state_and_a_line_cut_off(tmp_path: Path) -> None:
    with RunLog(tmp_path, step=0) as log:
        for step in (1, 2, 3):
            log.write(step, {"loss": 1.0}, group="train")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "tra')
    with RunLog(tmp_path, step=2):
        pass
    assert [record["step"] for record in read_log(tmp_path)] == [1, 2]


def test_events_for_tensorboard_are_written(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    _run(Line(), Schedule(2, dtype=FLOAT32), tmp_path)
    assert list((tmp_path / "logs").glob("events.*"))


def test_a_folder_with_a_state_is_not_begun_again(tmp_path: Path) -> None:
    _run(Line(), Schedule(2, dtype=FLOAT32), tmp_path)
    with pytest.raises(FileExistsError, match="resume"):
        _run(Line(), Schedule(2, dtype=FLOAT32), tmp_path)


def test_it_stops_when_the_watched_metric_no_longer_rises_and_keeps_the_best(tmp_path: Path) -> None:
    line = Line(quality={1: 0.5, 2: 0.9, 3: 0.8, 4: 0.7, 5: 1.0})
    schedule = Schedule(50, measure_every_steps=2, watch="quality", patience=2, dtype=FLOAT32)
    saved: dict[int, torch.Tensor] = {}

    def remember(report: Report) -> None:
        saved[report.step] = line.module.weight.detach().clone()

    progress = _run(line, schedule, tmp_path, report=remember)
    assert (progress.step, progress.best) == (8, 0.9)
    assert torch.equal(load_file(tmp_path / "best" / "line.safetensors")["weight"], saved[4])


def test_accumulated_parts_move_the_weights_as_one_batch_of_them_would(tmp_path: Path) -> None:
    class Whole(Line):
        def terms(self, step: int, part: int) -> Terms:
            halves = [super(Whole, self).terms(step, half).total for half in (0, 1)]
            return Terms((halves[0] + halves[1]) / 2, {"loss": 0.0})

    parts, whole = Line(), Whole()
    _run(parts, Schedule(5, accumulate=2, dtype=FLOAT32), tmp_path / "parts")
    _run(whole, Schedule(5, dtype=FLOAT32), tmp_path / "whole")
    torch.testing.assert_close(parts.module.weight, whole.module.weight)


def test_what_is_frozen_is_saved_bit_for_bit_though_the_model_computes_in_bfloat16(tmp_path: Path) -> None:
    _run(Line(), Schedule(3), tmp_path)
    assert load_file(tmp_path / "checkpoint" / "line.safetensors")["bias"].item() == torch.tensor(1 / 3).item()


def test_after_saving_the_model_computes_in_its_own_dtype_again() -> None:
    line = Line()
    weights = _weights(line, torch.bfloat16)
    line.module.train()
    with weights.float32():
        assert line.module.weight.dtype == FLOAT32
        assert not line.module.training
    assert line.module.weight.dtype == torch.bfloat16
    assert line.module.training


def test_a_gradient_that_is_not_finite_ends_the_run_by_name(tmp_path: Path) -> None:
    class Broken(Line):
        def terms(self, step: int, part: int) -> Terms:
            return Terms(self.module.weight.sum() * float("nan"), {})

    with pytest.raises(FloatingPointError, match="step 0"):
        _run(Broken(), Schedule(3, dtype=FLOAT32), tmp_path)
