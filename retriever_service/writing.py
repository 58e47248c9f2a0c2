"""The transactions that change a collection: each is one batch, and durable when it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from retriever_service.batch import Batch, Patch, Written
from retriever_service.collection import FieldType
from retriever_service.filters import Condition
from retriever_service.store import Store
from retriever_service.transaction import Transaction


class Writer:
    """Changes one collection. One thread at a time."""

    def __init__(self, store: Store, filterable_fields: Mapping[str, FieldType]) -> None:
        self._store, self._filterable = store, filterable_fields

    def write(self, batch: Batch) -> Written:
        """Commits a batch in one transaction."""
        with self._writing() as transaction:
            return transaction.write(batch)

    def delete(self, condition: Condition, sources: Sequence[str] = ()) -> Written:
        """Deletes matching passages, and the record of `sources`."""
        with self._writing() as transaction:
            return transaction.delete(condition, sources)

    def patch(self, condition: Condition, change: Patch) -> Written:
        """Changes the metadata of matching passages."""
        with self._writing() as transaction:
            return transaction.patch(condition, change)

    def erase(self, rows: Sequence[int], sources: Sequence[str]) -> None:
        """Takes rows and sources out of a copy, leaving no log entry."""
        with self._writing() as transaction:
            transaction.erase(rows, sources)

    def set_meta(self, values: Mapping[str, str]) -> None:
        """Records values of the collection itself."""
        with self._writing() as transaction:
            transaction.set_meta(values)

    @contextmanager
    def _writing(self) -> Iterator[Transaction]:
        connection = self._store.connection()
        connection.execute("BEGIN IMMEDIATE")
        try:
            transaction = Transaction(connection, self._filterable)
            yield transaction
            transaction.finish()
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")  # Returns after fsync.
