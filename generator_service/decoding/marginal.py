"""Exact marginalisation over passages, in float32 log space. Pure functions of tensors.

Shape letters: N passages, U target tokens, V vocabulary, C candidates.
Source: Lewis et al. 2020, arXiv 2005.11401, section 2.1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenShare:
    """One token of an answer: its marginal log-probability and where it came from."""

    log_probability: float
    posteriors: tuple[float, ...]


def normalize_log_prior(log_prior: Sequence[float]) -> Tensor:
    """Returns log p(d|x) over exactly these passages: (N,) float32, exp sums to 1.

    Computed in float64, so that raw scores of any size may be given. Source: log_softmax.
    """
    return torch.log_softmax(torch.tensor(list(log_prior), dtype=torch.float64), dim=0).float()


def without(log_prior: Tensor, index: int) -> Tensor:
    """The prior (N,) with passage `index` removed and the rest normalised again; the removed entry is -inf."""
    rest = log_prior.clone()
    rest[index] = -torch.inf
    return torch.log_softmax(rest, dim=0)


def prune(log_prior: Tensor, max_mass: float) -> tuple[list[int], float]:
    """Chooses the passages to keep: the least likely ones of total prior at most `max_mass` are dropped.

    At least one passage stays. With dropped mass e and the renormalised distribution q, every step probability lies
    in [(1 - e) q(v), (1 - e) q(v) + e].

    Returns:
        The kept indices in ascending order, and the dropped mass.
    """
    prior = log_prior.double().exp()
    order = torch.argsort(prior, stable=True).tolist()
    dropped: set[int] = set()
    mass = 0.0
    for index in order[:-1]:
        if mass + float(prior[index]) > max_mass:
            break
        mass += float(prior[index])
        dropped.add(index)
    return [i for i in range(len(order)) if i not in dropped], mass


def step_marginal(log_prior: Tensor, log_probs: Tensor) -> Tensor:
    """RAG-Token's next-token distribution: L(v) = LSE_i(log_prior_i + l_i(v)).

    Args:
        log_prior: (N,) float32.
        log_probs: (..., N, V) float32, normalised over V.

    Returns:
        (..., V) float32; exp sums to 1.
    """
    return torch.logsumexp(log_probs + log_prior[:, None], dim=-2)


def sequence_log_probability(log_prior: Tensor, answer_log_probs: Tensor) -> Tensor:
    """RAG-Sequence: log p(y|x) = LSE_i(log_prior_i + A_i) for A (..., N); returns (...)."""
    return torch.logsumexp(answer_log_probs + log_prior, dim=-1)


def token_log_probability(log_prior: Tensor, token_log_probs: Tensor) -> Tensor:
    """RAG-Token: log p(y|x) = sum_t LSE_i(log_prior_i + a_it) for a (..., N, U); returns (...)."""
    return torch.logsumexp(token_log_probs + log_prior[:, None], dim=-2).sum(-1)


def sequence_posterior(log_prior: Tensor, answer_log_probs: Tensor) -> Tensor:
    """RAG-Sequence: p(d_i | x, y) = softmax_i(log_prior + A) for A (..., N); returns (..., N)."""
    return torch.softmax(answer_log_probs + log_prior, dim=-1)


def token_posterior(log_prior: Tensor, token_log_probs: Tensor) -> Tensor:
    """RAG-Token's citation weight: the mean over tokens of softmax_i(log_prior + a_t), for a (N, U); returns (N,).

    Without tokens it is the prior.
    """
    if token_log_probs.shape[-1] == 0:
        return log_prior.exp()
    return torch.softmax(token_log_probs + log_prior[:, None], dim=0).mean(-1)


def token_shares(log_prior: Tensor, token_log_probs: Tensor) -> list[TokenShare]:
    """RAG-Token, per token of a (N, U): LSE_i(log_prior_i + a_it) and softmax_i(log_prior + a_t)."""
    joint = token_log_probs + log_prior[:, None]
    return _shares(torch.logsumexp(joint, dim=0), torch.softmax(joint, dim=0))


def sequence_shares(log_prior: Tensor, token_log_probs: Tensor) -> list[TokenShare]:
    """RAG-Sequence, per token of a (N, U): p(y_t | x, y_<t) and p(d_i | x, y_<=t).

    The passage is drawn once, so both follow from the running sums; the log-probabilities add up to log p(y|x).
    """
    joint = token_log_probs.cumsum(-1) + log_prior[:, None]
    cumulative = torch.logsumexp(joint, dim=0)
    before = torch.cat([torch.logsumexp(log_prior, dim=0)[None], cumulative[:-1]])
    return _shares(cumulative - before, torch.softmax(joint, dim=0))


def _shares(log_probs: Tensor, posteriors: Tensor) -> list[TokenShare]:
    columns = posteriors.T.tolist()
    return [TokenShare(p, tuple(column)) for p, column in zip(log_probs.tolist(), columns, strict=True)]
