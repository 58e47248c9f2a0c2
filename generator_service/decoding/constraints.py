"""What an answer may and must not be, as changes to the ranking scores of the next token.

The semantics are those of transformers' logits processors, in the same order. Constraints change what is chosen, never
the probability that is reported: that one stays the unconstrained model's.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Constraints:
    """The constraints of one request; lengths count new tokens, end-of-sequence included."""

    eos_token_id: int
    max_new_tokens: int
    min_new_tokens: int = 0
    no_repeat_ngram_size: int = 0
    bad_words: tuple[tuple[int, ...], ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_id: int | None = None

    def apply(self, scores: Tensor, prefixes: Tensor) -> Tensor:
        """Returns the scores of the next token with forbidden tokens at -inf.

        Args:
            scores: (R, V) float32; left unchanged.
            prefixes: (R, 1 + tokens so far) int64, the decoder's start token first.
        """
        num_tokens = prefixes.shape[1] - 1
        if num_tokens == 0 and self.forced_bos_token_id is not None:
            return _forced(scores, self.forced_bos_token_id)
        if num_tokens + 1 == self.max_new_tokens and self.forced_eos_token_id is not None:
            return _forced(scores, self.forced_eos_token_id)
        banned = self._banned(prefixes)
        if num_tokens < self.min_new_tokens:
            banned = [[*tokens, self.eos_token_id] for tokens in banned]
        rows = [row for row, tokens in enumerate(banned) for _ in tokens]
        if not rows:
            return scores
        columns = [token for tokens in banned for token in tokens]
        changed = scores.clone()
        changed[rows, columns] = -torch.inf
        return changed

    def _banned(self, prefixes: Tensor) -> list[list[int]]:
        """Tokens that each prefix forbids next."""
        if not self.bad_words and not self.no_repeat_ngram_size:
            return [[] for _ in range(prefixes.shape[0])]
        return [self._banned_after(prefix) for prefix in prefixes.tolist()]

    def _banned_after(self, prefix: Sequence[int]) -> list[int]:
        banned = [word[-1] for word in self.bad_words if word != (self.eos_token_id,) and _ends_with(prefix, word[:-1])]
        size = self.no_repeat_ngram_size
        if size and len(prefix) + 1 >= size:
            last = tuple(prefix[len(prefix) + 1 - size :])
            banned.extend(
                prefix[i + size - 1] for i in range(len(prefix) - size + 1) if tuple(prefix[i : i + size - 1]) == last
            )
        return banned


def _forced(scores: Tensor, token_id: int) -> Tensor:
    forced = torch.full_like(scores, -torch.inf)
    forced[:, token_id] = 0.0
    return forced


def _ends_with(prefix: Sequence[int], ending: Sequence[int]) -> bool:
    return not ending or (len(prefix) >= len(ending) and tuple(prefix[-len(ending) :]) == tuple(ending))
