"""The marginal likelihood of RAG-Sequence and RAG-Token, as pure functions of tensors in float32.

Shape letters: B questions, K passages of each, T target tokens with EOS, V vocabulary. A passage that is not there has
log prior -inf. Its log-probabilities may then be any finite numbers.
Source: Lewis et al. 2020, arXiv 2005.11401, section 2.1. One difference from transformers: a target of one token keeps
its prior, which RagSequenceForGeneration drops, and with it the retriever's gradient.
"""

from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor


class Marginal(StrEnum):
    """Over what the passages are mixed: whole answers, or each next token."""

    SEQUENCE = "sequence"
    TOKEN = "token"


@dataclass(frozen=True, slots=True)
class Targets:
    """What a generator thinks of the answers.

    Attributes:
        log_probs: (B, K, T) log p of each target token given each passage, anything where padded.
        mask: (B, T) bool, true at real tokens.
        all_log_probs: (B, K, T, V) of every word; wanted for label smoothing alone.
    """

    log_probs: Tensor
    mask: Tensor
    all_log_probs: Tensor | None = None

    @property
    def summed(self) -> Tensor:
        """(B, K) log p(y | x, d)."""
        return (self.log_probs.float() * self.mask[:, None]).sum(-1)


def log_prior(scores: Tensor, temperature: float) -> Tensor:
    """The prior log p(d | x) over the passages found, (B, K): log_softmax(score / temperature); -inf is no passage."""
    return torch.log_softmax(scores.float() / temperature, dim=-1)


def negative_log_likelihood(kind: Marginal, prior: Tensor, targets: Targets) -> Tensor:
    """-log p(y | x) of each question, (B,); ``prior`` is the log prior (B, K).

    Sequence: LSE_i(prior_i + sum_t a_it). Token: sum_t LSE_i(prior_i + a_it).
    """
    if kind is Marginal.SEQUENCE:
        return -torch.logsumexp(prior + targets.summed, dim=-1)
    by_token = torch.logsumexp(prior[:, :, None] + targets.log_probs.float(), dim=1)
    return -(by_token * targets.mask).sum(-1)


def smoothed(kind: Marginal, prior: Tensor, targets: Targets, epsilon: float) -> Tensor:
    """(1 - epsilon) NLL + epsilon / V times the mean pull towards every word, (B,).

    Token: that of the mixture of each step, as transformers has it. Sequence: that of each passage, weighed by its
    posterior without gradient (transformers adds V times the log prior by accident).
    """
    loss = negative_log_likelihood(kind, prior, targets)
    if epsilon == 0:
        return loss
    assert targets.all_log_probs is not None
    every = targets.all_log_probs.float()
    if kind is Marginal.TOKEN:
        spread = -(torch.logsumexp(prior[:, :, None, None] + every, dim=1).sum(-1) * targets.mask).sum(-1)
    else:
        posterior = torch.softmax((prior + targets.summed).detach(), dim=-1)
        spread = -(posterior * (every.sum(-1) * targets.mask[:, None]).sum(-1)).sum(-1)
    return (1 - epsilon) * loss + epsilon / every.shape[-1] * spread


def sampled_generator_loss(kind: Marginal, prior: Tensor, targets: Targets, chosen: Tensor, own: Tensor) -> Tensor:
    """The generator's part of the loss from few passages of each question, (B,): in gradient, on average, all of it.

    The exact gradient is -sum_it w_it grad(a_it), with w_it = rho_i (Sequence) or rho_it (Token). A passage drawn from
    q_i = sum_t w_it / sum_it w_it stands for -sum_t w_it / q_i grad(a_it); ``passage_shares`` is q.

    Args:
        kind: Which marginal.
        prior: (B, K) log prior.
        targets: Of all passages, computed without gradient.
        chosen: (B, M) passages drawn from ``passage_shares``, with replacement.
        own: (B, M, T) the same log-probabilities at the chosen passages, with gradient.
    """
    weights = token_weights(kind, prior, targets)
    shares = passage_shares(weights)
    picked = weights.gather(1, chosen[:, :, None].expand(-1, -1, weights.shape[-1]))
    return -(picked / shares.gather(1, chosen)[:, :, None] * own.float()).sum(-1).mean(-1)


def token_weights(kind: Marginal, prior: Tensor, targets: Targets) -> Tensor:
    """How much of each question's gradient falls on each token under each passage, (B, K, T): w."""
    with torch.no_grad():
        if kind is Marginal.SEQUENCE:
            posterior = torch.softmax(prior + targets.summed, dim=-1)[:, :, None]
        else:
            posterior = torch.softmax(prior[:, :, None] + targets.log_probs.float(), dim=1)
        return posterior * targets.mask[:, None]


def passage_shares(weights: Tensor) -> Tensor:
    """Each passage's share of its question's ``token_weights``, (B, K): q; for Sequence the posterior."""
    by_passage = weights.sum(-1)
    return by_passage / by_passage.sum(-1, keepdim=True)
