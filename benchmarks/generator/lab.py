"""Both sides' models of one checkpoint, loaded when a cell first needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.generator.measuring import Clock, cpu_clock, cuda_clock
from benchmarks.generator.ours import Ours
from benchmarks.generator.peer import Ids, Peer
from benchmarks.generator.workload import Workload, checkpoint, questions

_OURS: dict[str, dict[str, Any]] = {
    "plain": {"backend": "plain"},
    "fp32": {},
    "bf16": {"dtype": "bfloat16"},
    "fp32_cached": {"is_cached": True},
    "bf16_cached": {"dtype": "bfloat16", "is_cached": True},
}
_PEERS = {"peer": "float32", "peer_batched": "float32", "peer_bf16": "bfloat16", "peer_bf16_batched": "bfloat16"}
VARIANTS = (*_PEERS, *_OURS)


class Lab:
    """Models by variant. Keeps those of one checkpoint at a time: memory is finite."""

    def __init__(self, folder: Path, *, device: str = "cpu") -> None:
        """Takes the folder for checkpoints of random weights."""
        self.device = device
        self.folder = folder
        self._shape = ""
        self._ours: dict[str, Ours] = {}
        self._peers: dict[str, Peer] = {}

    @property
    def clock(self) -> Clock:
        """Process CPU time here, time to the end of all work on a GPU."""
        return cpu_clock if self.device == "cpu" else cuda_clock

    def path(self, shape: str) -> Path:
        """The checkpoint of a shape."""
        return checkpoint(shape, self.folder)

    def close(self) -> None:
        """Frees the models."""
        for ours in self._ours.values():
            ours.close()
        self._ours, self._peers = {}, {}

    def runners(self, workload: Workload, variants: tuple[str, ...]) -> dict[str, Callable[[], Ids]]:
        """A way to answer the workload's questions for each variant."""
        if workload.shape != self._shape:
            self.close()
            self._shape = workload.shape
        return {variant: self._runner(workload, variant) for variant in variants}

    def ours(self, variant: str) -> Ours:
        """Our engine of a variant, on the present checkpoint."""
        if variant not in self._ours:
            self._ours[variant] = Ours(self.path(self._shape), device=self.device, **_OURS[variant])
        return self._ours[variant]

    def _runner(self, workload: Workload, variant: str) -> Callable[[], Ids]:
        if variant in _PEERS:
            peer = self._peer(_PEERS[variant])
            model = peer.model(workload)
            asked = questions(workload, peer.vocab_size)
            return lambda: peer.answer(model, workload, asked, is_batched=variant.endswith("_batched"))
        ours = self.ours(variant)
        asked = questions(workload, ours.model.spec.vocab_size)
        return lambda: ours.answer(workload, asked)

    def _peer(self, dtype: str) -> Peer:
        if dtype not in self._peers:
            self._peers[dtype] = Peer(self.path(self._shape), device=self.device, dtype=dtype)
        return self._peers[dtype]
