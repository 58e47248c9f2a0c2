"""Held-out questions while training: is the passage found, and is the answer right."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from evaluation.answers import exact_match, f1
from evaluation.retrieval import has_answer
from training.generator.answering import Answerer, Asked
from training.joint.losses import log_prior
from training.joint.monitor import CollapseMonitor, distinct_per_thousand, prior_entropy
from training.joint.questions import Question
from training.joint.search import Hits, Search
from training.joint.task import JointModel, Options


@dataclass(frozen=True, slots=True)
class Measuring:
    """Measures a model.

    Attributes:
        model: Holds float32 weights meanwhile.
        questions: Retrieval is measured on all.
        num_answered: Answers on the first so many: each passage's own greedy answer, the likeliest of them wins.
        options: As in training.
    """

    model: JointModel
    questions: Sequence[Question]
    num_answered: int
    options: Options

    def __call__(self, search: Search) -> dict[str, float]:
        """Recall at 1 and at K (by gold passage, else by answer string), exact match and F1 in [0, 1]."""
        if not self.questions:
            return {}
        texts = [question.text for question in self.questions]
        vectors = torch.from_numpy(self.model.encoder.query.tower(dtype="float32").encode_queries(texts))
        hits = search.find(vectors, texts, self.options.num_passages, required=[None] * len(texts))
        prior = log_prior(hits.scores, self.options.temperature)
        flags = [
            [_is_relevant(question, search, place) for place in places]
            for question, places in zip(self.questions, hits.places.tolist(), strict=True)
        ]
        distinct = distinct_per_thousand(hits.places)
        CollapseMonitor(self.options.num_passages).observe_distinct(distinct, len(search.base.passages))
        measured = {
            "recall@1": sum(each[0] for each in flags) / len(flags),
            f"recall@{self.options.num_passages}": sum(any(each) for each in flags) / len(flags),
            "prior_entropy": float(prior_entropy(prior).mean()),
            "distinct_passages_per_1k": distinct,
        }
        return {**measured, **self._answers(search, hits, prior)} if self.num_answered else measured

    def _answers(self, search: Search, hits: Hits, prior: torch.Tensor) -> dict[str, float]:
        reader, asked_of = self.model.reader, self.questions[: self.num_answered]
        passages = [[search.base.passages[place] for place in places] for places in hits.places.tolist()]
        asked = [
            Asked(question.text, passage.title, passage.text)
            for question, found in zip(asked_of, passages, strict=False)
            for passage in found
        ]
        answered = Answerer(reader.generator, reader.tokenizer, reader.prompt).answer(asked)
        likelihood = torch.tensor([one.log_probability for one in answered]).view(len(asked_of), -1)
        best = (prior[: len(asked_of)] + likelihood).argmax(-1)
        texts = [answered[row * likelihood.shape[1] + int(column)].text for row, column in enumerate(best)]
        pairs = list(zip(texts, (question.answers for question in asked_of), strict=True))
        return {
            "em": sum(exact_match(text, golds) for text, golds in pairs) / len(pairs),
            "f1": sum(f1(text, golds) for text, golds in pairs) / len(pairs),
        }


def _is_relevant(question: Question, search: Search, place: int) -> bool:
    passage = search.base.passages[place]
    return passage.id in question.gold if question.gold else has_answer(passage.text, question.answers)
