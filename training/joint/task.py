"""One step of joint training: questions in, passages found for them, -log p(answer | question) out.

Gradients reach the generator, and through the prior the question encoder; with `Options.trains_passages` the passage
encoder as well, which then embeds the passages found anew (their stored vectors, somewhat older, only find them).
Source: Lewis et al. 2020, section 2.4; the trained passage encoder: Guu et al. 2020, Siriwardhana et al. 2023.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from evaluation.retrieval import has_answer
from generator_service.rag_prompt import RagPrompt
from training.export import RagParts, save_rag
from training.joint.losses import (
    Marginal,
    Targets,
    log_prior,
    negative_log_likelihood,
    passage_shares,
    sampled_generator_loss,
    smoothed,
    token_weights,
)
from training.joint.monitor import CollapseMonitor, posterior_kl, prior_entropy
from training.joint.questions import Question, QuestionStream, window
from training.joint.reader import Reader, Row
from training.joint.search import Hits, Search
from training.retriever.towers import BiEncoder, passage_texts
from training.runtime.loop import Terms


@dataclass(frozen=True, slots=True)
class Options:
    """How questions are trained on.

    Attributes:
        marginal: RAG-Sequence or RAG-Token.
        num_passages: K of each question.
        temperature: Of the prior.
        max_passage_tokens: The generator reads a random stretch of a longer passage.
        num_sampled: Passages that the generator learns from, drawn by their share of the gradient; 0: all of them.
        label_smoothing: epsilon.
        gold_steps: In so many steps at first, a gold passage that was not found takes the last place.
        in_batch: Whether the prior is normalised over what was found for any question of the batch.
        abstain: Weight of -log p(empty answer) given a passage found that holds no answer; 0: left out.
        trains_passages: Whether the passage encoder learns, too.
        recomputes: Whether activations are computed once more in the backward pass instead of kept.
        seed: Of the stretches.
    """

    marginal: Marginal = Marginal.SEQUENCE
    num_passages: int = 4
    temperature: float = 0.05
    max_passage_tokens: int = 224
    num_sampled: int = 0
    label_smoothing: float = 0.0
    gold_steps: int = 0
    in_batch: bool = False
    abstain: float = 0.0
    trains_passages: bool = False
    recomputes: bool = False
    seed: int = 0


class JointModel(nn.Module):
    """What is trained: the question encoder (with the passage encoder beside it) and the generator."""

    def __init__(self, encoder: BiEncoder, reader: Reader, kind: Marginal) -> None:
        super().__init__()
        self.encoder, self.reader, self._kind = encoder, reader, kind

    def save(self, folder: Path) -> None:
        """Write plain checkpoints: ``encoder`` and ``generator``, or ``rag``, when it began as a whole RAG model."""
        prompt, reader = self.reader.prompt, self.reader
        if not isinstance(prompt, RagPrompt):
            self.encoder.save(folder / "encoder")
            reader.save(folder / "generator")
            return
        fields = {
            "n_docs": prompt.num_passages,
            "title_sep": prompt.title_sep,
            "doc_sep": prompt.doc_sep,
            "max_combined_length": prompt.max_input_tokens,
        }
        query = self.encoder.query.model
        parts = RagParts(query, prompt.question_tokenizer, reader.generator, reader.tokenizer, fields)
        save_rag(folder / "rag", parts, self._kind)


class JointTask:
    """A `training.runtime.loop.Task`.

    Args:
        model: What is trained.
        stream: The questions by batch.
        search_at: The search of a step; it changes where the collection is re-encoded on the way.
        options: How.
        accumulate: Micro-batches per step.
        measure: Metrics of the model on held-out questions.
    """

    def __init__(
        self,
        model: JointModel,
        stream: QuestionStream,
        search_at: Callable[[int], Search],
        options: Options,
        *,
        batch_size: int,
        accumulate: int,
        measure: Callable[[], Mapping[str, float]],
    ) -> None:
        self._model, self._stream, self._search_at, self._options = model, stream, search_at, options
        self._accumulate, self._measure = accumulate, measure
        self.num_questions_per_step = batch_size * accumulate
        self._monitor = CollapseMonitor(options.num_passages)
        model.reader.recomputes = options.recomputes

    def terms(self, step: int, part: int) -> Terms:
        """The loss of a micro-batch."""
        options, search = self._options, self._search_at(step)
        questions = self._stream.batch(step * self._accumulate + part)
        gold = [question.gold_place(search.place_of) for question in questions]
        hits, prior = self._retrieve(search, questions, gold if step < options.gold_steps else [None] * len(gold))
        rng = random.Random(f"{options.seed}:{step}:{part}")
        rows = [
            self._row(question, search, place, rng)
            for question, places in zip(questions, hits.places.tolist(), strict=True)
            for place in places
        ]
        loss, targets = self._loss(prior, rows)
        shown = self._shown(prior.detach(), targets, hits, gold)
        self._monitor.observe(shown)
        if options.abstain:
            refusal = self._refusal(search, questions, hits, rng)
            loss, shown["abstain"] = loss + options.abstain * refusal, refusal.item()
        return Terms(loss, shown)

    def save(self, folder: Path) -> None:
        """Write both checkpoints."""
        self._model.save(folder)

    def measure(self) -> Mapping[str, float]:
        """Metrics on held-out questions."""
        return self._measure()

    def _retrieve(
        self, search: Search, questions: Sequence[Question], required: Sequence[int | None]
    ) -> tuple[Hits, Tensor]:
        """What is found, and its log prior (B, K) with gradient.

        In-batch, the other questions' passages count as not answering, which makes the likelihood a lower bound.
        """
        encoder, options = self._model.encoder, self._options
        texts = [question.text for question in questions]
        tokens = encoder.query.tokenization.queries(texts)
        vectors = encoder.query.embed(tokens, range(len(texts)), recompute=options.recomputes)
        hits = search.find(vectors.detach(), texts, options.num_passages, required=required)
        candidates, columns = torch.unique(hits.places, return_inverse=True)
        embedded = None
        if options.trains_passages:
            found = [search.base.passages[place] for place in candidates.tolist()]
            tokens = encoder.passage.tokenization.passages(passage_texts(found))
            embedded = encoder.passage.embed(tokens, range(len(found)), recompute=options.recomputes)
        scores = search.scores(vectors, candidates, hits, embedded)
        if options.in_batch:
            return hits, log_prior(scores, options.temperature).gather(1, columns)
        return hits, log_prior(scores.gather(1, columns), options.temperature)

    def _row(self, question: Question, search: Search, place: int, rng: random.Random) -> Row:
        reader, passage = self._model.reader, search.base.passages[place]
        text = window(reader.tokenizer, passage, self._options.max_passage_tokens, rng)
        return reader.row(question.text, passage.title, text, question.target)

    def _refusal(self, search: Search, questions: Sequence[Question], hits: Hits, rng: random.Random) -> Tensor:
        """Mean -log p(empty answer), each question with one of its passages that hold no answer."""
        rows = []
        for question, places in zip(questions, hits.places.tolist(), strict=True):
            silent = [
                place for place in places
                if not has_answer(search.base.passages[place].text, question.answers)
            ]  # fmt: skip
            if silent:
                rows.append(self._row(replace(question, target=""), search, rng.choice(silent), rng))
        return -self._model.reader(rows)[0].sum(-1).mean() if rows else torch.zeros(())

    def _loss(self, prior: Tensor, rows: Sequence[Row]) -> tuple[Tensor, Targets]:
        """The mean loss over the batch, and the generator's view of all rows, which lie question by question."""
        options = self._options
        if options.num_sampled:
            with torch.no_grad():
                targets = self._targets(prior, rows)
            nll = negative_log_likelihood(options.marginal, prior, targets).mean()
            generator = self._sampled(prior.detach(), targets, rows).mean()
            return nll + generator - generator.detach(), targets
        targets = self._targets(prior, rows)
        return smoothed(options.marginal, prior, targets, options.label_smoothing).mean(), targets

    def _targets(self, prior: Tensor, rows: Sequence[Row]) -> Targets:
        log_probs, every = self._model.reader(rows, every_word=self._options.label_smoothing > 0)
        num_steps = log_probs.shape[-1]
        lengths = torch.tensor([len(row.target_ids) for row in rows]).view(prior.shape)[:, 0]
        mask = torch.arange(num_steps) < lengths[:, None]
        every = None if every is None else every.view(*prior.shape, num_steps, -1)
        return Targets(log_probs.view(*prior.shape, num_steps), mask, every)

    def _sampled(self, prior: Tensor, targets: Targets, rows: Sequence[Row]) -> Tensor:
        options = self._options
        shares = passage_shares(token_weights(options.marginal, prior, targets))
        chosen = torch.multinomial(shares, options.num_sampled, replacement=True)
        first = torch.arange(len(prior))[:, None] * prior.shape[1]
        picked = [rows[place] for place in (first + chosen).flatten().tolist()]
        own, _ = self._model.reader(picked)
        own = own.view(*chosen.shape, -1)
        return sampled_generator_loss(options.marginal, prior, targets, chosen, own)

    def _shown(self, prior: Tensor, targets: Targets, hits: Hits, gold: Sequence[int | None]) -> dict[str, float]:
        with torch.no_grad():
            among = torch.log_softmax(prior, -1)  # Over the passages found, also where it is normalised over more.
            posterior = passage_shares(token_weights(self._options.marginal, prior, targets))
            shown = {
                "nll": float(negative_log_likelihood(self._options.marginal, prior, targets).mean()),
                "prior_entropy": float(prior_entropy(among).mean()),
                "posterior_kl": float(posterior_kl(among, posterior).mean()),
            }
        ranks = [
            places.index(place) if place in places else None
            for places, place in zip(hits.places.tolist(), gold, strict=True)
            if place is not None
        ]
        if ranks:
            shown["gold_found"] = sum(rank is not None for rank in ranks) / len(ranks)
            shown["gold_first"] = sum(rank == 0 for rank in ranks) / len(ranks)
        return shown
