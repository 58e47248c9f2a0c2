"""What the README shows works as shown, and its numbers are those of the result files."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import readme

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (rag (?:ask|search|status).*?)(?:\s+#.*)?$", README, re.MULTILINE)


def test_the_numbers_are_those_of_the_result_files():
    assert readme.with_numbers(README, readme.render()) == README


def test_a_readme_without_markers_is_refused():
    with pytest.raises(ValueError, match="lacks"):
        readme.with_numbers("no markers", "x")


def test_every_path_that_the_readme_names_exists():
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    tree = re.search(r"## Files\n+```\n(.*?)```", README, re.DOTALL)
    assert tree is not None
    named = re.findall(r"^(\w+/)", tree.group(1), re.MULTILINE)
    assert len(named) >= 14
    assert [name for name in [*linked, *named] if not (ROOT / name).exists()] == []


def test_every_folder_is_in_the_readme():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {path.split("/")[0] + "/" for path in tracked.split() if "/" in path and not path.startswith(".")}
    assert {folder for folder in folders if f"\n{folder}" not in README} == set()


def test_the_python_example_prints_a_cited_answer(rag_system):
    found = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert found is not None
    program = found.group(1).replace("localhost:50050", rag_system.gateway.address)
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("Paris ")
    assert "capitals_western_europe.md" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_work(command, rag_system):
    import shlex

    argv = [sys.executable, "-m", "cli", *shlex.split(command)[1:], "--address", rag_system.gateway.address]
    result = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


def test_there_are_commands_to_check():
    assert len(COMMANDS) == 5
