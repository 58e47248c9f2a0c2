"""Publications in an S3-compatible store. Endpoint, region and credentials come from the usual AWS environment."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from serving.errors import FailedPrecondition

_CHUNK_BYTES = 8 << 20
_RETRY: Any = {"max_retries": 3, "retry_timeout": timedelta(seconds=60)}


class S3Store:
    """A bucket, or what lies under a prefix of one; see `ObjectStore`."""

    def __init__(self, url: str) -> None:
        """Prepares; nothing is asked yet.

        Args:
            url: s3://bucket/prefix.

        Raises:
            FailedPrecondition: When the client is not installed.
        """
        try:
            import obstore
        except ImportError as error:
            raise FailedPrecondition(
                "replicas over S3 need the extra `s3`: pip install 'rag-serving[s3]'", reason="EXTRA_MISSING"
            ) from error
        self._obstore: Any = obstore
        # An endpoint is only spoken to in the clear where AWS_ENDPOINT_URL says http://.
        self._store = obstore.store.S3Store.from_url(
            url, retry_config=_RETRY, client_options={"allow_http": True, "timeout": timedelta(minutes=30)}
        )

    def read(self, name: str) -> bytes | None:
        """A small object's content; None when there is none of this name."""
        try:
            return bytes(self._obstore.get(self._store, name).bytes())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Stores a small object."""
        self._obstore.put(self._store, name, content)

    def replace(self, name: str, content: bytes, expected: bytes | None) -> bool:
        """Stores a small object where its content is still the expected one, None for none; whether that was so.

        A server that knows no conditions on writes overlooks who writes in the same moment.
        """
        changed = (self._obstore.exceptions.AlreadyExistsError, self._obstore.exceptions.PreconditionError)
        mode: Any = "create"
        try:
            found = self._obstore.get(self._store, name)
            if bytes(found.bytes()) != expected:
                return False
            mode = {"e_tag": found.meta["e_tag"]}
        except FileNotFoundError:
            if expected is not None:
                return False
        try:
            self._obstore.put(self._store, name, content, mode=mode)
        except changed:
            return False
        return True

    def upload(self, name: str, source: Path) -> None:
        """Stores a file, in parts when it is large."""
        self._obstore.put(self._store, name, source)

    def download(self, name: str, target: Path) -> None:
        """Copies an object into a file, durably."""
        with target.open("wb") as file:
            for chunk in self._obstore.get(self._store, name).stream(min_chunk_size=_CHUNK_BYTES):
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())

    def names(self, prefix: str) -> set[str]:
        """The objects whose names start with a prefix that ends with a slash."""
        return {str(one["path"]) for batch in self._obstore.list(self._store, prefix) for one in batch}

    def delete(self, names: Iterable[str]) -> None:
        """Deletes objects; absent ones are no error."""
        if listed := list(names):
            self._obstore.delete(self._store, listed)
