"""Summaries that only copy sentences: what a generated summary has to beat. Pure."""

from collections.abc import Sequence

from evaluation.answers import f1, rouge_l


def lead(sentences: Sequence[str], count: int) -> str:
    """The first sentences."""
    return " ".join(sentences[:count])


def most_like(sentences: Sequence[str], question: str) -> str:
    """The sentence that shares most with the question, by token F1; the first of equals. "" without sentences."""
    return max(sentences, key=lambda sentence: f1(sentence, [question]), default="")


def best_sentence(sentences: Sequence[str], golds: Sequence[str]) -> str:
    """The sentence of the highest ROUGE-L: no choice of one sentence can do better. It looks at what is right."""
    return max(sentences, key=lambda sentence: rouge_l(sentence, golds), default="")
