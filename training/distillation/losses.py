"""The losses of distillation, as pure functions of float32 tensors; a student that equals its teacher has 0.

Letters: B questions, N passages of each, T target tokens, S input tokens, V vocabulary, D width. Labels are -100 where
there is no target: the mask comes from them, so the first target token always counts (a mask made of the decoder's
input would drop it for T5, whose start token is the padding token). KL(teacher ‖ student) throughout, in nats.
"""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

IGNORED = -100
_SMALLEST_WEIGHT = 1e-5


@dataclass(frozen=True, slots=True)
class Mixing:
    """How the terms are added. Source: Shleifer & Rush 2020 (arXiv 2010.13002) for 0.8, 0.2 and temperature 2."""

    temperature: float = 2.0
    kd: float = 0.8
    nll: float = 0.2
    hidden: float = 3.0
    attention: float = 1.0

    def total(self, kd: Tensor, nll: Tensor, hidden: Tensor | float = 0.0, attention: Tensor | float = 0.0) -> Tensor:
        """The loss to minimise."""
        return self.kd * kd + self.nll * nll + self.hidden * hidden + self.attention * attention


def token_kl(teacher: Tensor, student: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """τ²·Σ_t m_t KL(softmax(z_T/τ) ‖ softmax(z_S/τ)) / Σm: the gradient's size hardly depends on a high τ.

    Source: Hinton et al. 2015 (arXiv 1503.02531), section 2.

    Args:
        teacher: logits (..., V) at the target positions.
        student: the same of the student.
        labels: int64 (...).
        temperature: τ, above 0.
    """
    is_target = labels != IGNORED
    divergence = _kl((teacher / temperature).log_softmax(-1), (student / temperature).log_softmax(-1))
    return temperature**2 * (divergence * is_target).sum() / is_target.sum().clamp(min=1)


def hidden_loss(teacher: Tensor, student: Tensor, mask: Tensor) -> Tensor:
    """Squared error of hidden states as a share of the teacher's own square, over real tokens.

    Args:
        teacher: (B, S, D).
        student: (B, S, D).
        mask: (B, S), 0 where padded.
    """
    weight = mask.unsqueeze(-1).float()
    error = ((student.float() - teacher.float()).square() * weight).sum()
    return error / (teacher.float().square() * weight).sum()


def attention_loss(teacher: Tensor, student: Tensor, labels: Tensor) -> Tensor:
    """Mean KL of attention weights (B, H, T, S) over heads and target tokens: where the answer is read from."""
    is_target = (labels != IGNORED)[:, None]
    log_teacher, log_student = ((weights.float() + _SMALLEST_WEIGHT).log() for weights in (teacher, student))
    divergence = (teacher.float() * (log_teacher - log_student)).sum(-1) * is_target
    return divergence.sum() / (is_target.sum().clamp(min=1) * teacher.shape[1])


@dataclass(frozen=True, slots=True)
class RagTerms:
    """The terms of a RAG mixture, each the mean over questions.

    Attributes:
        document: Ldoc = Σ_t m_t Σ_i π^T_i KL_{i,t}, summed over a question's tokens.
        prior: Lprior = KL(π^T ‖ π^S).
        marginal: Lmarg = Σ_t m_t KL(exp L^T_t ‖ exp L^S_t); at most Σm·Lprior + Ldoc.
        posterior: Lpost = KL(ρ^T ‖ ρ^S): the student cites the same passage.
        nll: −log p_S(y|x) of RAG-Token.
    """

    document: Tensor
    prior: Tensor
    marginal: Tensor
    posterior: Tensor
    nll: Tensor


@dataclass(frozen=True, slots=True)
class Mixture:
    """What a RAG model says of each question's target.

    Attributes:
        log_prior: lπ (B, N), normalised over N.
        log_probs: ℓ (B, N, T, V), normalised over V.
    """

    log_prior: Tensor
    log_probs: Tensor

    @property
    def marginal(self) -> Tensor:
        """L (B, T, V): log Σ_i π_i p_i."""
        return (self.log_prior[:, :, None, None] + self.log_probs).logsumexp(1)

    def log_posterior(self, labels: Tensor) -> Tensor:
        """The logarithm of ρ (B, N) of RAG-Sequence: softmax_i(lπ_i + A_i)."""
        wanted = _targets(labels)[:, None, :, None].expand(-1, self.log_probs.shape[1], -1, 1)
        chosen = self.log_probs.gather(-1, wanted)
        likelihood = (chosen.squeeze(-1) * (labels != IGNORED)[:, None]).sum(-1)
        return (self.log_prior + likelihood).log_softmax(-1)


def rag_terms(teacher: Mixture, student: Mixture, labels: Tensor) -> RagTerms:
    """Every term for labels int64 (B, T)."""
    is_target = labels != IGNORED
    theirs, mine = teacher.marginal, student.marginal
    document = (teacher.log_prior.exp()[:, :, None] * _kl(teacher.log_probs, student.log_probs)).sum(1)
    nll = -mine.gather(-1, _targets(labels).unsqueeze(-1)).squeeze(-1)
    return RagTerms(
        document=(document * is_target).sum(-1).mean(),
        prior=_kl(teacher.log_prior, student.log_prior).mean(),
        marginal=(_kl(theirs, mine) * is_target).sum(-1).mean(),
        posterior=_kl(teacher.log_posterior(labels), student.log_posterior(labels)).mean(),
        nll=(nll * is_target).sum(-1).mean(),
    )


def embedding_loss(teacher: Tensor, student: Tensor) -> Tensor:
    """Mean squared distance of unit vectors (N, D): 2 − 2·cosine."""
    return (functional.normalize(teacher, dim=-1) - functional.normalize(student, dim=-1)).square().sum(-1).mean()


def similarity_loss(teacher: Tensor, student: Tensor, *, temperature: float) -> Tensor:
    """Mean KL of each query's softmax over passages; teacher and student scores (Q, P), any two widths behind them."""
    return _kl((teacher / temperature).log_softmax(-1), (student / temperature).log_softmax(-1)).mean()


def _kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL over the last axis of log-probabilities; −inf in both is 0."""
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(-1)


def _targets(labels: Tensor) -> Tensor:
    return labels.clamp(min=0)
