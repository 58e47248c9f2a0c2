"""`rag demo`, which `make demo` runs after installing."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_demo_answers_its_five_questions_with_citations_and_leaves_nothing_running():
    argv = [sys.executable, "-m", "cli", "demo"]
    environment = {**os.environ, "COLUMNS": "120"}
    result = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "5 of 5 answers are right; all services have stopped" in result.stdout
    for expected in (
        "What is the capital of France?",
        "Paris",
        "capitals_western_europe.md",
        "world_series.md",
        "posterior",
    ):
        assert expected in result.stdout


def test_the_demo_says_what_it_lacks_outside_the_source_tree(tmp_path):
    argv = [sys.executable, "-m", "cli", "demo", "--examples", str(tmp_path)]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    assert "--examples" in result.stderr
    assert "Traceback" not in result.stderr
