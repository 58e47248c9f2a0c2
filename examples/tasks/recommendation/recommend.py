"""Recommends articles from what a reader liked, over a running `rag up`, and measures how often the next one is found.

Each section of the sample knowledge base is an article. Readers are made by a rule: each is interested in one of its
files, liked three articles of it and, by chance, one of another file. A further article of the interest is left out: it
is what should be recommended.
"""

import argparse
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.retrieval import hit_at, ndcg_at
from rag_client import Passage, RagClient

SAMPLE = Path(__file__).parents[2] / "sample_kb"
COLLECTION = "articles"
NUM_LIKED, DEPTHS = 3, (1, 5, 10)

Scores = dict[str, dict[str, float]]  # way → metric → mean over readers


@dataclass(frozen=True, slots=True)
class Reader:
    """What one reader liked, and the article left out."""

    liked: tuple[str, ...]
    left_out: str


def articles() -> dict[str, list[Passage]]:
    """By file, its sections."""
    files: dict[str, list[Passage]] = {}
    for path in sorted(SAMPLE.glob("*.md")):
        title, *sections = path.read_text(encoding="utf-8").split("\n## ")
        for section in sections:
            heading, text = section.split("\n", 1)
            name = f"{path.stem}/{heading}"
            titled = f"{title.removeprefix('# ').strip()}: {heading}"
            files.setdefault(path.stem, []).append(Passage(name, text.strip(), titled, source=name))
    return files


def readers(files: dict[str, list[Passage]], count: int) -> list[Reader]:
    """Readers made by the rule, always the same ones."""
    rng, names = random.Random("readers"), sorted(files)
    made = []
    for _ in range(count):
        interest, other = rng.sample(names, 2)
        left_out, *liked = rng.sample(files[interest], NUM_LIKED + 1)
        by_chance = rng.choice(files[other])
        made.append(Reader(tuple(each.source for each in (*liked, by_chance)), left_out.source))
    return made


def measure(recommend: Callable[[Reader], Sequence[str]], made: Sequence[Reader]) -> dict[str, float]:
    """Mean recall@1, @5, @10 and nDCG@10 of the article left out."""
    found = [[name == reader.left_out for name in recommend(reader)] for reader in made]
    scores = {f"recall@{k}": sum(hit_at(flags, k) for flags in found) / len(made) for k in DEPTHS}
    return scores | {"ndcg@10": sum(ndcg_at(flags, 10) for flags in found) / len(made)}


def popular(made: Sequence[Reader]) -> Callable[[Reader], Sequence[str]]:
    """Recommends to everyone what most other readers liked."""
    counts = Counter(name for reader in made for name in reader.liked)

    def recommend(reader: Reader) -> list[str]:
        return [name for name, _ in (counts - Counter(reader.liked)).most_common() if name not in reader.liked]

    return recommend


def by_chance(names: Sequence[str]) -> Callable[[Reader], Sequence[str]]:
    """Recommends anything not liked yet."""
    rng = random.Random("chance")
    return lambda reader: rng.sample([name for name in names if name not in reader.liked], max(DEPTHS))


def main(arguments: Sequence[str] | None = None) -> Scores:
    """Fills a collection, recommends to every reader, prints how well, and drops the collection."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="localhost:50050", help="the gateway")
    parser.add_argument("--readers", type=int, default=200)
    flags = parser.parse_args(arguments)
    files = articles()
    made, passages = readers(files, flags.readers), [each for sections in files.values() for each in sections]
    with RagClient(flags.address, timeout=120.0) as rag:
        rag.create_collection(COLLECTION)
        try:
            rag.upsert(passages, collection=COLLECTION)

            def recommended(reader: Reader) -> Sequence[str]:
                answer = rag.answer("", task="recommendation", collection=COLLECTION, liked_sources=reader.liked)
                return [item.name for item in answer.items]

            ways = {"rag": recommended, "popular": popular(made), "chance": by_chance([p.source for p in passages])}
            scores = {way: measure(recommend, made) for way, recommend in ways.items()}
            shown = rag.answer("", task="recommendation", collection=COLLECTION, liked_sources=made[0].liked)
        finally:
            rag.drop_collection(COLLECTION)
    for way, each in scores.items():
        print(f"{way:<8}" + "   ".join(f"{metric} {value:.3f}" for metric, value in each.items()))
    print(f"\na reader who liked {', '.join(made[0].liked)}")
    for item in shown.items[:5]:
        print(f"  {item.probability:.3f}  {item.name}, because of {item.citations[0].passage.title!r}")
    return scores


if __name__ == "__main__":
    main()
