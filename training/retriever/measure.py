"""``python -m training.retriever.measure``: how well an encoder finds each question's own passage among all.

Dense, lexical (BM25) and hybrid, all over the same pool; hybrid with the retriever's default weight and with the one
that is best on train questions that no training saw. Another encoder is compared question by question.
"""

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from evaluation.estimates import bootstrap, permutation_p_value
from retriever_service.bi_encoder import BiEncoder
from retriever_service.checkpoint import MINILM
from retriever_service.collection import SENTENCE_FUSION
from retriever_service.encoder import PassageText, Query
from retriever_service.fusion import Fusion, linear
from retriever_service.vectors import mixed
from serving.sentences import split_sentences
from training.retriever.data import Corpus, Passage, Question, Source, read_corpus, read_pool
from training.retriever.mining import lexical_index
from training.retriever.ranking import CUTS, Floats, Places, gold_ranks, metrics_of
from training.retriever.towers import passage_texts
from training.runtime.flags import add_data_flag

_TUNED_AT = 5
_WEIGHTS = np.exp2(np.arange(-14, -1) / 2) * 0.32  # 0.0025 to 0.16, by the square root of 2.


def dense_scores(model: BiEncoder, passages: Sequence[Passage], questions: Sequence[Question]) -> tuple[Floats, Floats]:
    """The retriever's dense scores (Q, P): with each passage's best sentence, and of whole passages alone."""
    asked = model.encode([Query(question.text) for question in questions])
    whole = (asked @ model.encode(passage_texts(passages)).T).astype(np.float64)
    parts = [split_sentences(passage.text, "en") or [passage.text] for passage in passages]
    texts = [
        PassageText(part, one.title) for one, of_passage in zip(passages, parts, strict=True) for part in of_passage
    ]
    sentences = model.encode(texts)
    starts = np.cumsum([0, *map(len, parts[:-1])])
    best = [np.maximum.reduceat(asked[i : i + 512] @ sentences.T, starts, axis=1) for i in range(0, len(asked), 512)]
    return mixed(whole, np.concatenate(best)), whole


def lexical_scores(corpus: Corpus, questions: Sequence[Question]) -> Floats:
    """BM25 (Q, P) of the retriever's own index; 0 where no word matches."""
    scores = np.zeros((len(questions), len(corpus.passages)))
    with lexical_index(corpus.passages) as index:
        for row, question in enumerate(questions):
            places, values = index.search(question.text, len(corpus.passages))
            scores[row, places] = values
    return scores


def best_weight(dense: Floats, lexical: Floats, gold: Places) -> float:
    """The lexical weight that maximises MRR + recall@5, which is what `rag tune` fits."""

    def gain(weight: float) -> float:
        ranks = gold_ranks(dense + weight * lexical, gold)
        return float((1 / ranks + (ranks <= _TUNED_AT)).mean())

    return round(float(max(_WEIGHTS, key=gain)), 4)


class Pool:
    """Passages with the questions that measure, and the train questions on the same passages that tune."""

    def __init__(self, measured: Corpus, tuning: Sequence[Question]) -> None:
        self.corpus, self._num = measured, len(measured.held_out)
        self.questions = [*measured.held_out, *tuning]
        self._gold = np.array([question.passage for question in self.questions])
        self._lexical = lexical_scores(measured, self.questions)

    def measure(self, encoder: str, passage_encoder: str, dtype: str) -> tuple[dict[str, dict[str, Floats]], float]:
        """Stage → metric → values (Q,), and the tuned lexical weight."""
        model = BiEncoder(encoder, passage_encoder, dtype=dtype)
        dense, whole = dense_scores(model, self.corpus.passages, self.questions)
        num, lexical = self._num, self._lexical
        weight = best_weight(dense[num:], lexical[num:], self._gold[num:])
        fused = {"hybrid": SENTENCE_FUSION, "hybrid, tuned": Fusion(lexical_weight=weight)}
        stages = {"dense": dense[:num], "BM25": lexical[:num]}
        stages |= {name: linear(dense[:num], lexical[:num], fusion) for name, fusion in fused.items()}
        stages["dense, whole passages"] = whole[:num]
        stages["hybrid, whole passages"] = linear(whole[:num], lexical[:num], Fusion())
        return {name: metrics_of(gold_ranks(scores, self._gold[:num])) for name, scores in stages.items()}, weight


