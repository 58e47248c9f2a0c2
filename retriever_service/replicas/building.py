"""A retriever's part in replication, as it is configured."""

from __future__ import annotations

import uuid
from pathlib import Path

from retriever_service.config import RetrieverConfig
from retriever_service.dense_index import MakeDenseIndex
from retriever_service.library import Library
from retriever_service.live_collection import LiveCollection
from retriever_service.metrics import RetrieverMetrics
from retriever_service.replicas.followed import FollowedCollection
from retriever_service.replicas.follower import REPLICA_FILE, Follower
from retriever_service.replicas.object_store import open_store
from retriever_service.replicas.publisher import Publisher, PublishOptions
from serving.durable import sync_file
from serving.errors import FailedPrecondition

WRITER_FILE = "writer-id"


def build_replication(
    config: RetrieverConfig, library: Library, metrics: RetrieverMetrics
) -> Publisher | Follower | None:
    """The publisher of a writer, the follower of a replica; None of a retriever that is alone.

    Raises:
        InvalidRequest: When the URL is of no kind that there is.
        FailedPrecondition: When the client for it is not installed, or a replica's copy would be written to.
    """
    if config.follow:
        return Follower(library, open_store(config.follow), config.data_dir, config.follow_interval_seconds, metrics)
    if (config.data_dir / REPLICA_FILE).exists() and config.publish_to and config.take_over:
        (config.data_dir / REPLICA_FILE).unlink()  # Promoted: its collections are its own from now on.
    if (config.data_dir / REPLICA_FILE).exists():
        raise FailedPrecondition(
            f"{config.data_dir} is the local copy of a read replica: start it with --follow, promote it with "
            "--publish-to and --take-over, or take another directory",
            reason="IS_A_REPLICA",
        )
    if not config.publish_to:
        return None
    options = PublishOptions(
        config.writer_address,
        config.data_dir / "publishing",
        _writer_id(config.data_dir / WRITER_FILE),
        config.take_over,
        config.publish_every_seconds,
        config.publish_keep,
    )
    return Publisher(library, open_store(config.publish_to), options, metrics)


def _writer_id(path: Path) -> str:
    """Of a data directory, made once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex, encoding="utf-8")
        sync_file(path)
    return path.read_text(encoding="utf-8")


def build_collection(config: RetrieverConfig, directory: Path, make_dense_index: MakeDenseIndex) -> LiveCollection:
    """Opens a collection of a replica, or of a retriever that takes writes."""
    if config.follow:
        return FollowedCollection(directory, make_dense_index, max_wait_seconds=config.replica_wait_seconds)
    return LiveCollection(directory, make_dense_index)
