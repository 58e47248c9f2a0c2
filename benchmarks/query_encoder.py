"""The retriever's encoder against transformers' own model: queries and passages, from text to vector.

Each variant runs in a process of its own, as it would be used, with one thread; the rounds of all variants take turns,
so that neighbours on the machine slow them alike. What counts is process CPU time: the median round. The peer is
transformers as it comes (AutoModel in float32, its tokenizer with padding, mean pooling), or sentence-transformers.

    python -m benchmarks.query_encoder [--peer sentence-transformers] [--rounds 15] [--out FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.machine import RESULTS, describe

ENCODER = "all-MiniLM-L6-v2"
PEERS = ("transformers", "sentence-transformers")
OURS = ("float32", "bfloat16")
MAX_DEVIATION = {"float32": 1e-6, "bfloat16": 1e-4}
# One token each in BERT's vocabulary.
WORDS = (
    "who",
    "wrote",
    "first",
    "book",
    "about",
    "sea",
    "and",
    "land",
    "where",
    "king",
    "river",
    "city",
    "old",
    "stone",
)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Workload:
    """Texts that are encoded in one call. Goals are ratios to the peer, None where there is none."""

    name: str
    num_tokens: tuple[int, ...]
    calls: int
    goals: tuple[float | None, float | None] = (None, None)

    def texts(self) -> list[str]:
        """One text for each number of tokens, the two special ones included."""
        source = random.Random(self.name)
        return [" ".join(source.choices(WORDS, k=count - 2)) for count in self.num_tokens]


WORKLOADS = (
    Workload("query of 16 tokens", (16,), 40, (2.5, 3.8)),
    Workload("32 queries of 16 tokens", (16,) * 32, 3, (2.3, 3.7)),
    Workload("32 queries of 6 to 30 tokens", tuple(6 + 7 * i % 25 for i in range(32)), 3),
    Workload("16 passages of 200 tokens", (200,) * 16, 1),
    Workload("16 passages of 100 to 250 tokens", tuple(100 + 10 * i for i in range(16)), 1),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One result: milliseconds of CPU per call, and the largest 1 - cosine to the peer's vectors."""

    name: str
    dtype: str
    peer_ms: float
    ours_ms: float
    ratio: float
    goal: float | None
    texts_per_second: float
    peer_texts_per_second: float
    deviation: float
    max_deviation: float


