"""Between text and token ids: prompts in, answers out. Owns the tokenizer; knows no probabilities.

Fast tokenizers must not be used from two threads at once, so every method takes a lock; call them off the event loop.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from generator_service.prompt import Prompt
from generator_service.request import Passage
from generator_service.surface import restore_surface

_INCOMPLETE = "�"
"""What byte-level tokenizers decode an unfinished character to."""


@dataclass(frozen=True, slots=True)
class AnswerText:
    """An answer in a passage's own surface, and as the tokenizer decodes it."""

    text: str
    raw: str


class TextCodec:
    """A checkpoint's tokenizer with its prompt format."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._special = frozenset(tokenizer.all_special_ids)
        self._lock = threading.Lock()

    @property
    def prompt(self) -> Prompt:
        """How question and passage are joined."""
        return self._prompt

    def rows(self, question: str, passages: Sequence[Passage]) -> list[list[int]]:
        """Encoder inputs: one per passage, or one without any."""
        with self._lock:
            texts = [(passage.title, passage.text) for passage in passages] or [("", "")]
            return [self._prompt.encode(self._tokenizer, question, title, text) for title, text in texts]

    def passage_row(self, passage: Passage) -> list[int]:
        """The encoder input of a passage alone."""
        with self._lock:
            return self._prompt.encode_passage(self._tokenizer, passage.title, passage.text)

    def target(self, answer: str, *, eos_token_id: int, forced_bos_token_id: int | None) -> list[int]:
        """An answer as the decoder would write it, end-of-sequence included."""
        with self._lock:
            ids = self._tokenizer.encode(answer, add_special_tokens=False)
        start = [] if forced_bos_token_id is None else [forced_bos_token_id]
        return [*start, *ids, eos_token_id]

    def word_ids(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Each word's ids, at the start of a text and after a space."""
        with self._lock:
            found = {
                tuple(self._tokenizer.encode(text, add_special_tokens=False))
                for word in words
                for text in (word, f" {word}")
            }
        return tuple(sorted(ids for ids in found if ids))

    def writable_ids(self, word: str) -> tuple[tuple[int, ...], ...]:
        """A word's `word_ids` that decode to it again; none where the vocabulary lacks its characters."""
        return tuple(ids for ids in self.word_ids([word]) if not self._special.intersection(ids))

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some tokens, special ones left out."""
        kept = [token for token in ids if token not in self._special]
        with self._lock:
            return str(self._tokenizer.decode(kept, clean_up_tokenization_spaces=False)) if kept else ""

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """Each token's own text; concatenated they are `decode(ids)`."""
        whole = self.decode(ids)
        ends = [shared_length(self.decode(ids[: i + 1]), whole) for i in range(len(ids))]
        if ends:
            ends[-1] = len(whole)
        starts = [0, *ends]
        return [whole[start : max(start, end)] for start, end in zip(starts, ends, strict=False)]

    def contains_stop(self, ids: Sequence[int], stop: Sequence[str]) -> bool:
        """Whether the tokens' text contains one of the stop strings."""
        text = self.decode(ids)
        return any(each in text for each in stop)

    def before_stop(self, ids: Sequence[int], stop: Sequence[str]) -> list[int]:
        """The tokens whose text lies before the first stop string."""
        cut = list(ids)
        if stop and self.contains_stop(ids, stop):
            text = _until(self.decode(ids), stop)
            while cut and not text.startswith(self.decode(cut)):
                cut.pop()
        return cut

    def answer(self, ids: Sequence[int], passages: Sequence[Passage], stop: Sequence[str]) -> AnswerText:
        """The text of an answer, cut before the first stop string.

        Args:
            ids: Its tokens.
            passages: Where to look for its own surface, the most probable first.
            stop: Stop strings.
        """
        cut = self.before_stop(ids, stop)
        if len(cut) < len(ids):
            text = _until(self.decode(ids), stop)
            if self.decode(cut) != text:
                return AnswerText(text.strip(), text.strip())
        segments = [self._prompt.passage_segment(passage.title, passage.text) for passage in passages]
        with self._lock:
            surface = restore_surface(self._tokenizer, cut, segments)
        return AnswerText(surface.text, surface.raw)


def _until(text: str, stop: Sequence[str]) -> str:
    """The text before the first stop string that it contains."""
    return text[: min(text.index(each) for each in stop if each in text)]


def shared_length(left: str, right: str) -> int:
    """Length of the longest common prefix."""
    length = 0
    for a, b in zip(left, right, strict=False):
        if a != b:
            break
        length += 1
    return length


class DeltaText:
    """Turns growing token sequences into text that is only ever appended to.

    A tokenizer may still change its last word when the next token comes (spaces before punctuation, half characters),
    so text is given out one token late, as far as two successive decodings agree. `given` is all of it.
    """

    def __init__(self, codec: TextCodec, stop: Sequence[str]) -> None:
        self._codec = codec
        self._held_back = max((len(each) for each in stop), default=0)
        self.given = ""
        self._previous = ""

    def push(self, ids: Sequence[int]) -> str:
        """The new text that is certain, given all tokens so far; often empty."""
        text = self._codec.decode(ids).lstrip().rstrip(_INCOMPLETE)
        agreed = text[: shared_length(text, self._previous)]
        self._previous = text
        certain = agreed[: len(text) - self._held_back] if self._held_back else agreed
        return self._give(certain)

    def finish(self, raw: str) -> str:
        """What is missing of the whole raw text."""
        return self._give(raw)

    def _give(self, text: str) -> str:
        if not text.startswith(self.given):
            return ""
        new = text[len(self.given) :]
        self.given = text
        return new
