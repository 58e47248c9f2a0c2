"""What tasks are measured by: the right cases, beside the right baselines."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.training.tiny_tokenizer import tiny_tokenizer
from training.tasks.cases import LABELS, Case
from training.tasks.measure import measure_claims, measure_rewrites, measure_summaries


class Parrot:
    """Says every claim is supported, and writes the question it was asked."""

    def __init__(self) -> None:
        self.tokenizer = tiny_tokenizer(("who", "owned", "built", "the", "old", "mill", "?", "burned"))

    def choose(self, cases: Sequence[Case]) -> list[str]:
        return [LABELS[0] for _ in cases]

    def write(self, cases: Sequence[Case], *, max_new_tokens: int) -> list[str]:
        return [case.question for case in cases]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def write(name: str, *rows: dict[str, object]) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        with gzip.open(tmp_path / name, "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    texts = ["Anna Reed owned the old mill and Tom Hale built the old mill.", "The old mill burned."]
    write(
        "squad-open/passages.jsonl.gz", *({"id": f"dev-{i}", "title": "Mill", "text": t} for i, t in enumerate(texts))
    )
    asked = {"Who owned the old mill?": "Anna Reed", "Who built the old mill?": "Tom Hale"}
    rows = [{"id": q, "question": q, "answers": [a], "passage_id": "dev-0"} for q, a in asked.items()]
    write("squad-open/questions_dev.jsonl.gz", *rows)
    abstract = {"id": "1", "question": "Does tea help?", "contexts": ["We gave tea.", "Tea does help."]}
    write("pubmedqa/pqal.jsonl.gz", {**abstract, "long_answer": "Tea does help.", "decision": "no"})
    passage = {"title": "Mill", "text": texts[0]}
    write("clapnq/dev_answerable.jsonl.gz", {"input": "Who?", "passages": [passage], "output": [{"answer": texts[0]}]})
    turns = [
        {"raw_utterance": "Who owned the mill?", "manual_rewritten_utterance": "Who owned the mill?"},
        {"raw_utterance": "Who built it?", "manual_rewritten_utterance": "Who built the mill?"},
        {"raw_utterance": "Where is Rome?", "manual_rewritten_utterance": "Where is Rome?"},
    ]
    for name in ("2020_manual", "2021_manual", "2022_flat"):
        write(f"trec-cast/{name}.jsonl.gz", {"number": 1, "turn": turns})
    return tmp_path


def test_accuracy_stands_beside_the_majority_and_the_model_without_the_passage(data: Path) -> None:
    scores = measure_claims(Parrot(), data, limit=30)  # type: ignore[arg-type]
    claims = scores["squad dev claims"]
    assert claims["recall of supported"] == 1.0
    assert claims["recall of refuted"] == 0.0
    assert claims["accuracy"] == claims["without passage"] <= claims["majority"]
    assert scores["pubmedqa test"]["accuracy"] == 0.0


def test_rewrites_are_measured_over_the_turns_that_people_changed(data: Path) -> None:
    scores = measure_rewrites(Parrot(), data, limit=10)  # type: ignore[arg-type]
    assert {way: each["n"] for way, each in scores.items()} == {
        "raw question": 3, "history and question": 3, "rewritten": 3, "clear questions, rewritten": 3,
    }  # fmt: skip
    assert scores["rewritten"] == scores["raw question"]
    assert scores["history and question"]["words"] == 7
    assert scores["clear questions, rewritten"]["rouge_l"] == 1.0


def test_summaries_stand_beside_copied_sentences(data: Path) -> None:
    scores = measure_summaries(Parrot(), data, limit=10)  # type: ignore[arg-type]
    assert scores["pubmedqa test: first sentence"]["rouge_l"] < 1
    assert scores["pubmedqa test: sentence most like the question"]["rouge_l"] == 1.0
    assert scores["clapnq dev: first sentence"]["rouge_l"] == 1.0
    assert scores["clapnq dev: generated"]["rouge_l"] < 0.2