def main() -> None:
    """Prints the table and writes it down."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=PEERS, default=PEERS[0])
    parser.add_argument("--rounds", type=int, default=15, help="rounds over all variants; the median counts")
    parser.add_argument("--out", type=Path, default=RESULTS / "query_encoder.json")
    options = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    rows: list[Row] = []
    variants = {name: _start(name) for name in (options.peer, *OURS)}
    for workload in WORKLOADS:
        rows += _compare(workload, variants, options.peer, options.rounds)
    for connection in variants.values():
        connection.send(None)
    result = {
        **describe(),
        "encoder": ENCODER,
        "peer": options.peer,
        "rounds": options.rounds,
        "rows": [asdict(row) for row in rows],
    }
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {options.out}")


def _compare(workload: Workload, variants: dict[str, Connection], peer: str, rounds: int) -> list[Row]:
    texts = workload.texts()
    milliseconds: dict[str, list[float]] = {name: [] for name in variants}
    vectors: dict[str, Vectors] = {}
    for number, (name, connection) in itertools.product(range(rounds + 1), variants.items()):
        connection.send((texts, workload.calls))
        elapsed, vectors[name] = connection.recv()
        if number:  # The first round warms up.
            milliseconds[name].append(elapsed)
    medians = {name: statistics.median(values) for name, values in milliseconds.items()}
    rows = []
    for dtype, goal in zip(OURS, workload.goals, strict=True):
        rows.append(
            _row(workload, dtype, goal, medians[peer], medians[dtype], _deviation(vectors[dtype], vectors[peer]))
        )
        _print(rows[-1])
    return rows


def _row(workload: Workload, dtype: str, goal: float | None, peer_ms: float, ours_ms: float, deviation: float) -> Row:
    per_second = [1000 * len(workload.num_tokens) / each for each in (ours_ms, peer_ms)]
    return Row(
        name=workload.name,
        dtype=dtype,
        peer_ms=round(peer_ms, 3),
        ours_ms=round(ours_ms, 3),
        ratio=round(peer_ms / ours_ms, 2),
        goal=goal,
        texts_per_second=round(per_second[0], 1),
        peer_texts_per_second=round(per_second[1], 1),
        deviation=deviation,
        max_deviation=MAX_DEVIATION[dtype],
    )


def _deviation(ours: Vectors, theirs: Vectors) -> float:
    """The largest 1 - cosine, in double precision: 1 - cos = |a - b|^2 / 2 for vectors of length 1."""
    a, b = (
        each.astype(np.float64) / np.linalg.norm(each.astype(np.float64), axis=1)[:, None] for each in (ours, theirs)
    )
    return float((((a - b) ** 2).sum(1) / 2).max())


def _print(row: Row) -> None:
    verdict = "" if row.goal is None else f"  goal {row.goal}x {'pass' if row.ratio >= row.goal else 'FALLS SHORT'}"
    exact = "" if row.deviation < row.max_deviation else "  NOT EXACT ENOUGH"
    print(
        f"{row.name:34} {row.dtype:9} peer {row.peer_ms:8.2f} ms  ours {row.ours_ms:8.2f} ms  {row.ratio:5.2f}x"
        f"  {row.texts_per_second:7.1f}/s  deviation {row.deviation:.0e}{verdict}{exact}",
        flush=True,
    )


def _start(name: str) -> Connection:
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    multiprocessing.get_context("spawn").Process(target=_serve, args=(name, theirs), daemon=True).start()
    return ours


def _serve(name: str, connection: Connection) -> None:
    """The process of one variant: encodes what comes and tells how long a call took."""
    import torch

    torch.set_num_threads(1)
    encode = _PEERS[name]() if name in _PEERS else _our_encoder(name)
    while (message := connection.recv()) is not None:
        texts, calls = message
        started = time.process_time()
        for _ in range(calls):
            vectors = encode(texts)
        connection.send((1000 * (time.process_time() - started) / calls, vectors))


def _transformers() -> Callable[[Sequence[str]], Vectors]:
    import torch
    from transformers import AutoModel, AutoTokenizer

    from retriever_service.checkpoint import find_checkpoint

    path = find_checkpoint(ENCODER).path
    tokenizer, model = AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path, dtype=torch.float32).eval()

    @torch.inference_mode()
    def encode(texts: Sequence[str]) -> Vectors:
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=256, return_tensors="pt")
        states, mask = model(**batch).last_hidden_state, batch["attention_mask"][..., None].float()
        vectors: Vectors = torch.nn.functional.normalize((states * mask).sum(1) / mask.sum(1), dim=1).numpy()
        return vectors

    return encode


def _sentence_transformers() -> Callable[[Sequence[str]], Vectors]:
    from sentence_transformers import SentenceTransformer

    from retriever_service.checkpoint import find_checkpoint

    model = SentenceTransformer(str(find_checkpoint(ENCODER).path), device="cpu")
    return lambda texts: model.encode(list(texts), batch_size=len(texts), show_progress_bar=False)


_PEERS = {"transformers": _transformers, "sentence-transformers": _sentence_transformers}


def _our_encoder(dtype: str) -> Callable[[Sequence[str]], Vectors]:
    from retriever_service.bi_encoder import BiEncoder
    from retriever_service.encoder import Query
    from serving.memory import keep_freed_memory

    keep_freed_memory()  # As the service does.
    encoder = BiEncoder(ENCODER, dtype=dtype)
    return lambda texts: encoder.encode([Query(text) for text in texts])


if __name__ == "__main__":
    main()
