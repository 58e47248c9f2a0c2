"""Exact search in torch: a matrix product and a running top-k, block by block, in the memory of a GPU or CPU.

Deletions and filters are masks on the scores: what is masked cannot be found. Vectors are added and removed in place.
Nothing is kept on disk; loading reads the store. Vectors may be of half precision: then twice as many as are asked for
are found and scored anew with sums in float32, and the caller scores what is returned from the stored float32 vectors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from retriever_service.collection import Rows, Vectors
from retriever_service.dense_index import Hits, VectorSource, empty_hits, merge_hits, positions_of

_MIN_BLOCK, _MAX_BLOCK = 1_024, 1 << 18  # Vectors; the scores of 64 queries by the largest block take 64 MiB.
_COMPACT_RATIO = 0.2  # Of dead rows in a block: above it the block is written anew.
_MARGIN = 2
_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def check_device(device: str) -> None:
    """Checks that torch can compute there.

    Raises:
        RuntimeError: When it cannot.
    """
    try:
        torch.zeros(1, device=device)
    except AssertionError as error:  # This is how a torch without GPU support says so.
        raise RuntimeError(f"dense_device {device}: {error}") from error


@dataclass(frozen=True, slots=True)
class _Block:
    """Up to `_MAX_BLOCK` vectors. Entries from num_stored on are the writer's."""

    vectors: torch.Tensor  # (capacity, D)
    device_rows: torch.Tensor  # (capacity,)
    is_dead: torch.Tensor  # (capacity,), changed in place
    all_rows: Rows  # (capacity,), ascending: the same on the host
    is_dead_here: npt.NDArray[np.bool_]  # (capacity,)
    num_stored: int
    num_live: int

    @property
    def rows(self) -> Rows:
        return self.all_rows[: self.num_stored]


