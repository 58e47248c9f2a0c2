"""Killed at random moments, writer and reader go on where they were; a reader never serves half a publication."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT, ROOT = Path(__file__).with_name("replica_process.py"), Path(__file__).parents[3]
DONE = re.compile(r"(published|served) (\d+)")


class Process:
    """A writer or a reader that is killed."""

    def __init__(self, role, directory, first=0):
        argv = [sys.executable, str(SCRIPT), role, str(directory / role), str(directory / "shared"), str(first)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self._process = subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)

    def wait_for(self, is_enough):
        """The first version it names that is enough."""
        for line in self._process.stdout:
            if (found := DONE.fullmatch(line.strip())) and is_enough(int(found[2])):
                return int(found[2])
        raise AssertionError(f"ended with status {self._process.wait()}")

    def kill(self):
        time.sleep(random.random() * 0.1)
        self._process.send_signal(signal.SIGKILL)
        self._process.stdout.close()
        self._process.wait()
        assert self._process.returncode == -signal.SIGKILL  # Not by an error before.


@pytest.mark.parametrize("num_rounds", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_at_random_moments_both_go_on_and_nothing_half_is_served(tmp_path, num_rounds):
    version = -1
    for _ in range(num_rounds):
        writer = Process("writer", tmp_path, version + 1)
        version = writer.wait_for(lambda seen, after=version: seen > after + 2)
        reader = Process("reader", tmp_path)
        reader.wait_for(lambda seen, least=version: seen >= least)
        writer.kill()
        reader.kill()
    last = Process("writer", tmp_path, version + 1_000)
    reader = Process("reader", tmp_path)
    reader.wait_for(lambda seen: seen >= version + 1_000)
    last.kill()
    reader.kill()
