"""What an interrupted process left to do in a collection, done when it is opened again."""

from __future__ import annotations

import asyncio
import sqlite3

from retriever_service.encoding import Encoding
from retriever_service.generations import STORE_FILE
from retriever_service.live_collection import LiveCollection
from retriever_service.purging import complete_purge
from retriever_service.snapshot_files import is_outdated, read_manifest
from retriever_service.snapshots import rewrite, settle_all
from retriever_service.succession import start_following
from serving.errors import RagError
from serving.logs import get_logger

log = get_logger(__name__)


async def recover(collection: LiveCollection, encoding: Encoding) -> None:
    """Finishes purges and take-overs, brings snapshots to the present format, opens what is served."""
    async with collection.changing:
        await settle_all(collection)
        for number in collection.record.frozen:
            directory = collection.generations.path(number)
            try:
                if await asyncio.to_thread(is_outdated, directory / STORE_FILE):
                    manifest = await asyncio.to_thread(read_manifest, directory)
                    await rewrite(collection, number, directory, manifest.label, manifest.created_at)
            except (RagError, sqlite3.Error) as error:  # Damaged: the others can be served all the same.
                log.error("snapshot cannot be read", index_generation=number, cause=str(error))
        await complete_purge(collection)
    async with collection.serving():
        pass
    if collection.record.is_successor_complete:
        try:
            await start_following(collection, encoding)
        except RagError as error:
            log.warning("re-encoded generation is not kept up to date", cause=error.message)
