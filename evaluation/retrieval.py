"""How good a ranking is: by gold passage (relevance flags), and by whether its passages contain an answer string.

Pure. A ranking comes as one flag per rank, best first; `num_relevant` counts the relevant passages there are.
"""

import math
import unicodedata
from collections.abc import Sequence

import regex

# Source: facebookresearch/DPR, dpr/utils/tokenizers.py, SimpleTokenizer.
_TOKEN = regex.compile(r"([\p{L}\p{N}\p{M}]+)|([^\p{Z}\p{C}])", regex.IGNORECASE | regex.UNICODE | regex.MULTILINE)


def recall_at(flags: Sequence[bool], k: int, num_relevant: int = 1) -> float:
    """Share of the relevant passages that are among the first k; 0 when there are none."""
    return sum(flags[:k]) / num_relevant if num_relevant else 0.0


def precision_at(flags: Sequence[bool], k: int) -> float:
    """Share of the first k places that hold a relevant passage; missing places count as irrelevant."""
    return sum(flags[:k]) / k


def reciprocal_rank(flags: Sequence[bool]) -> float:
    """1 / rank of the first relevant passage; 0 when none was found. Its mean is MRR."""
    return next((1 / rank for rank, is_relevant in enumerate(flags, start=1) if is_relevant), 0.0)


def ndcg_at(flags: Sequence[bool], k: int, num_relevant: int = 1) -> float:
    """Normalised discounted cumulative gain with binary gains; 0 when nothing is relevant.

    Source: Järvelin & Kekäläinen 2002, with the discount log2(rank + 1).
    """
    gain = sum(1 / math.log2(rank + 1) for rank, is_relevant in enumerate(flags[:k], start=1) if is_relevant)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, min(num_relevant, k) + 1))
    return gain / ideal if ideal else 0.0


def hit_at(flags: Sequence[bool], k: int) -> float:
    """1 when a flag among the first k is set: with `has_answer` flags, DPR's top-k accuracy."""
    return float(any(flags[:k]))


def has_answer(text: str, answers: Sequence[str]) -> bool:
    """Whether the text contains an answer as a contiguous run of tokens: NFD, simple tokenizer, lower case.

    Source: facebookresearch/DPR, dpr/data/qa_validation.py, has_answer(match_type="string"). There, an answer without
    a token is in every text; here it is in none.
    """
    tokens = _tokens(text)
    return any(_contains(tokens, _tokens(answer)) for answer in answers)


def matches_regex(text: str, pattern: str) -> bool:
    """Whether a pattern occurs in the text, as for CuratedTrec. A pattern that does not compile never does.

    Source: facebookresearch/DPR, dpr/data/qa_validation.py, regex_match.
    """
    try:
        compiled = regex.compile(_normalize(pattern), regex.IGNORECASE | regex.UNICODE | regex.MULTILINE)
    except regex.error:
        return False
    return compiled.search(_normalize(text)) is not None


def _tokens(text: str) -> list[str]:
    return [match.group().lower() for match in _TOKEN.finditer(_normalize(text))]


def _normalize(text: str) -> str:
    return unicodedata.normalize("NFD", text)


def _contains(tokens: Sequence[str], wanted: Sequence[str]) -> bool:
    size = len(wanted)
    return size > 0 and any(tokens[start : start + size] == wanted for start in range(len(tokens) - size + 1))
