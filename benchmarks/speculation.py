"""Lookup speculation on and off: decode steps and CPU time of the same greedy answers.

Answers questions by RAG-Token, greedy, over some passages each (by weighted word overlap), once as they come (short)
and once with at least 32 tokens (long: what this model copies and babbles when it must not stop), one request at a time
and eight together. Process CPU time of decoding (without reading) with one thread, variants interleaved. Usage:

    python -m benchmarks.speculation
    python -m benchmarks.speculation --passages P.jsonl.gz --questions Q.jsonl.gz --out FILE.json
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import ROOT, describe
from evaluation.datasets import lines_of
from generator_service.decoding import marginal
from generator_service.decoding.constraints import Constraints
from generator_service.decoding.greedy import GreedySearch
from generator_service.decoding.rag_token import RagToken, TokenProgramOptions
from generator_service.models.base import EncodedRow, Seq2SeqModel
from generator_service.models.loading import LoadedGenerator, load_generator
from generator_service.request import Passage
from generator_service.text import TextCodec
from ingestion.files import find_files
from ingestion.reading import ReadOptions, read_passages

_LENGTHS = {"short": (1, 64), "long": (32, 48)}
_TOGETHER = (1, 8)


@dataclass(frozen=True, slots=True)
class Ready:
    """One question, read: what is measured begins here."""

    rows: Sequence[Sequence[int]]
    encoded: Sequence[EncodedRow]
    log_prior: torch.Tensor


@dataclass(slots=True)
class Cost:
    """What decoding took."""

    seconds: float = 0.0
    steps: int = 0
    answers: tuple[tuple[int, ...], ...] = ()


def main() -> None:
    """Prints one line per length and load, and writes them where asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--passages", type=Path, default=ROOT / "examples" / "sample_kb", help="a file or a folder")
    parser.add_argument("--questions", type=Path, default=ROOT / "examples" / "sample_questions" / "questions.jsonl")
    parser.add_argument("--num-questions", type=int, default=64)
    parser.add_argument("--num-passages", type=int, nargs="+", default=[5, 1], help="per question")
    parser.add_argument("--draft-tokens", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cache = Path("~/.cache/rag-serving").expanduser()
    generator = load_generator(options.model, dtype=options.dtype, device="cpu", cache_dir=cache)
    rows = []
    for count in options.num_passages:
        questions = _read(generator, count, options)
        for length in _LENGTHS:
            for together in _TOGETHER:
                measured = _compare(generator.model, questions, length, together, options)
                rows.append({"num_passages": count, "length": length, "requests_together": together, **measured})
                print(rows[-1], flush=True)
    if options.out:
        setting = {"model": options.model, "dtype": options.dtype, "draft_tokens": options.draft_tokens}
        options.out.write_text(json.dumps({**describe(), **setting, "rows": rows}, indent=1) + "\n")


def _read(generator: LoadedGenerator, num_passages: int, options: argparse.Namespace) -> list[Ready]:
    codec = TextCodec(generator.tokenizer, generator.prompt)
    found, _ = find_files([options.passages])
    passages = [each for file in found for each in read_passages(file.path, file.source, ReadOptions())]
    texts = [Passage(str(i), each.title, each.text) for i, each in enumerate(passages)]
    words = [Counter(re.findall(r"\w+", f"{each.title} {each.text}".lower())) for each in texts]
    rarity = {word: math.log(len(texts) / count) for word, count in Counter(w for each in words for w in each).items()}
    questions = [json.loads(line)["question"] for line in lines_of(options.questions)]
    random.Random(0).shuffle(questions)
    ready = []
    for question in questions[: options.num_questions]:
        asked = set(re.findall(r"\w+", question.lower()))
        scores = [sum(rarity[word] for word in asked if word in each) / math.log(9 + len(each)) for each in words]
        best = sorted(range(len(texts)), key=lambda i: -scores[i])[:num_passages]
        rows = codec.rows(question, [texts[i] for i in best])
        prior = marginal.normalize_log_prior([2 * scores[i] for i in best])
        ready.append(Ready(rows, generator.model.encode(rows), prior))
    return ready


def _compare(
    model: Seq2SeqModel, questions: Sequence[Ready], length: str, together: int, options: argparse.Namespace
) -> dict[str, Any]:
    drafts = {"off": 0, "lookup": options.draft_tokens}
    best: dict[str, Cost] = {}
    for _ in range(options.repeats):
        costs = {name: Cost() for name in drafts}
        for first in range(0, len(questions), together):
            for name, tokens in drafts.items():
                _decode(model, questions[first : first + together], _LENGTHS[length], tokens, costs[name])
        for name, cost in costs.items():
            best[name] = min(best.get(name, cost), cost, key=lambda each: each.seconds)
    off, lookup = best["off"], best["lookup"]
    num_tokens = sum(map(len, off.answers))
    return {
        "answers": len(questions),
        "equal_answers": sum(one == other for one, other in zip(off.answers, lookup.answers, strict=True)),
        "tokens_per_answer": round(num_tokens / len(questions), 2),
        "steps_off": off.steps,
        "steps_lookup": lookup.steps,
        "ms_per_answer_off": round(1000 * off.seconds / len(questions), 2),
        "ms_per_answer_lookup": round(1000 * lookup.seconds / len(questions), 2),
        "cpu_ratio": round(off.seconds / lookup.seconds, 2),
    }


@torch.inference_mode()
def _decode(
    model: Seq2SeqModel, questions: Sequence[Ready], bounds: tuple[int, int], draft_tokens: int, cost: Cost
) -> None:
    """Decodes some questions together and adds what it took."""
    spec = model.spec
    programs = []
    for each in questions:
        search = GreedySearch(
            num_problems=1,
            start_token_id=spec.decoder_start_token_id,
            constraints=Constraints(spec.eos_token_id, max_new_tokens=bounds[1], min_new_tokens=bounds[0]),
        )
        program = RagToken(each.rows, each.log_prior, search, TokenProgramOptions(draft_tokens=draft_tokens))
        program.start(model, each.encoded)
        programs.append(program)
    steps = model.counters["steps"]
    started = time.process_time()
    running = programs
    while running:
        for program, logits in zip(running, model.step([program.items()[0] for program in running]), strict=True):
            program.advance([logits])
        running = [program for program in running if not program.is_done]
    cost.seconds += time.process_time() - started
    cost.steps += model.counters["steps"] - steps
    cost.answers += tuple(program.finish().hypotheses[0].token_ids for program in programs)


if __name__ == "__main__":
    main()
