"""How close an answer is to known ones: exact match, F1 and ROUGE-L.

Source of exact match and F1: rajpurkar/SQuAD-explorer, evaluate-v1.1.py (Rajpurkar et al. 2016).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ROUGE_TOKEN = re.compile(r"[a-z0-9]+")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """Lower-case, drop ASCII punctuation, drop the articles a/an/the, collapse white space: in this order."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1.0 when the normalised answer equals any normalised gold answer, else 0.0 (also without golds)."""
    normalized = normalize_answer(answer)
    return float(any(normalized == normalize_answer(gold) for gold in golds))


def f1(answer: str, golds: Sequence[str]) -> float:
    """Token F1 in [0, 1] against the best gold answer, on multisets of normalised tokens; 0.0 without golds."""
    return max((_f1_of_pair(answer, gold) for gold in golds), default=0.0)


def _f1_of_pair(answer: str, gold: str) -> float:
    answer_tokens, gold_tokens = normalize_answer(answer).split(), normalize_answer(gold).split()
    num_shared = sum((Counter(answer_tokens) & Counter(gold_tokens)).values())
    if num_shared == 0:
        return 0.0
    precision, recall = num_shared / len(answer_tokens), num_shared / len(gold_tokens)
    return 2 * precision * recall / (precision + recall)


def rouge_l(answer: str, golds: Sequence[str]) -> float:
    """ROUGE-L F-measure in [0, 1] against the best gold answer, without stemming; 0.0 without golds.

    Source: Lin 2004, section 3, with beta 1 and the tokens of google-research/rouge: runs of a-z and 0-9 in lower case.
    """
    return max((_rouge_l_of_pair(answer, gold) for gold in golds), default=0.0)


def _rouge_l_of_pair(answer: str, gold: str) -> float:
    answer_tokens, gold_tokens = (_ROUGE_TOKEN.findall(text.lower()) for text in (answer, gold))
    lengths = [0] * (len(gold_tokens) + 1)  # Of the longest common subsequence with each prefix of the gold answer.
    for token in answer_tokens:
        previous = lengths
        lengths = [0]
        for place, wanted in enumerate(gold_tokens):
            lengths.append(previous[place] + 1 if token == wanted else max(previous[place + 1], lengths[place]))
    return 2 * lengths[-1] / ((len(answer_tokens) + len(gold_tokens)) or 1)