class TorchIndex:
    """See the module. One thread changes it; the device takes one search at a time."""

    kind, measured_recall = "exact", 1.0

    def __init__(
        self,
        dim: int,
        *,
        device: str = "cpu",
        dtype: str = "auto",
        max_block: int = _MAX_BLOCK,
        on_progress: Callable[[float], None] = lambda _: None,
        on_search: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Makes an empty index.

        Args:
            dim: D.
            device: Of torch.
            dtype: Of the vectors; "auto": float16 on a GPU, float32 on a CPU.
            max_block: Vectors of a block.
            on_progress: Told how much of the loading is done, 0 to 1.
            on_search: Told how many queries each search has.
        """
        self._dim, self._device, self._max_block = dim, torch.device(device), max_block
        if dtype == "auto":
            dtype = "float32" if self._device.type == "cpu" else "float16"
        self._dtype = _DTYPES[dtype]
        self._on_progress, self._on_search = on_progress, on_search
        self._blocks: tuple[_Block, ...] = ()  # By ascending rows; replaced as a whole.
        self._last_row = 0
        self._lock = threading.Lock()

    @property
    def num_vectors(self) -> int:
        """Live vectors."""
        return sum(block.num_live for block in self._blocks)

    @property
    def num_bytes(self) -> int:
        """Memory held, on the device."""
        tensors = [one for block in self._blocks for one in (block.vectors, block.device_rows, block.is_dead)]
        return sum(one.numel() * one.element_size() for one in tensors)

    def load(self, source: VectorSource) -> None:
        """Adds everything there is."""
        num_vectors = max(1, source.num_passages())
        for rows, vectors in source.scan_vectors():
            self.add(rows, vectors)
            self._on_progress(min(1.0, self.num_vectors / num_vectors))
        self._on_progress(1.0)

    def close(self) -> None:
        """Gives the memory back."""
        self._blocks = ()

    def add(self, rows: Rows, vectors: Vectors) -> None:
        """Adds rows above every row added before; a row that is there already is skipped."""
        is_new = rows > self._last_row
        rows, vectors = rows[is_new], vectors[is_new]
        while len(rows):
            last = self._blocks[-1] if self._blocks else None
            if last is None or last.num_stored == self._max_block:
                self._blocks = (*self._blocks, self._empty(min(self._max_block, max(_MIN_BLOCK, len(rows)))))
                continue
            if last.num_stored == len(last.all_rows):
                self._blocks = (*self._blocks[:-1], self._copied([last], 2 * len(last.all_rows)))
                continue
            count = min(len(rows), len(last.all_rows) - last.num_stored)
            self._blocks = (*self._blocks[:-1], self._extended(last, rows[:count], vectors[:count]))
            self._last_row = int(rows[count - 1])
            rows, vectors = rows[count:], vectors[count:]

    def remove(self, rows: Iterable[int]) -> None:
        """Removes rows; absent ones are no error. Blocks of which a fifth is dead are compacted."""
        gone = np.fromiter(rows, np.int64)
        blocks: list[_Block] = []
        for block in self._blocks:
            positions = positions_of(block.rows, gone)
            positions = np.unique(positions[~block.is_dead_here[positions]])
            if len(positions):
                block.is_dead_here[positions] = True
                block.is_dead[torch.from_numpy(positions).to(self._device)] = True
                block = replace(block, num_live=block.num_live - len(positions))
            if block.num_stored - block.num_live > max(_MIN_BLOCK, _COMPACT_RATIO * block.num_stored):
                block = self._copied([block], block.num_live)
            if blocks and blocks[-1].num_live + block.num_live <= self._max_block // 2:
                block = self._copied([blocks.pop(), block], _MIN_BLOCK)
            if block.num_live:
                blocks.append(block)
        self._blocks = tuple(blocks)

    def search(self, queries: Vectors, count: int) -> Hits:
        """The `count` best live rows for each of (B, D) queries."""
        self._on_search(len(queries))
        blocks = self._blocks
        return self._search(blocks, [block.is_dead[: block.num_stored] for block in blocks], queries, count)

    def search_among(self, queries: Vectors, rows: Rows, count: int) -> Hits:
        """The same among `rows` alone: all others are masked."""
        blocks, masks, rows = self._blocks, [], np.unique(rows)
        for block in blocks:
            is_out = np.ones(block.num_stored, bool)
            is_out[positions_of(block.rows, rows)] = False
            masks.append(torch.from_numpy(is_out).to(self._device) | block.is_dead[: block.num_stored])
        return self._search(blocks, masks, queries, count)

    @torch.inference_mode()
    def _search(self, blocks: Sequence[_Block], masks: Sequence[torch.Tensor], queries: Vectors, count: int) -> Hits:
        with self._lock:
            exact = torch.from_numpy(queries).to(self._device)
            given = exact.to(self._dtype)
            rows = torch.full((len(queries), 0), -1, device=self._device)
            scores = torch.empty((len(queries), 0), device=self._device)
            for block, mask in zip(blocks, masks, strict=True):
                found_rows, found_scores = self._search_block(block, mask, exact, given, count)
                rows, scores = torch.cat([rows, found_rows], 1), torch.cat([scores, found_scores], 1)
                scores, order = scores.topk(min(count, scores.shape[1]))
                rows = rows.gather(1, order)
            found = Hits(rows.cpu().numpy(), scores.cpu().numpy())
        return merge_hits([found, empty_hits(len(queries), count - found.rows.shape[1])], count)

    def _search_block(
        self, block: _Block, mask: torch.Tensor, exact: torch.Tensor, given: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows and float32 scores, (B, up to count) each; -1 and -inf where fewer are not masked."""
        is_half = self._dtype != torch.float32
        scores = (given @ block.vectors[: block.num_stored].T).masked_fill_(mask, -torch.inf)
        best, positions = scores.topk(min(_MARGIN * count if is_half else count, block.num_stored))
        rows = block.device_rows[positions].masked_fill_(best == -torch.inf, -1)
        if not is_half:
            return rows, best
        vectors = block.vectors[positions].float()  # (B, k, D)
        rescored = torch.einsum("bd,bkd->bk", exact, vectors).masked_fill_(rows < 0, -torch.inf)
        best, order = rescored.topk(min(count, rescored.shape[1]))
        return rows.gather(1, order), best

    def _empty(self, capacity: int) -> _Block:
        return _Block(
            torch.zeros((capacity, self._dim), dtype=self._dtype, device=self._device),
            torch.zeros(capacity, dtype=torch.int64, device=self._device),
            torch.zeros(capacity, dtype=torch.bool, device=self._device),
            np.zeros(capacity, np.int64),
            np.zeros(capacity, bool),
            0,
            0,
        )

    def _extended(self, block: _Block, rows: Rows, vectors: Vectors | torch.Tensor) -> _Block:
        """The block with more entries, written where no search looks yet."""
        here = slice(block.num_stored, block.num_stored + len(rows))
        block.vectors[here] = torch.as_tensor(vectors).to(self._device, self._dtype)
        block.device_rows[here] = torch.from_numpy(rows).to(self._device)
        block.all_rows[here] = rows
        return replace(block, num_stored=here.stop, num_live=block.num_live + len(rows))

    def _copied(self, blocks: Sequence[_Block], capacity: int) -> _Block:
        """The live content of blocks in a new one of at least this capacity, as far as a block may be."""
        num_live = sum(block.num_live for block in blocks)
        copy = self._empty(max(num_live, min(capacity, self._max_block)))
        for block in blocks:
            live = np.flatnonzero(~block.is_dead_here[: block.num_stored])
            copy = self._extended(copy, block.rows[live], block.vectors[torch.from_numpy(live).to(self._device)])
        return copy
