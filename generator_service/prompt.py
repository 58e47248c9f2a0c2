"""How a question and one passage become a generator's input.

A checkpoint names its format in ``config.json`` under ``rag_prompt``; training and serving both go through this module,
so they cannot drift apart. Knows tokenizers, not models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from transformers import PreTrainedTokenizerBase


class Prompt(Protocol):
    """How question and passage are joined."""

    @property
    def format(self) -> str:
        """Name or template of the format."""
        ...

    @property
    def max_input_tokens(self) -> int:
        """No input is longer."""
        ...

    def passage_segment(self, title: str, text: str) -> str:
        """The passage as the generator reads it."""
        ...

    def encode(self, tokenizer: PreTrainedTokenizerBase, question: str, title: str, text: str) -> list[int]:
        """Input ids of one (question, passage); an empty passage is closed-book input."""
        ...

    def encode_passage(self, tokenizer: PreTrainedTokenizerBase, title: str, text: str) -> list[int]:
        """Input ids of a passage alone, without a question."""
        ...


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """A checkpoint's input format.

    ``question_passage`` is the tokenizer's pair encoding, for BERT vocabularies ``[CLS] question [SEP] passage [SEP]``;
    a title, where there is one, opens the passage: ``title: text``. ``question_context`` is the text that T5 was taught
    with, ``question: … context: …``, and end-of-sequence. Only the passage is ever truncated, unless the question alone
    fills the input.
    """

    format: Literal["question_passage", "question_context"] = "question_passage"
    max_input_tokens: int = 512

    @classmethod
    def from_config(cls, value: Mapping[str, Any]) -> "PromptFormat":
        """Read the ``rag_prompt`` entry of a checkpoint's ``config.json``.

        Raises:
            ValueError: the format is not known here.
        """
        name = value.get("format")
        if name not in ("question_passage", "question_context"):
            raise ValueError(f"unknown prompt format {name!r}; known: 'question_passage' and 'question_context'")
        return cls(format=name, max_input_tokens=int(value.get("max_input_tokens", 512)))

    @classmethod
    def fitting(cls, tokenizer: PreTrainedTokenizerBase, max_input_tokens: int) -> "PromptFormat":
        """The format for a checkpoint that names none: by whether its tokenizer has separators."""
        has_separators = tokenizer.cls_token_id is not None and tokenizer.sep_token_id is not None
        return cls("question_passage" if has_separators else "question_context", max_input_tokens)

    def as_config(self) -> dict[str, str | int]:
        """The ``rag_prompt`` entry for a checkpoint's ``config.json``."""
        return {"format": self.format, "max_input_tokens": self.max_input_tokens}

    def passage_segment(self, title: str, text: str) -> str:
        """The passage as the generator reads it; an empty title is left out."""
        return f"{title}: {text}" if title else text

    def encode(self, tokenizer: PreTrainedTokenizerBase, question: str, title: str, text: str) -> list[int]:
        """Input ids of one (question, passage), at most ``max_input_tokens`` long.

        An empty passage gives the pair encoding with an empty second segment (closed-book input).
        """
        if self.format == "question_context":
            return self._encode_context(tokenizer, question, self.passage_segment(title, text))
        question_ids = tokenizer.encode(question, add_special_tokens=False)
        passage_ids = tokenizer.encode(self.passage_segment(title, text), add_special_tokens=False)
        return self.join(tokenizer, question_ids, passage_ids)

    def encode_passage(self, tokenizer: PreTrainedTokenizerBase, title: str, text: str) -> list[int]:
        """Input ids of a passage alone, without a question, at most ``max_input_tokens`` long."""
        ids = tokenizer.encode(self.passage_segment(title, text), add_special_tokens=False)
        if self.format == "question_context":
            return [*ids[: self.max_input_tokens - 1], int(tokenizer.eos_token_id)]
        return [int(tokenizer.cls_token_id), *ids[: self.max_input_tokens - 2], int(tokenizer.sep_token_id)]

    def join(self, tokenizer: PreTrainedTokenizerBase, question_ids: list[int], passage_ids: list[int]) -> list[int]:
        """Build the input from segments already tokenized without special tokens; truncates the passage to fit."""
        return self.join_ids(question_ids, passage_ids, int(tokenizer.cls_token_id), int(tokenizer.sep_token_id))

    def join_ids(self, question_ids: list[int], passage_ids: list[int], cls_id: int, sep_id: int) -> list[int]:
        """``join`` for a caller that knows the two special ids."""
        question_part = question_ids[: self.max_input_tokens - 3]
        room = self.max_input_tokens - 3 - len(question_part)
        return [cls_id, *question_part, sep_id, *passage_ids[:room], sep_id]

    def _encode_context(self, tokenizer: PreTrainedTokenizerBase, question: str, passage: str) -> list[int]:
        """``question: … context: … </s>``; the words that frame the passage are never cut off."""
        frame = tokenizer.encode("context:", add_special_tokens=False)
        question_ids = tokenizer.encode(f"question: {question}", add_special_tokens=False)
        question_ids = question_ids[: self.max_input_tokens - len(frame) - 1]
        room = self.max_input_tokens - len(question_ids) - len(frame) - 1
        passage_ids = tokenizer.encode(passage, add_special_tokens=False)[:room] if passage else []
        return [*question_ids, *frame, *passage_ids, int(tokenizer.eos_token_id)]
