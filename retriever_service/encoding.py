"""Encoders at work: one model thread for all of them, queries before passages, batched over concurrent requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from retriever_service.collection import EncoderIdentity, Vectors
from retriever_service.encoder import Encoder, EncoderInfo, EncoderInput, Query
from serving.batching import Batch, Batcher, BatchPolicy
from serving.errors import FailedPrecondition

_QUERIES, _PASSAGES = 0, 1  # Priorities: lower goes first.
_MAX_PASSAGES_WAITING = 64  # Of one caller: the queue is sorted for every batch.
_BYTES_PER_TOKEN = 4


@dataclass(frozen=True, slots=True)
class Encoded:
    """Vectors (N, D) of a request, and how long they waited and took, in seconds."""

    vectors: Vectors
    queue_seconds: float
    encode_seconds: float


@dataclass(frozen=True, slots=True)
class _Item:
    encoder: Encoder
    input: EncoderInput


@dataclass(frozen=True, slots=True)
class _Output:
    vector: Vectors
    started_at: float
    seconds: float


class Encoding:
    """Holds the default encoder and those that collections name, loading each once."""

    def __init__(
        self,
        load: Callable[[str], Encoder],
        default_name: str,
        policy: BatchPolicy,
        *,
        others: Sequence[str] = (),
        on_batch: Callable[[Batch], None] | None = None,
    ) -> None:
        """Prepares; `start` loads the default encoder.

        Args:
            load: Makes an encoder from its name.
            default_name: The server's default.
            policy: What goes through the model together; cost is estimated tokens.
            others: Encoders that collections may name besides.
            on_batch: Told of each batch.
        """
        self._load, self.default_name, self._allowed = load, default_name, (default_name, *others)
        self._loaded: dict[str, Encoder] = {}
        self._loading = asyncio.Lock()
        self._batcher: Batcher[_Item, _Output] = Batcher(_run, policy, name="encoder", on_batch=on_batch)

    async def start(self) -> None:
        """Loads the default encoder and runs it once."""
        await self._batcher.start()
        await self.encoder("")
        await self.check()

    async def check(self) -> None:
        """Runs the default encoder once; raises when it does not work."""
        await self.embed(self.default, [Query("Does it work?")])

    async def stop(self) -> None:
        """Ends the model thread."""
        await self._batcher.stop()

    @property
    def default(self) -> Encoder:
        """The server's default encoder; loaded by `start`."""
        return self._loaded[self.default_name]

    async def encoder(self, name: str) -> Encoder:
        """The encoder of this name, loaded when it is not yet; the default one for "".

        Raises:
            FailedPrecondition: When it cannot be had, or is not one that this server may load.
        """
        name = name or self.default_name
        if name not in self._allowed:
            raise FailedPrecondition(
                f"encoder {name!r} is not one that this server loads; those are {', '.join(self._allowed)} "
                "(add it to the setting `encoders`)",
                reason="ENCODER_NOT_ALLOWED",
            )
        if name in self._loaded:
            return self._loaded[name]
        async with self._loading:
            if name not in self._loaded:
                self._loaded[name] = await asyncio.to_thread(self._load, name)
            return self._loaded[name]

    def info_of(self, identity: EncoderIdentity) -> EncoderInfo:
        """What is known of a collection's encoder; little while it is not loaded here."""
        for encoder in self._loaded.values():
            if encoder.info.identity.digest == identity.digest:
                return encoder.info
        return EncoderInfo(identity, architecture="", device="", num_parameters=0, max_input_tokens=0)

    async def encoder_of(self, identity: EncoderIdentity, *, collection: str, follows_server: bool) -> Encoder:
        """The encoder that made a collection's vectors.

        Raises:
            FailedPrecondition: When the encoder at hand is another one: its vectors must not meet the stored ones.
        """
        encoder = await self.encoder("" if follows_server else identity.name)
        if encoder.info.identity.digest != identity.digest and identity.name in self._allowed:
            encoder = await self.encoder(identity.name)  # The server's default was another one then.
        ours = encoder.info.identity
        if ours.digest != identity.digest:
            raise FailedPrecondition(
                f"collection {collection!r} holds vectors of encoder {identity.name!r} (digest "
                f"{identity.digest[:12]}), but this server's encoder is {ours.name!r} (digest {ours.digest[:12]}): "
                "start it with that encoder, or ingest into a new collection",
                reason="ENCODER_MISMATCH",
            )
        return encoder

    async def embed(self, encoder: Encoder, inputs: Sequence[EncoderInput]) -> Encoded:
        """Embeds the inputs of a request; they share batches with those of other requests.

        Raises:
            FailedPrecondition: When there are passages and the encoder is one for queries alone.
            Deadline: When the request's deadline passes first.
            NotReady: When the model thread has stopped.
        """
        if not inputs:
            return Encoded(np.empty((0, encoder.info.identity.dim), np.float32), 0.0, 0.0)
        submitted = time.monotonic()
        priority = _PASSAGES if any(not isinstance(item, Query) for item in inputs) else _QUERIES
        if priority == _PASSAGES and not encoder.info.embeds_passages:
            raise FailedPrecondition(
                f"encoder {encoder.info.identity.name!r} embeds questions only: start the retriever with "
                "--passage-encoder (setting `passage_encoder`) naming the encoder of its passages, or send passages "
                "with their vectors",
                reason="PASSAGE_ENCODER_MISSING",
            )
        outputs: list[_Output] = []
        for start in range(0, len(inputs), _MAX_PASSAGES_WAITING):
            chunk = inputs[start : start + _MAX_PASSAGES_WAITING]
            outputs += await asyncio.gather(*(self._submit(encoder, item, priority) for item in chunk))
        seconds = {output.started_at: output.seconds for output in outputs}
        return Encoded(
            np.stack([output.vector for output in outputs]),
            queue_seconds=min(seconds) - submitted,
            encode_seconds=sum(seconds.values()),
        )

    async def embed_passages(self, encoder: Encoder, inputs: Sequence[EncoderInput]) -> Vectors:
        """Embeds passages in bulk, similar lengths together; queries go first whenever a batch is done."""
        order = sorted(range(len(inputs)), key=lambda i: _num_tokens(inputs[i]))
        encoded = await self.embed(encoder, [inputs[i] for i in order])
        vectors = np.empty_like(encoded.vectors)
        vectors[order] = encoded.vectors
        return vectors

    async def _submit(self, encoder: Encoder, item: EncoderInput, priority: int) -> _Output:
        cost = min(_num_tokens(item), encoder.info.max_input_tokens)
        return await self._batcher.submit(_Item(encoder, item), cost=cost, priority=priority)


def _num_tokens(item: EncoderInput) -> int:
    """An estimate that needs no tokenizer."""
    return 2 + len(item.text) // _BYTES_PER_TOKEN


def _run(items: Sequence[_Item]) -> list[_Output]:
    """In the model thread: one call of each encoder concerned."""
    started = time.monotonic()
    vectors: dict[int, Vectors] = {}
    for encoder in {id(item.encoder): item.encoder for item in items}.values():
        chosen = [i for i, item in enumerate(items) if item.encoder is encoder]
        vectors.update(zip(chosen, encoder.encode([items[i].input for i in chosen]), strict=True))
    seconds = time.monotonic() - started
    return [_Output(vectors[i], started, seconds) for i in range(len(items))]
