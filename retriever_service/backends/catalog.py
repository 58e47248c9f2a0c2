"""The collections that an engine holds: what `catalog.Catalog` is for those on disk."""

from __future__ import annotations

import time
import uuid

from retriever_service.backends.collection import RemoteCollection
from retriever_service.backends.ledger import Ledger, ledger_from
from retriever_service.backends.remote import Abilities, RemoteServer, refuse
from retriever_service.collection import CollectionSettings, LexicalScoring
from serving.errors import FailedPrecondition, NotFound
from serving.logs import get_logger

log = get_logger(__name__)


class RemoteCatalog:
    """Finds, makes, opens and drops collections. Blocking; for threads. Nothing is kept on this machine."""

    def __init__(self, server: RemoteServer) -> None:
        """Prepares; `lock` connects."""
        self._server = server
        self._abilities = Abilities("")

    def lock(self) -> None:
        """Reaches the engine: several retrievers may, so nothing is locked.

        Raises:
            NotReady: When it cannot be reached.
        """
        self._abilities = self._server.connect()
        log.info("backend connected", backend=self._abilities.kind, lexical=self._abilities.lexical)

    def unlock(self) -> None:
        """Ends the connection."""
        self._server.close()

    @property
    def keeps_sentence_vectors(self) -> bool:
        """No engine does."""
        return False

    def names(self) -> list[str]:
        """The collections there are, in order."""
        return self._server.names()

    def create(self, settings: CollectionSettings) -> None:
        """Makes an empty collection; one that another retriever has made of the same settings stays as it is.

        Raises:
            FailedPrecondition: When there is one of other settings.
            Unimplemented: When the engine cannot score as the settings say.
        """
        there = self._server.ledger(settings.name)
        if there is not None:
            if not ledger_from(there).settings.is_like(settings):
                raise FailedPrecondition(
                    f"collection {settings.name!r} exists with other settings: drop it, or take another name",
                    reason="COLLECTION_EXISTS",
                )
            return
        if settings.index_factory:
            raise refuse(self._abilities.kind, "index_factory", "the server's configuration chooses the index")
        if settings.sentence_vectors:
            raise refuse(self._abilities.kind, "sentence_vectors", "only the local index keeps them")
        if settings.lexical_scoring is LexicalScoring.TF_IDF and not self._abilities.tf_idf:
            raise refuse(self._abilities.kind, "TF-IDF scoring", "create the collection with BM25")
        ledger = Ledger(settings, uuid.uuid4().hex, created_at=time.time(), updated_at=time.time())
        self._server.create(settings, ledger.to_value())

    def has(self, name: str) -> bool:
        """Whether there is such a collection by now: another retriever may have made it."""
        return self._server.ledger(name) is not None

    def open(self, name: str) -> RemoteCollection:
        """Opens a collection; it wants `start`."""
        value = self._server.ledger(name)
        if value is None:
            raise NotFound(f"no collection {name!r} in {self._abilities.kind}", reason="COLLECTION_NOT_FOUND")
        return RemoteCollection(self._server, ledger_from(value), self._abilities)

    def drop(self, name: str) -> None:
        """Deletes a closed collection."""
        self._server.drop(name)
