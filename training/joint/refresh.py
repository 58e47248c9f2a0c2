"""Re-encoding the collection on the way: by a process beside the training, into new index generations, in rounds.

Round r embeds the passages with the encoder of step r * every, and its generation is searched from step
(r + 1) * every on: training waits there if it is not ready. So what a step sees depends on the step alone, and a run
that was killed goes on with the same passages. Generation 0 of a run is the one that it began with. Every round leaves
its generation as a snapshot (`rag snapshot list`, `rag snapshot drop`).

As a program (``python -m training.joint.refresh``) it is that process.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from retriever_service.__main__ import build_retriever
from retriever_service.checkpoint import find_checkpoint
from retriever_service.config import RetrieverConfig
from serving.errors import FailedPrecondition
from training.joint.knowledge import KnowledgeBase, read_from_files
from training.joint.search import Search
from training.runtime.states import replace_folder

_DONE = "generation.json"


class Refreshing:
    """Which search a step uses.

    Args:
        base: What the run began with.
        data_dir: The retriever's; nobody else serves it meanwhile.
        collection: What is re-encoded.
        every: Steps of a round.
        folder: Keeps each round's encoder and the number of its generation.
        save_encoder: Writes the encoder as it is now.
        make_search: Searches a knowledge base.
    """

    def __init__(
        self,
        base: KnowledgeBase,
        data_dir: Path,
        collection: str,
        *,
        every: int,
        folder: Path,
        save_encoder: Callable[[Path], None],
        make_search: Callable[[KnowledgeBase], Search],
    ) -> None:
        self._data_dir, self._collection, self._every, self._folder = data_dir, collection, every, folder
        self._save_encoder, self._make_search = save_encoder, make_search
        self._begun = 0
        self._process: subprocess.Popen[bytes] | None = None
        _write_done(folder / "0", _Done(base.index_generation, ""))
        self._round, self.search = 0, make_search(base)

    def __call__(self, step: int) -> Search:
        """The search of a step."""
        current = step // self._every
        if current - 1 > self._round:
            self._switch(current - 1)
        if current > self._begun:
            if step % self._every == 0:
                replace_folder(self._folder / str(current) / "encoder", self._save_encoder)
            self._begin(current)
        return self.search

    def close(self) -> None:
        """Ends the re-encoding under way, which a resumed run finishes."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        self.search.close()

    def _begin(self, number: int) -> None:
        self._begun = number
        folder = self._folder / str(number)
        digest = find_checkpoint(str(folder / "encoder")).digest()
        if (folder / _DONE).exists() and _read_done(folder).digest == digest:
            return  # The run was killed after it; it has made the same encoder again.
        command = [sys.executable, "-m", "training.joint.refresh", "--data-dir", str(self._data_dir)]
        command += ["--collection", self._collection, "--folder", str(folder)]
        with (folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)

    def _switch(self, number: int) -> None:
        if self._begun < number:
            self._begin(number)
        folder = self._folder / str(number)
        if self._process is not None and self._process.wait() != 0:
            raise SystemExit(f"the collection could not be re-encoded: {folder / 'log'} says why")
        self._process = None
        base = read_from_files(self._data_dir, self._collection, _read_done(folder).generation)
        self.search.close()
        self._round, self.search = number, self._make_search(base)


def first_generation(folder: Path) -> int:
    """The generation that the run in this folder began with; 0 where none has begun."""
    return _read_done(folder / "0").generation if (folder / "0" / _DONE).exists() else 0


@dataclass(frozen=True, slots=True)
class _Done:
    """A round's outcome: its index generation, and the digest of the encoder that made it."""

    generation: int
    digest: str


def _write_done(folder: Path, done: _Done) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{_DONE}.partial"
    partial.write_text(json.dumps(asdict(done)) + "\n", encoding="utf-8")
    partial.replace(folder / _DONE)


def _read_done(folder: Path) -> _Done:
    return _Done(**json.loads((folder / _DONE).read_text(encoding="utf-8")))


async def reencode(data_dir: Path, collection: str, encoder: Path) -> int:
    """Builds and activates the generation of an encoder; what an interrupted call has encoded is kept."""
    config = RetrieverConfig(data_dir=data_dir, encoder=str(encoder), num_encoder_threads=1)
    retriever = build_retriever(config)
    await retriever.start()
    try:
        number = 0
        async for progress in retriever.maintenance.reencode(collection, str(encoder), activates=True):
            number = progress.index_generation
    except FailedPrecondition as error:
        if error.reason != "ENCODER_UNCHANGED":
            raise
        number = (await retriever.library.describe(collection)).index_generation
    finally:
        await retriever.close()
    return number


def main(arguments: list[str] | None = None) -> None:
    """Re-encode one round."""
    parser = argparse.ArgumentParser(prog="python -m training.joint.refresh", description=__doc__)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--collection", required=True)
    parser.add_argument("--folder", type=Path, required=True, help="holds the encoder, gets the generation's number")
    flags = parser.parse_args(arguments)
    encoder = flags.folder / "encoder"
    generation = asyncio.run(reencode(flags.data_dir, flags.collection, encoder))
    _write_done(flags.folder, _Done(generation, find_checkpoint(str(encoder)).digest()))


if __name__ == "__main__":
    main()
