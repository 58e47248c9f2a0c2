"""Summaries to learn from: the conclusion of an abstract, the sentence that answers, the sentence that says most.

The last is PEGASUS's gap sentence (Zhang et al. 2020, "Ind-Orig", scored by token F1 against the rest), left in its
place: a model of this size that must write a sentence it cannot see learns to make things up.
"""

from evaluation.answers import f1
from training.retriever.data import Passage
from training.tasks.cases import SUMMARIZATION, Case
from training.tasks.sources import Abstract, Known, sentences

_MIN_WORDS, _MAX_WORDS = 6, 50
_MIN_SENTENCES = 3


def conclusion(abstract: Abstract) -> Case:
    """The abstract's own conclusion."""
    return Case(SUMMARIZATION, abstract.question, abstract.conclusion, text=abstract.text)


def answering_sentence(known: Known) -> Case | None:
    """The sentence with the answer, the one most like the question if several have it; None if it is no good length."""
    able = [each for each in sentences(known.passage.text) if known.answer in each and _is_fit(each)]
    if not able:
        return None
    best = max(able, key=lambda each: f1(each, [known.question]))
    return Case(SUMMARIZATION, known.question, best, known.passage.title, known.passage.text)


def gap_sentence(passage: Passage) -> Case | None:
    """The sentence that shares most with the others, asked for by the title; None without title or in short texts."""
    told = sentences(passage.text)
    able = [index for index, each in enumerate(told) if _is_fit(each)]
    if not passage.title or len(told) < _MIN_SENTENCES or not able:
        return None
    best = max(able, key=lambda index: f1(told[index], [" ".join(told[:index] + told[index + 1 :])]))
    return Case(SUMMARIZATION, passage.title, told[best], passage.title, passage.text)


def _is_fit(sentence: str) -> bool:
    return _MIN_WORDS <= len(sentence.split()) <= _MAX_WORDS
