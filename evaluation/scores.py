"""What one result is worth: metric → value, for the metrics that its question allows. Pure."""

from evaluation.answers import exact_match, f1, normalize_answer, rouge_l
from evaluation.datasets import Target
from evaluation.results import Result
from evaluation.retrieval import hit_at, matches_regex, ndcg_at, precision_at, recall_at, reciprocal_rank

DEPTHS = (1, 5, 10, 20, 50, 100)
NDCG_DEPTH = 10


def depths_up_to(depth: int) -> list[int]:
    """The depths that metrics are given at, for rankings of `depth` passages."""
    return [k for k in DEPTHS if k <= depth]


def score(result: Result, *, depth: int) -> dict[str, float]:
    """All metrics of a result; `depth` is how long its rankings may be. A failed call has no retrieval metrics."""
    values = answer_scores(result)
    if result.gold_flags is not None:
        flags = result.gold_flags
        for k in depths_up_to(depth):
            values[f"recall@{k}"] = recall_at(flags, k, result.num_gold)
            values[f"precision@{k}"] = precision_at(flags, k)
        values["mrr"] = reciprocal_rank(flags)
        values[f"ndcg@{min(NDCG_DEPTH, depth)}"] = ndcg_at(flags, min(NDCG_DEPTH, depth), result.num_gold)
    if result.answer_flags is not None:
        for k in depths_up_to(depth):
            values[f"answer_recall@{k}"] = hit_at(result.answer_flags, k)
            values[f"answer_precision@{k}"] = precision_at(result.answer_flags, k)
        values["answer_mrr"] = reciprocal_rank(result.answer_flags)
    return values


def answer_scores(result: Result) -> dict[str, float]:
    """How right the answer is; no answer scores 0. Unanswerable questions have no such metric."""
    if result.target is Target.NONE:
        return {}
    if result.target is Target.LABEL:
        return {"accuracy": is_right(result)}
    values = {"exact_match": is_right(result)}
    if result.target is Target.STRINGS:
        values["f1"] = f1(result.text, result.golds) if result.is_answered else 0.0
        values["rouge_l"] = rouge_l(result.text, result.golds) if result.is_answered else 0.0
    return values


def is_right(result: Result) -> float:
    """1.0 or 0.0: exact match, the expression found, the label named; where nothing is right, that nothing was said."""
    if result.target is Target.NONE:
        return float(not result.is_answered and not result.error)
    if not result.is_answered:
        return 0.0
    if result.target is Target.REGEX:
        return float(matches_regex(result.text, result.golds[0]))
    if result.target is Target.LABEL:
        return float(normalize_answer(result.text) == normalize_answer(result.golds[0]))
    return exact_match(result.text, result.golds)
