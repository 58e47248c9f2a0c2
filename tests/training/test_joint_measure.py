"""What joint training changed, measured: both halves before and after, over collections of each encoder's own."""

import gzip
import json
import shutil
from pathlib import Path

import pytest

from tests.training.joint_toy import WORDS, make_world, save_encoder
from tests.training.tiny_tokenizer import tiny_tokenizer
from training.joint import measure as program
from training.joint.knowledge import read_from_files


def test_each_half_is_measured_before_and_after_and_a_second_run_asks_nothing_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_world(tmp_path)
    save_encoder(tmp_path / "other", tiny_tokenizer(WORDS), seed=7)
    squad, work = tmp_path / "shared/squad-open", tmp_path / "work"
    squad.mkdir(parents=True)
    passages = read_from_files(tmp_path / "data", "toy").passages
    rows = [json.dumps({"id": one.id, "title": one.title, "text": one.text}) for one in passages]
    (squad / "passages.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    shutil.copy(tmp_path / "questions.jsonl.gz", squad / "questions_dev.jsonl.gz")
    flags = ["--before-encoder", str(tmp_path / "encoder"), "--after-encoder", str(tmp_path / "other")]
    flags += ["--before-generator", str(tmp_path / "generator"), "--after-generator", str(tmp_path / "generator")]
    flags += ["--data", str(tmp_path / "shared"), "--work", str(work), "--answers", "6", "--threads", "1"]
    program.main(flags)
    assert "dense after+after (n=6)" in capsys.readouterr().out
    asked = {path.name: path.read_text().splitlines() for path in work.glob("*.jsonl")}
    assert len(asked["hybrid-before.jsonl"]) == 25  # A line of settings, then the questions.
    assert len(asked["hybrid-after-after.jsonl"]) == 7
    found = json.loads((work / "comparison.json").read_text())
    assert found["dense before"]["differences"]["recall@1"]["change"]["value"] == 0
    assert found["dense after"]["differences"]["recall@1"]["change"]["value"] != 0
    program.main(flags)
    assert {path.name: path.read_text().splitlines() for path in work.glob("*.jsonl")} == asked
