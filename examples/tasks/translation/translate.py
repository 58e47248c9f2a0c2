"""Translates sentences with words that the translator never saw, with and without its memory, over a running `rag up`.

The memory is a collection of words whose metadata field `translation` holds their translation.
"""

import argparse
import random
from collections.abc import Callable, Sequence

from language import HELD_OUT, WORDS, Sentence, sentence

from evaluation.translation import chrf
from rag_client import Passage, RagClient

COLLECTION = "translation-memory"
NUM_ENTRIES = 6  # As in training.

Scores = dict[tuple[str, str], tuple[float, float]]  # (sentences, translator) → share of exact translations, mean chrF


def memory() -> list[Passage]:
    """Every word of the language with its translation."""
    return [
        Passage(word.english, word.entry.english, source="words", metadata={"translation": word.entry.indonesian})
        for word in WORDS
    ]


def held_out_sentences(count: int) -> dict[str, list[Sentence]]:
    """Sentences that training does not draw: of its words, and with words that it never has."""
    rng = random.Random("sentences to translate")
    known = [word for word in WORDS if word.english not in HELD_OUT]
    chosen: dict[str, list[Sentence]] = {"known words": [sentence(known, rng) for _ in range(count)], "new words": []}
    while len(chosen["new words"]) < count:
        drawn = sentence(WORDS, rng)
        if any(word.english in HELD_OUT for word in drawn.words):
            chosen["new words"].append(drawn)
    return chosen


def measure(translate: Callable[[str], str], sentences: Sequence[Sentence]) -> tuple[float, float]:
    """Share of exact translations, and mean chrF."""
    pairs = [(translate(each.pair.english), each.pair.indonesian) for each in sentences]
    exact = sum(translation == known for translation, known in pairs)
    return exact / len(pairs), sum(chrf(translation, known) for translation, known in pairs) / len(pairs)


def main(arguments: Sequence[str] | None = None) -> Scores:
    """Fills the memory, translates, prints how well, and drops the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--address", default="localhost:50050", help="the gateway, with the translator as its generator"
    )
    parser.add_argument("--count", type=int, default=100, help="sentences of either kind")
    flags = parser.parse_args(arguments)
    scores: Scores = {}
    with RagClient(flags.address, timeout=120.0) as rag:
        rag.create_collection(COLLECTION)
        try:
            rag.upsert(memory(), collection=COLLECTION)

            def translator(model: str) -> Callable[[str], str]:
                return lambda text: (
                    rag.answer(
                        text,
                        task="translation",
                        collection=COLLECTION,
                        model=model,
                        top_k=NUM_ENTRIES,
                        min_confidence=0,
                    ).text
                )

            translators = {"with memory": translator("fusion_in_decoder"), "without": translator("closed_book")}
            for kind, sentences in held_out_sentences(flags.count).items():
                for name, translate in translators.items():
                    scores[kind, name] = measure(translate, sentences)
                    exact, similar = scores[kind, name]
                    print(f"{kind:<12} {name:<12} exact {exact:6.1%}   chrF {similar:.3f}")
                for each in sentences[:2]:
                    print(f"  {each.pair.english}")
                    for name, translate in translators.items():
                        print(f"    {name:<12} {translate(each.pair.english)}")
        finally:
            rag.drop_collection(COLLECTION)
    return scores


if __name__ == "__main__":
    main()
