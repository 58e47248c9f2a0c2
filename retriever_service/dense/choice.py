"""The dense index of a generation, as the service is configured and the collection was made."""

from __future__ import annotations

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from retriever_service.collection import CollectionSettings
from retriever_service.dense.building import SegmentOptions
from retriever_service.dense.cagra import CAGRA, MIN_GRAPH
from retriever_service.dense.factory import EXACT, check_factory, factory_for
from retriever_service.dense.segmented import SegmentedIndex
from retriever_service.dense_index import DenseIndex, OpenSource
from serving.errors import FailedPrecondition


@dataclass(frozen=True, slots=True)
class DenseOptions:
    """How vectors are searched.

    Attributes:
        backend: "faiss", or "torch": exact search in the device's memory.
        device: "cpu", "cuda" or "cuda:N".
        dtype: Of torch's vectors, or "auto": float16 on a GPU, float32 on a CPU.
        target_recall: Recall@10 that quantised indexes are calibrated for.
        max_segment_bytes: Of a segment's vectors at two bytes a number.
        num_threads: That search a batch.
        on_progress: Told how far the loading of a collection's index is, 0 to 1.
        on_search: Told how many queries each search has.
    """

    backend: str = "faiss"
    device: str = "cpu"
    dtype: str = "auto"
    target_recall: float = 0.98
    max_segment_bytes: int = 1 << 30
    num_threads: int = 1
    on_progress: Callable[[str, float], None] = lambda _collection, _ratio: None
    on_search: Callable[[int], None] = lambda _: None


class DenseIndexes:
    """Makes dense indexes. Call it with a generation's directory, settings and source."""

    def __init__(self, options: DenseOptions = DenseOptions()) -> None:
        """Checks that the device can be used.

        Raises:
            FailedPrecondition: When it cannot.
        """
        self._options, self._threads = options, None
        if options.num_threads > 1:
            self._threads = ThreadPoolExecutor(options.num_threads, thread_name_prefix="dense")
        self._place = None
        try:
            if options.backend == "torch":
                from retriever_service.dense.torch_index import check_device

                check_device(options.device)
            elif options.device != "cpu":
                from retriever_service.dense.gpu import GpuPlace

                self._place = GpuPlace(int(options.device.partition(":")[2] or 0))
        except RuntimeError as error:
            raise FailedPrecondition(str(error), reason="DEVICE_NOT_USABLE") from error

    def __call__(self, directory: Path, settings: CollectionSettings, open_source: OpenSource) -> DenseIndex:
        """An empty index; `load` fills it.

        Raises:
            InvalidRequest: When FAISS makes no index of the factory string that the collection asks for.
            FailedPrecondition: When it asks for one, and this service does not search with FAISS.
        """
        options = self._options
        self._check_backend(settings)
        report = functools.partial(options.on_progress, settings.name)
        if options.backend == "torch":
            from retriever_service.dense.torch_index import TorchIndex

            return TorchIndex(
                settings.encoder.dim,
                device=options.device,
                dtype=options.dtype,
                on_progress=report,
                on_search=options.on_search,
            )
        return SegmentedIndex(
            directory,
            settings,
            open_source,
            SegmentOptions(
                choose_factory=self._policy(settings),
                target_recall=options.target_recall,
                max_segment_bytes=options.max_segment_bytes,
                place=self._place,
                build_graph=None if self._place is None else self._place.build_graph,
                num_threads=options.num_threads,
                threads=self._threads,
                on_progress=report,
                on_search=options.on_search,
            ),
        )

    def check_new(self, settings: CollectionSettings) -> None:
        """Checks that a new collection can have the index that it asks for; one that is there may be served without.

        Raises:
            RagError: When it cannot.
        """
        self._check_backend(settings)
        if settings.index_factory == CAGRA and not self._can_build_graphs:
            raise FailedPrecondition(
                "index_factory 'CAGRA' is built on a GPU, by FAISS with cuVS: install the faiss-gpu-cuvs build, set "
                f"dense_device to cuda; this retriever has dense_device {self._options.device!r}",
                reason="INDEX_FACTORY_NOT_SERVED",
            )

    @property
    def _can_build_graphs(self) -> bool:
        return self._place is not None and self._place.can_build_graphs

    def _check_backend(self, settings: CollectionSettings) -> None:
        factory = settings.index_factory
        if factory and self._options.backend != "faiss":
            raise FailedPrecondition(
                f"index_factory {factory!r} needs --dense-backend faiss; this retriever searches with "
                f"{self._options.backend}",
                reason="INDEX_FACTORY_NOT_SERVED",
            )
        if factory and factory != CAGRA:
            check_factory(factory, settings.encoder.dim)

    def _policy(self, settings: CollectionSettings) -> Callable[[int, int], str]:
        if settings.index_factory == CAGRA and self._can_build_graphs:
            return lambda _num_vectors, size: CAGRA if size >= MIN_GRAPH else EXACT
        if settings.index_factory not in ("", CAGRA):
            return lambda _num_vectors, _size: settings.index_factory
        if self._place is not None:
            return functools.partial(self._place.factory_for, settings.encoder.dim)
        return factory_for
