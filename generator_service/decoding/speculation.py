"""Lookup speculation: guesses the next tokens of an answer from the texts it is read from. Pure: no model, no tensor.

Answers are mostly words of their passages: where the last tokens of an answer occur in an input, what follows there is
likely to follow in the answer, too. The guess, called draft, is verified by one model step, so it never changes the
answer.

Source: Saxena 2023 (prompt lookup decoding); Leviathan et al. 2023, arXiv 2211.17192 (verifying a draft in one step).
"""

from collections.abc import Sequence

import numpy as np

_LONGEST_MATCH = 3
_FIRST_LENGTH = 2
_BORDER = -1
"""Between two inputs; no token has this id."""


class LookupDrafter:
    """Drafts for one sequence, as long as they prove right.

    A draft lengthens as drafts come true and shortens as they do not. Each token that proves wrong costs credit, each
    that comes true earns twice as much; without credit there are no more drafts.
    """

    def __init__(self, rows: Sequence[Sequence[int]], *, max_tokens: int) -> None:
        """Takes the encoder inputs, and the most tokens of a draft."""
        self._tokens = np.array([token for row in rows for token in (*row, _BORDER)], dtype=np.int64)
        self._max_tokens = max_tokens
        self._length = min(_FIRST_LENGTH, max_tokens)
        self._credit = self._most_credit = 2 * max_tokens

    def draft(self, token_ids: Sequence[int], *, room: int) -> list[int]:
        """What may follow an answer so far, `room` tokens at most; often nothing.

        The longest match of its last tokens, up to three, decides; several of that length give what they agree on.
        """
        length = min(self._length, self._credit, room)
        if length < 1 or not token_ids:
            return []
        ends = self._matches(token_ids)
        draft: list[int] = []
        for offset in range(1, length + 1):
            following = set(self._tokens[ends + offset].tolist())
            if len(following) != 1 or _BORDER in following:
                break
            draft.extend(following)
        return draft

    def record(self, num_drafted: int, num_right: int) -> None:
        """Learns how many tokens of a draft, from its beginning, came true."""
        earned = 2 * num_right - (num_drafted - num_right)
        self._credit = max(0, min(self._most_credit, self._credit + earned))
        grown = 2 * self._length if num_right == num_drafted else self._length // 2
        self._length = max(1, min(self._max_tokens, grown))

    def _matches(self, token_ids: Sequence[int]) -> np.ndarray:
        """Where the longest match of the last tokens ends, once or several times; empty without a match."""
        ends = np.flatnonzero(self._tokens == token_ids[-1])
        for back in range(1, min(_LONGEST_MATCH, len(token_ids))):
            longer = ends[(ends >= back) & (self._tokens[ends - back] == token_ids[-1 - back])]
            if not len(longer):
                break
            ends = longer
        return ends
