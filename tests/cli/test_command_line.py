import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

Rag = Callable[..., Awaitable[Any]]
ROOT = Path(__file__).parents[2]
UNREACHABLE = "127.0.0.1:1"


def test_help_starts_without_heavy_imports() -> None:
    program = """
import sys
from cli.__main__ import main
try:
    main(["--help"])
except SystemExit as end:
    heavy = {"torch", "transformers", "grpc", "numpy", "rich"} & set(sys.modules)
    sys.exit(f"imported {heavy}" if heavy or end.code else 0)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_no_command_imports_torch() -> None:
    program = """
import sys
from importlib import import_module
from cli.__main__ import _COMMANDS
for module, _ in _COMMANDS.values():
    import_module(module)
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        [],
        ["ask"],
        ["ask", "q", "--mode", "sideways"],
        ["ask", "q", "--top-k", "many"],
        ["up", "--port", "70000"],
        ["collections", "create", "a", "--field", "year:date"],
    ],
)
async def test_wrong_usage_exits_with_2(rag: Rag, arguments: list[str]) -> None:
    finished = await rag(*arguments)
    assert finished.code == 2
    assert finished.err.startswith("usage: rag")


@pytest.mark.parametrize(
    "command",
    [["ask", "q"], ["search", "q"], ["status"], ["collections", "list"], ["sources"], ["ingest", "."]],
)
async def test_without_a_server_one_line_says_how_to_start_one(rag: Rag, command: list[str]) -> None:
    finished = await rag(*command, "--address", UNREACHABLE)
    assert finished.code == 1
    assert finished.err == f"rag: no gateway at {UNREACHABLE}: start one with `rag up`\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "rag: nowhere: no such file or directory\n"),
        ([".", "--chunk-words", "0"], "rag: chunk words must be at least 1, not 0\n"),
        ([".", "--overlap", "100"], "rag: overlap must be at least 0 and less than 100 words, not 100\n"),
        ([".", "--metadata-column", "year:date"], "rag: metadata column 'year:date': expected NAME or NAME:TYPE"),
    ],
)
async def test_impossible_ingests_are_refused_in_one_line(rag: Rag, arguments: list[str], message: str) -> None:
    finished = await rag("ingest", *arguments, "--address", UNREACHABLE)
    assert finished.code == 1
    assert finished.err.startswith(message)


async def test_an_expected_failure_of_the_process_is_one_line_without_a_stack_trace(rag_process: Rag) -> None:
    finished = await rag_process("ask", "Who?", "--address", UNREACHABLE)
    assert finished.code == 1
    assert finished.err == f"rag: no gateway at {UNREACHABLE}: start one with `rag up`\n"
    assert finished.out == ""


async def test_up_says_which_port_is_not_free(rag: Rag) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        finished = await rag("up", "--port", str(port), "--retriever-port", "0", "--generator-port", "0")
    assert finished.code == 1
    assert f"rag: port {port} for the gateway is not free" in finished.err
    assert "--port 0" in finished.err
