"""What people think of answers: an append-only file of JSON lines, durable before the reply."""

import asyncio
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from serving.durable import sync_directory


@dataclass(frozen=True, slots=True)
class Feedback:
    """Feedback that passed validation; `rating` is "good", "bad" or ""."""

    answer_id: str
    rating: str = ""
    expected_answer: str = ""
    comment: str = ""
    helpful_passage_ids: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Its id: the same feedback on the same answer has the same one."""
        content = json.dumps(asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class FeedbackLog:
    """The file. One writer: a gateway process of its own path."""

    def __init__(self, path: Path) -> None:
        """Names the file; `open` must come before `append`."""
        self._path = path
        self._seen: set[str] = set()
        self._lock = asyncio.Lock()

    async def open(self) -> None:
        """Reads what is there and makes the file writable; a line cut short by a crash was never acknowledged.

        Raises:
            OSError: The file cannot be made or read.
        """
        self._seen = await asyncio.to_thread(_recover, self._path)

    async def append(self, feedback: Feedback) -> str:
        """Stores feedback once; when it returns, it is on disk.

        Returns:
            The feedback's id.
        """
        feedback_id = feedback.digest
        async with self._lock:
            if feedback_id not in self._seen:
                record = {"feedback_id": feedback_id, "created_at": datetime.now(UTC).isoformat(), **asdict(feedback)}
                await asyncio.shield(asyncio.to_thread(_append, self._path, json.dumps(record, ensure_ascii=False)))
                self._seen.add(feedback_id)
        return feedback_id


def _append(path: Path, line: str) -> None:
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            file.write(line.encode() + b"\n")
            os.fsync(file.fileno())
        except OSError:  # Disk full: leave no half line for the next one to run into.
            file.truncate(size)
            raise


def _recover(path: Path) -> set[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        file.seek(0)
        content = file.read()
        end = content.rfind(b"\n") + 1
        file.truncate(end)
        os.fsync(file.fileno())
    sync_directory(path.parent)
    return {json.loads(line)["feedback_id"] for line in content[:end].splitlines()}
