"""The marginal losses: equal to transformers', with the gradients that theory gives."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    DPRConfig,
    DPRQuestionEncoder,
    RagConfig,
    RagSequenceForGeneration,
    RagTokenForGeneration,
)

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

PAD, START, EOS, VOCABULARY = 1, 2, 2, 23
KINDS = list(Marginal)
ANSWERS = ([5, 9, EOS], [7, EOS], [11, 4, 8, 6, EOS])


def _generator(seed: int) -> BartForConditionalGeneration:
    torch.manual_seed(seed)
    config = BartConfig(
        vocab_size=VOCABULARY, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=32, init_std=0.5,
        dropout=0.0, pad_token_id=PAD, bos_token_id=0, eos_token_id=EOS, decoder_start_token_id=START,
    )  # fmt: skip
    return BartForConditionalGeneration(config).eval()


def _rag(kind: Marginal, generator: BartForConditionalGeneration, num_passages: int) -> Any:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    encoder = DPRQuestionEncoder(DPRConfig(vocab_size=10, **sizes))
    config = RagConfig.from_question_encoder_generator_configs(
        encoder.config, generator.config, n_docs=num_passages, pad_token_id=PAD, bos_token_id=START, eos_token_id=EOS,
        vocab_size=VOCABULARY,
    )  # fmt: skip
    cls = RagSequenceForGeneration if kind is Marginal.SEQUENCE else RagTokenForGeneration
    return cls(config=config, question_encoder=encoder, generator=copy.deepcopy(generator)).eval()


def _inputs(num_passages: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs (B * K, L) of ragged lengths, their mask, and scores (B, K)."""
    torch.manual_seed(100 + num_passages)
    rows = len(ANSWERS) * num_passages
    lengths = torch.randint(3, 11, (rows, 1))
    mask = (torch.arange(10) < lengths).long()
    ids = torch.randint(3, VOCABULARY, (rows, 10)) * mask + PAD * (1 - mask)
    return ids, mask, 3 * torch.randn(len(ANSWERS), num_passages)


def _targets(generator: BartForConditionalGeneration, ids: Tensor, mask: Tensor, num_passages: int) -> Targets:
    steps = max(map(len, ANSWERS))
    real = torch.tensor([[t < len(answer) for t in range(steps)] for answer in ANSWERS])
    wanted = torch.tensor([answer + [PAD] * (steps - len(answer)) for answer in ANSWERS])
    start = torch.cat([torch.full((len(ANSWERS), 1), START), wanted[:, :-1]], dim=1)
    logits = generator(
        input_ids=ids, attention_mask=mask, decoder_input_ids=start.repeat_interleave(num_passages, 0), use_cache=False
    ).logits
    every = logits.log_softmax(-1).view(len(ANSWERS), num_passages, steps, -1)
    chosen = every.gather(-1, wanted[:, None, :, None].expand(-1, num_passages, -1, 1)).squeeze(-1)
    return Targets(chosen, real, every)


def _transformers_loss(
    kind: Marginal, generator: BartForConditionalGeneration, num_passages: int, *, epsilon: float
) -> Tensor:
    rag = _rag(kind, generator, num_passages)
    rag.config.label_smoothing = epsilon
    ids, mask, scores = _inputs(num_passages)
    width = 1 + max(map(len, ANSWERS))
    labels = torch.tensor([[START, *answer] + [PAD] * (width - 1 - len(answer)) for answer in ANSWERS])
    loss: Tensor = rag(context_input_ids=ids, context_attention_mask=mask, doc_scores=scores, labels=labels).loss
    return loss


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_passages", [1, 2, 3, 5])
def test_the_loss_is_the_one_transformers_computes(kind: Marginal, num_passages: int) -> None:
    generator = _generator(num_passages)
    ids, mask, scores = _inputs(num_passages)
    loss = negative_log_likelihood(kind, log_prior(scores, 1.0), _targets(generator, ids, mask, num_passages))
    expected = _transformers_loss(kind, generator, num_passages, epsilon=0.0)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("kind", "num_passages"), [(Marginal.TOKEN, 3), (Marginal.TOKEN, 1), (Marginal.SEQUENCE, 1)])
