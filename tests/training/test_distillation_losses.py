"""The losses of distillation: reference test 12 of the design, and what each term means."""

import pytest
import torch
from torch import Tensor

from training.distillation.losses import (
    IGNORED,
    Mixing,
    Mixture,
    attention_loss,
    embedding_loss,
    hidden_loss,
    rag_terms,
    similarity_loss,
    token_kl,
)


def _mixture(seed: int, *, sharpness: float = 1.0, shape: tuple[int, int, int, int] = (2, 3, 4, 7)) -> Mixture:
    generator = torch.Generator().manual_seed(seed)
    questions, passages, *_ = shape
    prior = torch.randn(questions, passages, generator=generator) * sharpness
    return Mixture(prior.log_softmax(-1), (torch.randn(shape, generator=generator) * sharpness).log_softmax(-1))


def _labels(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, (2, 4), generator=generator)
    labels[0, int(torch.randint(1, 5, (), generator=generator)) :] = IGNORED
    return labels


def test_student_that_equals_its_teacher_loses_nothing() -> None:
    mixture, labels, vectors = _mixture(0), _labels(0), torch.randn(5, 8)
    terms = rag_terms(mixture, mixture, labels)
    logits = mixture.log_probs[:, 0]
    scores = vectors @ vectors.T
    losses = [
        *(terms.document, terms.prior, terms.marginal, terms.posterior),
        token_kl(logits, logits, labels, temperature=2.0),
        hidden_loss(vectors[None], vectors[None], torch.ones(1, 5)),
        embedding_loss(vectors, 3 * vectors),  # Directions count, lengths do not.
        similarity_loss(scores, scores, temperature=0.05),
    ]
    assert torch.stack(losses).abs().max() < 1e-6


def test_divergence_of_marginals_is_bounded_by_that_of_priors_and_passages() -> None:
    """Lmarg <= Σm·Lprior + Ldoc, question by question, on 1000 random draws of which some are sharp."""
    slack = []
    for seed in range(500):  # Two questions each.
        sharpness = (0.3, 1.0, 4.0, 12.0)[seed % 4]
        teacher, student = _mixture(2 * seed, sharpness=sharpness), _mixture(2 * seed + 1, sharpness=sharpness)
        for row, labels in enumerate(_labels(seed)):
            one = [Mixture(each.log_prior[[row]], each.log_probs[[row]]) for each in (teacher, student)]
            terms = rag_terms(*one, labels[None])
            bound = (labels != IGNORED).sum() * terms.prior + terms.document
            slack.append(float((bound - terms.marginal) / bound))
    assert len(slack) == 1000
    assert min(slack) >= -1e-5
    assert min(slack) < 0.9  # The bound is no triviality.


def _gradient_norm(temperature: float) -> float:
    generator = torch.Generator().manual_seed(3)
    teacher = torch.randn(6, 50, generator=generator)
    student = torch.randn(6, 50, generator=generator).requires_grad_()
    token_kl(teacher, student, torch.zeros(6, dtype=torch.int64), temperature=temperature).backward()
    assert student.grad is not None
    return float(student.grad.norm())


def test_high_temperatures_give_gradients_of_one_size() -> None:
    assert _gradient_norm(40.0) == pytest.approx(_gradient_norm(10.0), rel=0.1)
    assert _gradient_norm(160.0) == pytest.approx(_gradient_norm(40.0), rel=0.03)


def test_gradient_at_high_temperature_is_that_of_squared_error_of_centred_logits() -> None:
    """Hinton et al. 2015: (z_S − z_T)/V for logits of mean 0."""
    generator = torch.Generator().manual_seed(4)
    teacher, student = (torch.randn(1, 50, generator=generator) for _ in range(2))
    teacher, student = teacher - teacher.mean(), (student - student.mean()).requires_grad_()
    token_kl(teacher, student, torch.zeros(1, dtype=torch.int64), temperature=1000.0).backward()
    torch.testing.assert_close(student.grad, ((student - teacher) / 50).detach(), rtol=0.02, atol=1e-5)


