"""``python -m training.tasks.measure``: what a checkpoint is worth at each task, beside simple ways to do without it.

Everything is measured on questions never trained on; passages are given, except in ``retrieval``.
"""

import argparse
import json
import logging
import os
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from evaluation.answers import exact_match, f1, rouge_l
from evaluation.extractive import best_sentence, lead, most_like
from gateway.prompts import Turn
from training.generator.pool import read_json_lines
from training.runtime.flags import add_data_flag
from training.tasks.cases import LABELS, REWRITING, SUMMARIZATION, Case
from training.tasks.claims import ClaimMaker, abstract_claim
from training.tasks.sources import SQUAD_DEV, find_nearby, passages_of, read_abstracts, read_known, sentences
from training.tasks.summaries import conclusion
from training.tasks.turns import measure_turns
from training.tasks.writing import Writer

_CAST = ("2020_manual", "2021_manual", "2022_flat")
_MAX_SUMMARY_TOKENS, _MAX_QUESTION_TOKENS = 96, 48

Scores = dict[str, float]


def measure_claims(writer: Writer, data: Path, *, limit: int) -> dict[str, Scores]:
    """Accuracy on claims made of SQuAD dev questions, whose articles were never trained on, and on PubMedQA."""
    known = read_known(data, *SQUAD_DEV)
    maker = ClaimMaker(known, find_nearby(known, passages_of(known), writer.tokenizer))
    rng = random.Random(0)
    drawn = (maker.draw(rng.choice(known), LABELS[number % 3], rng) for number in range(2 * limit))
    claims = [claim for claim in drawn if claim is not None][:limit]
    _, abstracts = read_abstracts(data)
    return {
        "squad dev claims": _accuracies(writer, claims),
        "pubmedqa test": _accuracies(writer, [abstract_claim(each) for each in abstracts]),
    }


def _accuracies(writer: Writer, cases: Sequence[Case]) -> Scores:
    chosen = writer.choose(cases)
    blind = writer.choose([Case(case.task, case.question, case.target) for case in cases])
    targets = [case.target for case in cases]

    def share(found: Sequence[str], label: str | None = None) -> float:
        return float(np.mean([f == t for f, t in zip(found, targets, strict=True) if label in (None, t)]))

    per_label = {f"recall of {label}": share(chosen, label) for label in LABELS if label in targets}
    majority = max(targets.count(label) for label in LABELS) / len(targets)
    return {
        "n": len(cases),
        "accuracy": share(chosen),
        **per_label,
        "without passage": share(blind),
        "majority": majority,
    }


def measure_rewrites(writer: Writer, data: Path, *, limit: int) -> dict[str, Scores]:
    """TREC CAsT: how close rewrites come to those that people wrote, over the turns that people changed."""
    cases = [case for name in _CAST for case in _cast(data / f"trec-cast/{name}.jsonl.gz")]
    changed = [case for case in cases if exact_match(case.question, [case.target]) == 0][:limit]
    ways = {
        "raw question": [case.question for case in changed],
        "history and question": [" ".join([*(turn.text for turn in case.history), case.question]) for case in changed],
        "rewritten": writer.write(changed, max_new_tokens=_MAX_QUESTION_TOKENS),
    }
    clear = [case for case in cases if exact_match(case.question, [case.target]) == 1][:limit]
    kept = writer.write(clear, max_new_tokens=_MAX_QUESTION_TOKENS)
    scores = {way: _closeness(texts, [(case.target,) for case in changed]) for way, texts in ways.items()}
    scores["clear questions, rewritten"] = _closeness(kept, [(case.target,) for case in clear])
    return scores


def _cast(path: Path) -> Iterator[Case]:
    """Every turn but a dialogue's first, after the user's turns before it as they were said."""
    for row in read_json_lines(path):
        said = [turn.get("raw_utterance", turn.get("utterance", "")).strip() for turn in row["turn"]]
        for number, turn in enumerate(row["turn"][1:], start=1):
            history = tuple(Turn("user", text) for text in said[:number])
            yield Case(REWRITING, said[number], turn["manual_rewritten_utterance"].strip(), history=history)


def measure_summaries(writer: Writer, data: Path, *, limit: int) -> dict[str, Scores]:
    """ROUGE-L of one passage's summary: PubMedQA conclusions, and CLAP NQ's long answers, never trained on."""
    _, abstracts = read_abstracts(data)
    pubmed = [conclusion(each) for each in abstracts][:limit]
    scores = _summaries("pubmedqa test", writer, pubmed, [(case.target,) for case in pubmed])
    rows = list(read_json_lines(data / "clapnq/dev_answerable.jsonl.gz"))[:limit]
    clapnq = [
        Case(SUMMARIZATION, row["input"], "", row["passages"][0]["title"], row["passages"][0]["text"]) for row in rows
    ]
    golds = [tuple(output["answer"] for output in row["output"]) for row in rows]
    return {**scores, **_summaries("clapnq dev", writer, clapnq, golds)}


def _summaries(name: str, writer: Writer, cases: Sequence[Case], golds: Sequence[tuple[str, ...]]) -> dict[str, Scores]:
    told = [sentences(case.text) for case in cases]
    ways = {
        "generated": writer.write(cases, max_new_tokens=_MAX_SUMMARY_TOKENS),
        "first sentence": [lead(each, 1) for each in told],
        "first two sentences": [lead(each, 2) for each in told],
        "sentence most like the question": [
            most_like(each, case.question) for each, case in zip(told, cases, strict=True)
        ],
        "best sentence (looks at the answer)": [
            best_sentence(each, gold) for each, gold in zip(told, golds, strict=True)
        ],
    }
    return {f"{name}: {way}": _closeness(texts, golds) for way, texts in ways.items()}


def _closeness(texts: Sequence[str], golds: Sequence[tuple[str, ...]]) -> Scores:
    return {
        "n": len(texts),
        "rouge_l": float(np.mean([rouge_l(text, gold) for text, gold in zip(texts, golds, strict=True)])),
        "f1": float(np.mean([f1(text, gold) for text, gold in zip(texts, golds, strict=True)])),
        "words": float(np.mean([len(text.split()) for text in texts])),
    }


SETS = ("claims", "rewrites", "summaries", "turns")


def main(arguments: list[str] | None = None) -> None:
    """Measure a checkpoint and print the scores as JSON."""
    parser = argparse.ArgumentParser(prog="python -m training.tasks.measure", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="folder of a Hugging Face checkpoint")
    add_data_flag(parser)
    parser.add_argument("--limit", type=int, default=600, help="cases of each set (%(default)s)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS)
    parser.add_argument("--work", type=Path, default=Path("tasks-knowledge-base"), help="keeps what turns are asked of")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    flags = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(flags.threads)
    writer = Writer(flags.checkpoint)
    measures: dict[str, Callable[..., dict[str, Scores]]] = {
        "claims": measure_claims,
        "rewrites": measure_rewrites,
        "summaries": measure_summaries,
        "turns": partial(measure_turns, work=flags.work),
    }
    report: dict[str, dict[str, Scores]] = {}
    for name in flags.sets:
        report[name] = measures[name](writer, flags.data, limit=flags.limit)
        logging.info("%s: %s", name, json.dumps(report[name]))
    Console().print_json(json.dumps(report))


if __name__ == "__main__":
    main()
