"""Decode steps as CUDA graphs: one launch for a whole step, instead of hundreds of kernels launched one by one.

A bucket's graph is recorded when a step first falls into it, and trusted only if it then agrees with the plain step.
Where recording fails or disagrees, all steps are plain from then on. Without a GPU nothing here is used.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from generator_service.models.arena import Arena, Bucket
from generator_service.models.stepping import StepPart, step_logits
from generator_service.models.transformer import Transformer
from serving.logs import get_logger

log = get_logger(__name__)

Replay = Callable[[], Tensor]
_MAX_BYTES = 8 << 30


class GraphBackend(Protocol):
    """Records work to be repeated on the same memory."""

    def capture(self, function: Callable[[], Tensor]) -> Replay:
        """Returns what repeats the function; its result is valid until anything is repeated.

        Raises:
            RuntimeError: If it cannot be recorded.
        """
        ...


class CudaGraphs:
    """CUDA's own graphs; all share one memory pool, since only one result is in use at a time."""

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, function: Callable[[], Tensor]) -> Replay:
        """See `GraphBackend`. Source: CUDAGraph's documentation in torch."""
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # Libraries set themselves up on first use, which cannot be recorded.
            function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            output = function()

        def replay() -> Tensor:
            graph.replay()
            return output

        return replay


class GraphedSteps:
    """Takes decode steps by graphs where they fit a bucket. One thread owns it."""

    def __init__(self, net: Transformer, backend: GraphBackend, *, max_bytes: int = _MAX_BYTES) -> None:
        """Keeps the graphs used last, as many as read at most `max_bytes`."""
        self._net = net
        self._backend: GraphBackend | None = backend
        self._max_bytes = max_bytes
        self._tolerance = 1e-3 if net.dtype == torch.float32 else 0.05
        self._graphs: OrderedDict[Bucket, tuple[Arena, Replay]] = OrderedDict()

    @property
    def num_graphs(self) -> int:
        """Graphs at hand."""
        return len(self._graphs)

    def step(self, parts: Sequence[StepPart]) -> list[Tensor]:
        """See `stepping.step_logits`; the logits are valid until the next call."""
        bucket = Bucket.of(parts) if self._backend is not None else None
        if bucket is None:
            return step_logits(self._net, parts)
        if bucket not in self._graphs:
            return self._record(bucket, parts)
        self._graphs.move_to_end(bucket)
        arena, replay = self._graphs[bucket]
        arena.fill(parts)
        return arena.take(parts, replay())

    def _record(self, bucket: Bucket, parts: Sequence[StepPart]) -> list[Tensor]:
        """Takes the plain step, and records the bucket's graph beside it."""
        assert self._backend is not None
        own = parts[0].state.own
        try:
            arena = Arena(self._net, bucket, width=own.width, own_dtype=own.dtype)
            arena.fill(parts)
            replay = self._backend.capture(arena.step)
            graphed = arena.split(parts, replay())
        except RuntimeError as error:
            self._give_up(f"recording failed: {error}")
            return step_logits(self._net, parts)
        plain = step_logits(self._net, parts)
        if all(self._agree(*pair) for pair in zip(graphed, plain, strict=True)):
            self._keep(bucket, arena, replay)
        else:
            self._give_up("a graph disagrees with the plain step")
        return plain

    def _agree(self, graphed: Tensor, plain: Tensor) -> bool:
        return torch.allclose(graphed.float(), plain.float(), atol=self._tolerance, rtol=self._tolerance)

    def _keep(self, bucket: Bucket, arena: Arena, replay: Replay) -> None:
        self._graphs[bucket] = (arena, replay)
        while len(self._graphs) > 1 and sum(each.num_bytes for each, _ in self._graphs.values()) > self._max_bytes:
            self._graphs.popitem(last=False)

    def _give_up(self, reason: str) -> None:
        log.warning("decode steps are not recorded as graphs", reason=reason)
        self._backend = None
        self._graphs.clear()
