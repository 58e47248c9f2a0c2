"""What an encoder is to the rest of the retriever: what goes in, what comes out, what is known of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from retriever_service.collection import EncoderIdentity, Vectors


@dataclass(frozen=True, slots=True)
class Query:
    """A text to be embedded as a query."""

    text: str


@dataclass(frozen=True, slots=True)
class PassageText:
    """A text to be embedded as a passage."""

    text: str
    title: str = ""

    def joined(self) -> str:
        """Title and text as one input."""
        return f"{self.title}\n{self.text}" if self.title else self.text


EncoderInput = Query | PassageText


@dataclass(frozen=True, slots=True)
class EncoderInfo:
    """What is known of an encoder.

    Attributes:
        identity: Which one it is.
        architecture: Its class.
        device: Where it runs.
        num_parameters: Of all its towers.
        max_input_tokens: Longer queries are cut off.
        embeds_passages: False for a DPR question encoder alone.
        num_passages: How many passages a question had in training, where the checkpoint says so (RAG's n_docs).
    """

    identity: EncoderIdentity
    architecture: str
    device: str
    num_parameters: int
    max_input_tokens: int
    embeds_passages: bool = True
    num_passages: int | None = None


class Encoder(Protocol):
    """Texts to vectors."""

    @property
    def info(self) -> EncoderInfo:
        """What it is."""
        ...

    def encode(self, inputs: Sequence[EncoderInput]) -> Vectors:
        """Embeds (N, D) float32, in order. One call at a time."""
        ...
