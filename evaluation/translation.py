"""How close a translation is to a known one. Pure."""

from collections import Counter

_MAX_NGRAM = 6
_BETA = 2.0  # Recall counts twice as much as precision.


def chrf(translation: str, reference: str) -> float:
    """Character n-gram F-score in [0, 1]: precision and recall are means over n = 1 to 6, white space left out.

    Orders that neither text is long enough for do not count. 1.0 where both are empty.

    Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation", with beta 2.
    """
    precisions, recalls = [], []
    for order in range(1, _MAX_NGRAM + 1):
        said, known = (_ngrams(text, order) for text in (translation, reference))
        shared = (said & known).total()
        if said or known:
            precisions.append(shared / max(1, said.total()))
            recalls.append(shared / max(1, known.total()))
    if not precisions:
        return 1.0
    precision, recall = sum(precisions) / len(precisions), sum(recalls) / len(recalls)
    weight = _BETA**2
    return (1 + weight) * precision * recall / (weight * precision + recall) if precision + recall else 0.0


def _ngrams(text: str, order: int) -> Counter[str]:
    characters = "".join(text.split())
    return Counter(characters[start : start + order] for start in range(len(characters) - order + 1))
