"""What a retriever is trained by. Pure: tensors in, a scalar with its gradient out.

B questions, k passages each; A[b, i] = log p(answer | question, passage i) of a frozen reader, and s[b, i] the
retriever's logits. Targets come without a gradient.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def in_batch(logits: Tensor, positives: Tensor, is_excluded: Tensor) -> Tensor:
    """-log p(own passage) over a batch's passages, the mean over questions.

    Source: Karpukhin et al. 2020, equation 2.

    Args:
        logits: (B, P).
        positives: (B,) column of each question's own passage.
        is_excluded: (B, P) bool, true where a passage must not count as a negative; its own is never left out.
    """
    excluded = is_excluded.scatter(1, positives[:, None], False)
    return F.cross_entropy(logits.float().masked_fill(excluded, -torch.inf), positives)


def matching(target_logits: Tensor, logits: Tensor) -> Tensor:
    """KL(softmax(target_logits) || softmax(logits)), the mean over questions; PDist, LOOP and ADist end in it.

    Source: Izacard et al. 2022 (Atlas), section 2.2.
    """
    target = torch.log_softmax(target_logits.detach().float(), -1)
    return F.kl_div(torch.log_softmax(logits.float(), -1), target, reduction="batchmean", log_target=True)


def emdr2(logits: Tensor, answer_log_probs: Tensor) -> Tensor:
    """-log of the marginal likelihood sum_i p(passage i) p(answer | passage i), its reader held fixed; the mean.

    Source: Sachan et al. 2021, section 2.3.

    Args:
        logits: (B, k).
        answer_log_probs: (B, k) A.
    """
    return -torch.logsumexp(torch.log_softmax(logits.float(), -1) + answer_log_probs.detach().float(), -1).mean()


def pdist_target(answer_log_probs: Tensor, num_tokens: Tensor, temperature: float) -> Tensor:
    """Target logits of perplexity distillation: the answer's mean log probability per token, over a temperature.

    Source: Izacard et al. 2022, section 2.2.

    Args:
        answer_log_probs: (B, k) A.
        num_tokens: (B,) of the answer.
        temperature: Above 0.
    """
    return answer_log_probs / (num_tokens[:, None] * temperature)


def loop_target(answer_log_probs: Tensor, num_tokens: Tensor, temperature: float) -> Tensor:
    """Target logits of leave-one-out perplexity: the answer's mean NLL per token once a passage is taken away.

    The reader mixes its passages with equal weights, as one that does not know the retriever's scores: without passage
    i the answer's probability is the mean over the others. Needs k of 2 or more.

    Source: Izacard et al. 2022, section 2.2.

    Args:
        answer_log_probs: (B, k) A.
        num_tokens: (B,) of the answer.
        temperature: Above 0.
    """
    count = answer_log_probs.shape[1]
    itself = torch.eye(count, dtype=torch.bool, device=answer_log_probs.device)
    others = answer_log_probs[:, None, :].expand(-1, count, -1).masked_fill(itself, -torch.inf)
    mean_without = torch.logsumexp(others, -1) - torch.log(torch.tensor(count - 1.0))
    return -mean_without / (num_tokens[:, None] * temperature)


def adist_target(attention: Tensor, value_norms: Tensor, passage_of: Tensor, count: int, temperature: float) -> Tensor:
    """Target logits of attention distillation: what the first answer token draws from each passage.

    Attention times the length of the value vector, summed over a passage's tokens, the mean over layers and heads.

    Source: Izacard et al. 2022, section 2.2; Izacard & Grave 2021.

    Args:
        attention: (B, L, H, S) cross-attention of the first decoded token over the passages side by side.
        value_norms: (B, L, H, S) lengths of the value vectors.
        passage_of: (B, S) int64, the passage of each token; `count` where there is none.
        count: Passages of a question, k.
        temperature: Above 0.
    """
    drawn = (attention * value_norms).float().mean((1, 2))
    total = drawn.new_zeros(len(drawn), count + 1).scatter_add(1, passage_of, drawn)
    return total[:, :count] / temperature
