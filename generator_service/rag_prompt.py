"""The input format of transformers' RAG checkpoints, to the token: title, passage, then the question.

What does not fit is cut off at the end, and that is the question; it is kept because the checkpoint was trained so. Our
own formats (`prompt.py`) never cut the question.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class RagPrompt:
    """A `Prompt` as RagRetriever.postprocess_docs writes it.

    Attributes:
        question_tokenizer: The question encoder's: transformers gives the generator the question as that one spells it,
            for DPR in lower case.
        prefix: Put before each input, as T5 has it.
        title_sep: Between title and passage.
        doc_sep: Between passage and question.
        max_input_tokens: Longer inputs are cut off at the end.
        num_passages: How many passages a question had in training (n_docs).
    """

    question_tokenizer: PreTrainedTokenizerBase
    prefix: str = ""
    title_sep: str = " / "
    doc_sep: str = " // "
    max_input_tokens: int = 300
    num_passages: int = 5

    @classmethod
    def of(cls, config: Any, question_tokenizer: PreTrainedTokenizerBase, max_input_tokens: int) -> RagPrompt:
        """What a RagConfig says.

        Args:
            config: The whole model's.
            question_tokenizer: See the attribute.
            max_input_tokens: The generator's window.
        """
        return cls(
            question_tokenizer,
            prefix=getattr(config.generator, "prefix", None) or "",  # RagRetriever does not read config.prefix.
            title_sep=config.title_sep,
            doc_sep=config.doc_sep,
            max_input_tokens=min(max_input_tokens, config.max_combined_length),
            num_passages=config.n_docs,
        )

    @property
    def format(self) -> str:
        """The format as a template, with what else the checkpoint says."""
        template = self._joined("{title}", "{passage}", "{question}")
        return f"{template} (max_combined_length={self.max_input_tokens}, n_docs={self.num_passages})"

    def passage_segment(self, title: str, text: str) -> str:
        """The passage as the generator reads it; a title's own quotation marks are left out."""
        title = title.removeprefix('"').removesuffix('"')
        return f"{title}{self.title_sep}{text}"

    def encode(self, tokenizer: PreTrainedTokenizerBase, question: str, title: str, text: str) -> list[int]:
        """Input ids of one (question, passage), at most `max_input_tokens` long."""
        spelled = self.question_tokenizer.decode(
            self.question_tokenizer(question)["input_ids"], skip_special_tokens=True
        )
        return self._ids(tokenizer, self._joined(title, text, str(spelled)))

    def encode_passage(self, tokenizer: PreTrainedTokenizerBase, title: str, text: str) -> list[int]:
        """Input ids of a passage alone, without a question, at most `max_input_tokens` long."""
        return self._ids(tokenizer, self.prefix + self.passage_segment(title, text))

    def _joined(self, title: str, text: str, question: str) -> str:
        return (self.prefix + self.passage_segment(title, text) + self.doc_sep + question).replace("  ", " ")

    def _ids(self, tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
        return list(tokenizer(text, truncation=True, max_length=self.max_input_tokens)["input_ids"])
