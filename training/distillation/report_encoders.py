"""Two bi-encoders side by side: how well they find each question's own passage, size, and CPU time of a query."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retriever_service.bi_encoder import BiEncoder
from retriever_service.checkpoint import find_directory
from retriever_service.encoder import Query
from training.distillation.side_by_side import Line, Pairs
from training.retriever.data import Source, read_pool
from training.retriever.ranking import gold_ranks, metrics_of
from training.retriever.towers import passage_texts

_ROUNDS = 3


def compare_encoders(names: Sequence[str], data: Path, *, limit: int, num_timed: int) -> list[Line]:
    """What there is to say of the teacher and the student, in this order in ``names``."""
    encoders = [BiEncoder(name) for name in names]
    folder = data / "squad-open"
    pool = read_pool(Source(folder / "passages.jsonl.gz", folder / "questions_dev.jsonl.gz"))
    chosen = np.random.default_rng(0).permutation(len(pool.held_out))[:limit]
    questions = [pool.held_out[place] for place in chosen]
    gold = np.array([question.passage for question in questions])
    queries = [Query(question.text) for question in questions]
    metrics = []
    for encoder in encoders:
        scores = encoder.encode(queries) @ encoder.encode(passage_texts(pool.passages)).T
        metrics.append(metrics_of(gold_ranks(scores.astype(np.float64), gold)))
    where = f"{len(questions)} questions, {len(pool.passages)} passages"
    return [
        *(
            Line.paired(f"dense {name}, {where}", "%", [(100 * each[name]).tolist() for each in metrics])
            for name in metrics[0]
        ),
        Line.of("parameters", "M", (encoder.info.num_parameters / 1e6 for encoder in encoders)),
        Line.of("weights on disk", "MB", map(_megabytes, names)),
        Line.of("dimensions", "", (float(encoder.info.identity.dim) for encoder in encoders)),
        Line.of("CPU time of a query, float32", "ms", _milliseconds(encoders, queries[:num_timed])),
    ]


def _megabytes(name: str) -> float:
    return sum(file.stat().st_size for file in find_directory(name).rglob("*.safetensors")) / 1e6


def _milliseconds(encoders: Sequence[BiEncoder], queries: Sequence[Query]) -> list[float]:
    """Mean process CPU time of one query, the encoders in turns."""
    seconds: Pairs = [[], []]
    for number in range(_ROUNDS):
        for query in queries:
            for encoder, taken in zip(encoders, seconds, strict=True):
                started = time.process_time()
                encoder.encode([query])
                if number:  # The first round is for caches and kernels.
                    taken.append(1000 * (time.process_time() - started))
    return [float(np.mean(taken)) for taken in seconds]
