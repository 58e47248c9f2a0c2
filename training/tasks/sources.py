"""Questions with their passages, as text, from the shared data; which of them train and which are held out."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from evaluation.answers import f1
from ingestion.chunker import ChunkOptions, chunk_text
from serving.sentences import sentence_starts
from training.generator.negatives import TermIndex
from training.generator.pool import hash_unit, read_json_lines
from training.retriever.data import Passage

TRAINING_SETS = (
    ("squad-open/passages.jsonl.gz", "squad-open/questions_train.jsonl.gz"),
    ("squadshifts/new_wiki_passages.jsonl.gz", "squadshifts/new_wiki_questions.jsonl.gz"),
    ("squadshifts/amazon_reviews_passages.jsonl.gz", "squadshifts/amazon_reviews_questions.jsonl.gz"),
    ("squadshifts/reddit_passages.jsonl.gz", "squadshifts/reddit_questions.jsonl.gz"),
    ("fairytaleqa/train_passages.jsonl.gz", "fairytaleqa/train_questions.jsonl.gz"),
)
SQUAD_DEV = ("squad-open/passages.jsonl.gz", "squad-open/questions_dev.jsonl.gz")
NUM_PUBMED_TEST = 200


@dataclass(frozen=True, slots=True)
class Known:
    """A question whose answer stands, word for word, in its passage."""

    id: str
    question: str
    answer: str
    passage: Passage


@dataclass(frozen=True, slots=True)
class Abstract:
    """A PubMedQA question: ``text`` is the abstract without its conclusion, which is ``conclusion``."""

    id: str
    question: str
    text: str
    conclusion: str
    decision: str


def read_known(data: Path, passages: str, questions: str) -> list[Known]:
    """The questions of a set that have a literal answer, the shortest of theirs, in the file's order."""
    by_id = {row["id"]: Passage(row["id"], row["title"], row["text"]) for row in read_json_lines(data / passages)}
    return list(_known(read_json_lines(data / questions), by_id))


def _known(rows: Iterator[dict[str, Any]], by_id: dict[str, Passage]) -> Iterator[Known]:
    for row in rows:
        passage = by_id[row["passage_id"] if "passage_id" in row else row["passage_ids"][0]]
        literal = [answer.strip() for answer in row["answers"] if answer.strip() and answer.strip() in passage.text]
        if literal:
            yield Known(row["id"], row["question"].strip(), min(literal, key=len), passage)


def by_passage(known: Sequence[Known]) -> list[list[Known]]:
    """The questions of each passage, in order."""
    groups: dict[str, list[Known]] = defaultdict(list)
    for each in known:
        groups[each.passage.id].append(each)
    return list(groups.values())


def cropped(known: Known) -> Known:
    """The question with the 100 words of its passage, as ingestion cuts documents, that hold the answer best."""
    text, answer = known.passage.text, known.answer
    chunks = [text[chunk.start : chunk.end] for chunk in chunk_text(text, ChunkOptions())]
    able = [chunk for chunk in chunks if answer in chunk]
    if not able:  # The answer lies across two of them.
        return known
    best = max(able, key=lambda chunk: f1(known.question, [chunk]))
    return replace(known, passage=replace(known.passage, text=best))


def passages_of(known: Iterable[Known]) -> list[Passage]:
    """Their passages, each once."""
    return list({each.passage.id: each.passage for each in known}.values())


def find_nearby(
    known: Sequence[Known], passages: Sequence[Passage], tokenizer: PreTrainedTokenizerBase, *, top_k: int = 8
) -> dict[str, list[Passage]]:
    """By question id, the passages that BM25 finds and that do not hold the answer, best first."""
    index = TermIndex(map(tuple, tokenizer([each.text for each in passages], add_special_tokens=False)["input_ids"]))
    queries = tokenizer([each.question for each in known], add_special_tokens=False)["input_ids"]
    nearby: dict[str, list[Passage]] = {}
    for each, query in zip(known, queries, strict=True):
        found = (passages[place] for place in index.nearest(query, top_k + 4))
        nearby[each.id] = [passage for passage in found if each.answer.lower() not in passage.text.lower()][:top_k]
    return nearby


def read_abstracts(data: Path) -> tuple[list[Abstract], list[Abstract]]:
    """PubMedQA, 800 to train on and 200 to measure, split by a hash of the id."""
    rows = sorted(read_json_lines(data / "pubmedqa/pqal.jsonl.gz"), key=lambda row: hash_unit(f"pubmedqa:{row['id']}"))
    abstracts = [
        Abstract(row["id"], row["question"], " ".join(row["contexts"]), row["long_answer"], row["decision"])
        for row in rows
    ]
    return abstracts[NUM_PUBMED_TEST:], abstracts[:NUM_PUBMED_TEST]


def sentences(text: str) -> list[str]:
    """The sentences of a text, without the space between them."""
    starts = sentence_starts(text, "en")
    ends = [*starts[1:], len(text)]
    return [text[start:end].strip() for start, end in zip(starts, ends, strict=True) if text[start:end].strip()]