def test_token_kl_is_that_of_torch_at_temperature_one() -> None:
    teacher, student = torch.randn(4, 9), torch.randn(4, 9)
    distributions = torch.distributions.Categorical(logits=teacher), torch.distributions.Categorical(logits=student)
    expected = torch.distributions.kl_divergence(*distributions).mean()
    actual = token_kl(teacher, student, torch.tensor([1, 2, 3, 4]), temperature=1.0)
    torch.testing.assert_close(actual, expected)


def test_padding_does_not_count_and_the_first_target_does() -> None:
    """The mask comes of the labels: T5's first decoder input is its padding token, its first label is a real one."""
    teacher, student = torch.randn(1, 3, 9), torch.randn(1, 3, 9)
    labels = torch.tensor([[5, 1, IGNORED]])
    reference = token_kl(teacher, student, labels, temperature=2.0)
    student[0, 2] += torch.randn(9)
    assert token_kl(teacher, student, labels, temperature=2.0) == reference
    student[0, 0] += torch.randn(9)
    assert token_kl(teacher, student, labels, temperature=2.0) != reference


def test_padded_targets_change_no_term_of_the_mixture() -> None:
    teacher, student, labels = _mixture(1), _mixture(2), _labels(5)
    other = Mixture(student.log_prior, student.log_probs.clone())
    other.log_probs[0, :, labels[0] == IGNORED] = torch.randn(7).log_softmax(-1)
    assert rag_terms(teacher, student, labels) == rag_terms(teacher, other, labels)


def test_mixture_of_one_passage_is_token_level_distillation() -> None:
    teacher, student = _mixture(1, shape=(1, 1, 4, 7)), _mixture(2, shape=(1, 1, 4, 7))
    terms = rag_terms(teacher, student, labels := torch.tensor([[1, 2, 3, IGNORED]]))
    expected = 3 * token_kl(teacher.log_probs[:, 0], student.log_probs[:, 0], labels, temperature=1.0)
    torch.testing.assert_close(torch.stack([terms.document, terms.marginal]), expected.expand(2))
    assert terms.prior == terms.posterior == 0


def test_posterior_is_that_of_rag_sequence() -> None:
    mixture = Mixture(torch.tensor([[0.25, 0.75]]).log(), torch.tensor([[[[0.9, 0.1]], [[0.1, 0.9]]]]).log())
    posterior = mixture.log_posterior(torch.tensor([[0]])).exp()
    torch.testing.assert_close(posterior, torch.tensor([[0.225, 0.075]]) / 0.3)


def test_hidden_loss_is_a_share_of_the_teachers_square_over_real_tokens() -> None:
    teacher = torch.randn(2, 3, 4)
    student = teacher.clone()
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    student[0, 2] = 100.0
    assert hidden_loss(teacher, student, mask) == 0
    torch.testing.assert_close(hidden_loss(teacher, torch.zeros_like(teacher), mask), torch.tensor(1.0))


def test_attention_loss_is_the_mean_divergence_over_heads_and_targets() -> None:
    teacher, student = torch.randn(2, 3, 4, 5).softmax(-1), torch.randn(2, 3, 4, 5).softmax(-1)
    labels = torch.tensor([[1, 1, 1, IGNORED], [1, IGNORED, IGNORED, IGNORED]])
    divergence = (teacher * (teacher / student).log()).sum(-1).mean(1)
    expected = divergence[labels != IGNORED].mean()
    torch.testing.assert_close(attention_loss(teacher, student, labels), expected, rtol=1e-3, atol=1e-4)
    assert attention_loss(teacher, teacher, labels) == 0


def test_similarity_loss_takes_any_two_widths_and_falls_as_rankings_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher = torch.randn(4, 8, generator=generator)
    narrow, wrong = teacher[:, :6] @ teacher[:, :6].T, torch.randn(4, 4, generator=generator)
    right = similarity_loss(teacher @ teacher.T, narrow, temperature=1.0)
    assert 0 < right < similarity_loss(teacher @ teacher.T, wrong, temperature=1.0)


def test_terms_are_mixed_by_their_weights() -> None:
    kd, nll, hidden = torch.tensor(1.0), torch.tensor(10.0), torch.tensor(100.0)
    assert float(Mixing().total(kd, nll)) == pytest.approx(0.8 + 2.0)
    assert float(Mixing(kd=0.5, nll=0.1, hidden=0.01).total(kd, nll, hidden)) == pytest.approx(2.5)