def test_label_smoothing_is_the_one_transformers_computes_where_that_adds_no_prior(
    kind: Marginal, num_passages: int
) -> None:
    generator = _generator(0)
    ids, mask, scores = _inputs(num_passages)
    loss = smoothed(kind, log_prior(scores, 1.0), _targets(generator, ids, mask, num_passages), 0.1)
    expected = _transformers_loss(kind, generator, num_passages, epsilon=0.1)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_label_smoothing_of_sequence_weighs_each_passage_by_its_posterior() -> None:
    prior, targets = _random(with_every=True)
    assert targets.all_log_probs is not None
    posterior = torch.softmax(prior + targets.summed, -1)
    spread = -sum(
        posterior[:, i] * (targets.all_log_probs[:, i].sum(-1) * targets.mask).sum(-1) for i in range(prior.shape[1])
    )
    expected = 0.8 * negative_log_likelihood(Marginal.SEQUENCE, prior, targets) + 0.2 / VOCABULARY * spread
    torch.testing.assert_close(smoothed(Marginal.SEQUENCE, prior, targets, 0.2), expected)


def _random(*, num_passages: int = 3, seed: int = 0, with_every: bool = False) -> tuple[Tensor, Targets]:
    torch.manual_seed(seed)
    every = (3 * torch.randn(2, num_passages, 4, VOCABULARY)).log_softmax(-1)
    mask = torch.tensor([[True] * 4, [True, True, False, False]])
    prior = log_prior(torch.randn(2, num_passages), 0.5)
    return prior, Targets(every[..., 3].clone(), mask, every if with_every else None)


def test_the_gradient_to_sequence_scores_is_prior_minus_posterior() -> None:
    _, targets = _random()
    scores = torch.randn(2, 3, requires_grad=True)
    prior = log_prior(scores, 0.05)
    negative_log_likelihood(Marginal.SEQUENCE, prior, targets).sum().backward()
    posterior = torch.softmax(prior + targets.summed, -1)
    torch.testing.assert_close(scores.grad, ((prior.exp() - posterior) / 0.05).detach(), atol=1e-4, rtol=1e-4)


def test_the_gradient_to_token_scores_sums_prior_minus_posterior_over_tokens() -> None:
    _, targets = _random()
    scores = torch.randn(2, 3, requires_grad=True)
    prior = log_prior(scores, 1.0)
    negative_log_likelihood(Marginal.TOKEN, prior, targets).sum().backward()
    posterior = torch.softmax(prior[:, :, None] + targets.log_probs, 1)
    expected = ((prior.exp()[:, :, None] - posterior) * targets.mask[:, None]).sum(-1)
    torch.testing.assert_close(scores.grad, expected.detach(), atol=1e-5, rtol=1e-5)


def test_both_models_agree_on_a_target_of_one_token_and_the_prior_counts_there() -> None:
    prior, targets = _random()
    one = Targets(targets.log_probs, torch.arange(4).expand(2, 4) == 0)
    sequence, token = (negative_log_likelihood(kind, prior, one) for kind in KINDS)
    torch.testing.assert_close(sequence, token)
    torch.testing.assert_close(sequence, -torch.logsumexp(prior + targets.log_probs[:, :, 0], -1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_missing_passage_changes_neither_loss_nor_gradient(kind: Marginal) -> None:
    _, targets = _random()
    scores = torch.randn(2, 3, requires_grad=True)
    few = negative_log_likelihood(kind, log_prior(scores, 1.0), targets)
    (alone,) = torch.autograd.grad(few.sum(), scores)
    missing = torch.cat([scores, torch.full((2, 1), -torch.inf)], dim=1)
    more = Targets(torch.cat([targets.log_probs, torch.full((2, 1, 4), -7.0)], dim=1), targets.mask)
    padded = negative_log_likelihood(kind, log_prior(missing, 1.0), more)
    (gradient,) = torch.autograd.grad(padded.sum(), scores)
    torch.testing.assert_close(padded, few)
    torch.testing.assert_close(gradient, alone)


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scores_in_bfloat16_stay_finite(kind: Marginal) -> None:
    _, targets = _random()
    scores = torch.tensor([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype=torch.bfloat16, requires_grad=True)
    rounded = Targets(targets.log_probs.bfloat16(), targets.mask)
    loss = negative_log_likelihood(kind, log_prior(scores, 0.05), rounded)
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert scores.grad is not None
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_few_sampled_passages_have_the_gradient_of_all_on_average(kind: Marginal) -> None:
    prior, targets = _random()
    log_probs = targets.log_probs.clone().requires_grad_()
    exact = negative_log_likelihood(kind, prior, Targets(log_probs, targets.mask)).sum()
    (expected,) = torch.autograd.grad(exact, log_probs)
    shares = passage_shares(token_weights(kind, prior, targets))
    total = torch.zeros_like(expected)
    for choice in range(3):  # The expectation over one draw, in full.
        chosen = torch.full((2, 1), choice)
        own = log_probs[:, choice : choice + 1]
        loss = sampled_generator_loss(kind, prior, targets, chosen, own)
        (gradient,) = torch.autograd.grad((loss * shares[:, choice]).sum(), log_probs)
        total += gradient
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(-expected, token_weights(kind, prior, targets))
