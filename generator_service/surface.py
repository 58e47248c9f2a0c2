"""Give a generated answer back its own characters.

An uncased WordPiece vocabulary says "student - teacher" where the passage says "Student-Teacher". Where the generated
token sequence occurs in a passage the generator read, the passage's characters at those tokens are the answer. Worth
4 to 5.5 points of exact match on SQuAD; applies to any tokenizer that loses case or spaces, and does nothing to others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Surface:
    """An answer's text: ``raw`` as the tokenizer decodes it, ``text`` as the passage spells it.

    ``passage`` is the index of that passage and ``start``, ``end`` the characters in it; all None when no passage holds
    the token sequence, and then ``text`` equals ``raw``.
    """

    text: str
    raw: str
    passage: int | None = None
    start: int | None = None
    end: int | None = None


def restore_surface(tokenizer: PreTrainedTokenizerBase, answer_ids: Sequence[int], passages: Sequence[str]) -> Surface:
    """Restore an answer from the first place that holds its tokens.

    Args:
        tokenizer: a fast tokenizer (offsets are needed).
        answer_ids: generated ids; special ids among them are ignored.
        passages: passage texts as the generator read them (``title: text``), the most probable source first.

    Returns:
        The answer with its place; the first passage that has it wins, and its first occurrence in there.
    """
    special = set(tokenizer.all_special_ids)
    wanted = [int(token) for token in answer_ids if int(token) not in special]
    raw = str(tokenizer.decode(wanted, clean_up_tokenization_spaces=False)).strip()
    if not wanted:
        return Surface(raw, raw)
    for index, passage in enumerate(passages):
        encoded = tokenizer(passage, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        place = _find(wanted, encoded["input_ids"])
        if place is not None:
            offsets = encoded["offset_mapping"]
            start, end = int(offsets[place][0]), int(offsets[place + len(wanted) - 1][1])
            start += len(passage[start:end]) - len(passage[start:end].lstrip())
            return Surface(passage[start:end], raw, index, start, end)
    return Surface(raw, raw)


def _find(wanted: list[int], ids: list[int]) -> int | None:
    length, first = len(wanted), wanted[0]
    for place in range(len(ids) - length + 1):
        if ids[place] == first and ids[place : place + length] == wanted:
            return place
    return None
