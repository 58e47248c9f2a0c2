import math

import pytest
import torch

from training.retriever.losses import adist_target, emdr2, in_batch, loop_target, matching, pdist_target

BATCH, COUNT = 3, 5


@pytest.fixture
def logits():
    return torch.randn(BATCH, COUNT, generator=torch.Generator().manual_seed(0), requires_grad=True)


@pytest.fixture
def answers():
    """log p(answer | question, passage)."""
    values = -5 * torch.rand(BATCH, COUNT, generator=torch.Generator().manual_seed(1))
    return values.requires_grad_()


@pytest.fixture
def num_tokens():
    return torch.tensor([1, 3, 4])


def test_in_batch_is_the_negative_log_likelihood_of_the_own_passage(logits):
    own = torch.tensor([2, 0, 4])
    loss = in_batch(logits, own, torch.zeros(BATCH, COUNT, dtype=torch.bool))
    expected = -logits.softmax(1)[torch.arange(BATCH), own].log().mean()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_an_excluded_passage_has_no_say_and_gets_no_gradient_but_the_own_one_stays(logits):
    own, excluded = torch.tensor([0, 0, 0]), torch.zeros(BATCH, COUNT, dtype=torch.bool)
    excluded[:, :3] = True
    loss = in_batch(logits, own, excluded)
    loss.backward()
    rest = logits.detach()[:, [0, 3, 4]]
    assert loss.item() == pytest.approx(-rest.log_softmax(1)[:, 0].mean().item(), abs=1e-6)
    assert (logits.grad[:, 1:3] == 0).all()
    assert (logits.grad[:, 0] < 0).all()


def test_matching_is_zero_where_the_retriever_already_agrees_and_positive_elsewhere(logits):
    assert matching(logits + 7.0, logits).item() == pytest.approx(0, abs=1e-6)
    assert matching(-logits, logits).item() > 0


def test_matching_pulls_the_scores_by_the_difference_of_the_distributions_and_leaves_the_target_alone(logits):
    target = torch.randn(BATCH, COUNT, requires_grad=True)
    matching(target, logits).backward()
    torch.testing.assert_close(logits.grad, (logits.softmax(1) - target.softmax(1)).detach() / BATCH)
    assert target.grad is None


def test_emdr2_pulls_the_scores_from_prior_to_posterior_and_leaves_the_reader_alone(logits, answers):
    emdr2(logits, answers).backward()
    prior, posterior = logits.softmax(1), (logits.log_softmax(1) + answers).softmax(1)
    torch.testing.assert_close(logits.grad, (prior - posterior).detach() / BATCH)
    assert answers.grad is None


def test_emdr2_is_the_marginal_likelihood(logits, answers):
    marginal = (logits.softmax(1) * answers.exp()).sum(1)
    assert emdr2(logits, answers).item() == pytest.approx(-marginal.log().mean().item(), abs=1e-5)


def test_a_uniform_reader_teaches_nothing_by_emdr2(logits, num_tokens):
    emdr2(logits, torch.full((BATCH, COUNT), -2.0)).backward()
    torch.testing.assert_close(logits.grad, torch.zeros(BATCH, COUNT), atol=1e-7, rtol=0)


def test_pdist_weighs_passages_by_perplexity(answers, num_tokens):
    target = pdist_target(answers, num_tokens, 1.0).softmax(1)
    weights = torch.exp(answers / num_tokens[:, None])
    torch.testing.assert_close(target, weights / weights.sum(1, keepdim=True))


def test_loop_is_the_loss_of_the_others_mixed(answers, num_tokens):
    target = loop_target(answers, num_tokens, 0.5)
    for question in range(BATCH):
        for passage in range(COUNT):
            others = [answers[question, i].exp().item() for i in range(COUNT) if i != passage]
            expected = -math.log(sum(others) / len(others)) / num_tokens[question].item() / 0.5
            assert target[question, passage].item() == pytest.approx(expected, abs=1e-5)


def test_loop_prefers_the_passage_that_the_answer_needs():
    answers = torch.tensor([[-9.0, -0.1, -9.0, -9.0]])
    assert loop_target(answers, torch.tensor([2]), 0.1).argmax().item() == 1


def test_adist_adds_up_what_is_drawn_from_each_passage_and_leaves_padding_out():
    attention = torch.rand(1, 2, 3, 6)
    norms = torch.rand(1, 2, 3, 6)
    passage_of = torch.tensor([[0, 0, 1, 1, 1, 2]])  # The last is padding.
    target = adist_target(attention, norms, passage_of, 2, 0.5)
    drawn = (attention * norms).mean((1, 2))[0]
    torch.testing.assert_close(target[0], torch.stack([drawn[:2].sum(), drawn[2:5].sum()]) / 0.5)