def read_measured(data: Path) -> Pool:
    """SQuAD's dev questions and all passages; train questions whose passages every training holds out tune."""
    passages = data / "squad-open/passages.jsonl.gz"
    dev = read_pool(Source(passages, data / "squad-open/questions_dev.jsonl.gz"))
    train = read_corpus([Source(passages, data / "squad-open/questions_train.jsonl.gz")])
    place_of = {passage.id: place for place, passage in enumerate(dev.passages)}
    tuning = [
        Question(each.id, each.text, each.answers, place_of[train.passages[each.passage].id]) for each in train.held_out
    ]
    return Pool(dev, tuning)


def measure(
    pool: Pool, encoder: str, against: str, *, passage_encoder: str = "", dtype: str = "float32"
) -> dict[str, Any]:
    """All numbers as plain values for JSON; `against` "" compares with nothing."""
    after, weight = pool.measure(encoder, passage_encoder, dtype)
    report: dict[str, Any] = {
        "encoder": encoder,
        "num_questions": len(pool.corpus.held_out),
        "num_passages": len(pool.corpus.passages),
        "lexical_weight": SENTENCE_FUSION.lexical_weight,
        "tuned_lexical_weight": weight,
        "stages": {
            stage: {name: asdict(bootstrap(values.tolist())) for name, values in metrics.items()}
            for stage, metrics in after.items()
        },
    }
    if against:
        before, other_weight = pool.measure(against, "", dtype)
        report["against"] = {
            "encoder": against,
            "tuned_lexical_weight": other_weight,
            "stages": {
                stage: {name: _change(before[stage][name], values) for name, values in metrics.items()}
                for stage, metrics in after.items()
            },
        }
    return report


def _change(before: Floats, after: Floats) -> dict[str, Any]:
    changes = (after - before).tolist()
    return {
        "before": asdict(bootstrap(before.tolist())),
        "change": asdict(bootstrap(changes)),
        "p_value": permutation_p_value(changes),
    }


def show(report: dict[str, Any], console: Console) -> None:
    """Prints the report as a table, in percent."""
    sizes = f"{report['num_questions']} questions, {report['num_passages']} passages"
    table = Table("stage", *(f"recall@{cut}" for cut in CUTS), "MRR", title=f"{report['encoder']}: {sizes}")
    for stage, metrics in report["stages"].items():
        table.add_row(
            stage, *(f"{100 * m['value']:.1f} ({100 * m['low']:.1f}-{100 * m['high']:.1f})" for m in metrics.values())
        )
    for stage, metrics in report.get("against", {}).get("stages", {}).items():
        changes = [metric["change"] for metric in metrics.values()]
        table.add_row(
            f"{stage}, change",
            *(f"{100 * c['value']:+.1f} ({100 * c['low']:+.1f}-{100 * c['high']:+.1f})" for c in changes),
        )
    console.print(table)


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints a table, writes JSON."""
    parser = argparse.ArgumentParser(prog="python -m training.retriever.measure", description=__doc__)
    parser.add_argument("--encoder", default=MINILM, help="name or path")
    parser.add_argument("--passage-encoder", default="", help="where it is another one, as of a DPR pair")
    parser.add_argument("--against", default="", metavar="ENCODER", help="compare with this one")
    add_data_flag(parser)
    parser.add_argument("--out", type=Path, default=None, help="JSON file to write")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    flags = parser.parse_args(arguments)
    torch.set_num_threads(flags.threads)
    pool = read_measured(flags.data)
    report = measure(pool, flags.encoder, flags.against, passage_encoder=flags.passage_encoder, dtype=flags.dtype)
    show(report, Console())
    if flags.out is not None:
        flags.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
