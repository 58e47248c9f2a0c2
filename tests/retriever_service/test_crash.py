"""Killed at random moments under load, a collection loses nothing that it acknowledged."""

import asyncio
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from retriever_service.catalog import Catalog
from retriever_service.collection import DEFAULT_COLLECTION, CollectionRequest, EncoderIdentity
from retriever_service.dense.choice import DenseIndexes
from retriever_service.store import EVERYTHING

WRITER = """
import asyncio, itertools, sys
from pathlib import Path
import numpy as np
from retriever_service.catalog import Catalog
from retriever_service.collection import Passage
from retriever_service.filters import Condition
from retriever_service.batch import Batch, EncodedPassage
from retriever_service.dense import merging
from retriever_service.dense.choice import DenseIndexes

merging.MIN_DELTA = 20  # So that segments are merged all the time.

async def main(data_dir, start):
    catalog = Catalog(Path(data_dir), DenseIndexes())
    catalog.lock()
    collection = catalog.open("default")
    await collection.start()
    for i in itertools.count(start):
        vector = np.random.default_rng(i).normal(size=8).astype(np.float32)
        passages = [EncodedPassage(Passage(f"p{i}-{j}", "", f"word{i} part{j}"), vector + j) for j in range(3)]
        await collection.write(Batch(passages))
        print(f"put {i}", flush=True)
        if i % 3 == 0:
            await collection.delete(Condition("p.id = ?", (f"p{i}-1",)))
            print(f"del {i}", flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""
ACKNOWLEDGED = re.compile(r"(put|del) \d+")
IDENTITY = EncoderIdentity("fake", "d", 8, True)


def run_until_killed(data_dir: Path, start: int, num_acknowledged: int) -> list[str]:
    """Acknowledgements of a writing process that is killed after a number of them, at a random moment."""
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(data_dir), str(start)], cwd=root, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        if ACKNOWLEDGED.fullmatch(line.strip()):
            lines.append(line.strip())
        if len(lines) == num_acknowledged:
            time.sleep(random.random() * 0.02)
            os.kill(process.pid, signal.SIGKILL)
            break
    rest = process.stdout.read().splitlines(keepends=True)
    lines += [line.strip() for line in rest if line.endswith("\n") and ACKNOWLEDGED.fullmatch(line.strip())]
    process.wait()
    assert process.returncode == -signal.SIGKILL
    return lines


async def check(data_dir: Path, acknowledged: set[str]) -> None:
    """Store and both indexes hold what was acknowledged, and the same as each other."""
    catalog = Catalog(data_dir, DenseIndexes())
    catalog.lock()
    collection = catalog.open(DEFAULT_COLLECTION)
    await collection.start()
    with collection.head.store.reading() as reader:
        rows = {id_: row for row, id_ in collection.head.store.connection().execute("SELECT row, id FROM passages")}
        stored_rows, vectors = reader.vectors(np.array(sorted(rows.values()), np.int64))
        count = reader.num_passages(EVERYTHING)
    for line in acknowledged:
        kind, number = line.split()
        assert {f"p{number}-0", f"p{number}-2"} <= rows.keys()
        assert kind == "put" or f"p{number}-1" not in rows
    assert len(stored_rows) == count == collection.head.dense.num_vectors == collection.head.lexical.num_passages
    found = collection.head.dense.search(vectors[:1], count).rows[0]
    assert set(found.tolist()) == set(rows.values())
    for id_ in random.sample(sorted(rows), min(20, count)):
        number, part = id_[1:].split("-")
        assert rows[id_] in collection.head.lexical.search(f"word{number}", 3)[0].tolist(), part
    await collection.close()
    catalog.unlock()


@pytest.mark.parametrize("num_rounds", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_loses_nothing_acknowledged(tmp_path, num_rounds):
    Catalog(tmp_path).lock()
    Catalog(tmp_path).create(CollectionRequest(DEFAULT_COLLECTION).settle(IDENTITY))
    acknowledged: set[str] = set()
    for round_ in range(num_rounds):
        acknowledged |= set(run_until_killed(tmp_path, round_ * 10_000, random.randint(1, 40)))
        asyncio.run(check(tmp_path, acknowledged))
    assert len(acknowledged) >= num_rounds
