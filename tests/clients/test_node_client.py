"""A client in another language: @grpc/grpc-js, the contract read from its .proto files."""

import json
from pathlib import Path

NODE_CLIENT = Path(__file__).parents[2] / "examples/node_client"


def lines_of(output: str, name: str) -> list[str]:
    return [line.removeprefix(f"{name}: ") for line in output.splitlines() if line.startswith(f"{name}: ")]


def test_a_node_client_gets_an_answer_and_its_citations(node_client, rag_system):
    done = node_client("--address", rag_system.gateway.address, "What is the capital of France?")
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stdout, "answer") == ["Paris (FINISH_REASON_END_OF_SEQUENCE)"]
    cited = lines_of(done.stdout, "cited")
    assert len(cited) == 3
    assert "capitals_western_europe.md" in cited[0]
    assert abs(sum(float(line.split()[0]) for line in cited) - 1) < 0.01
    assert lines_of(done.stdout, "generator")[0] not in ("", "undefined")


def test_a_node_client_streams_an_answer(node_client, rag_system):
    question = "What is the capital of France?"
    done = node_client("--stream", "--address", rag_system.gateway.address, question)
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stdout, "stage")[0] == "STAGE_RETRIEVE"
    assert lines_of(done.stdout, "delta")
    (answer,) = lines_of(done.stdout, "answer")
    assert answer.startswith("Paris")


def test_a_node_client_is_told_what_is_wrong_with_its_question(node_client, rag_system):
    done = node_client("--address", rag_system.gateway.address, " ")
    assert done.returncode == 1
    assert done.stderr.startswith("INVALID_ARGUMENT: ")
    assert "question" in done.stderr


def test_the_lock_file_pins_every_package_and_records_no_address():
    lock = json.loads((NODE_CLIENT / "package-lock.json").read_text())
    wanted = json.loads((NODE_CLIENT / "package.json").read_text())["dependencies"]
    packages = {name.removeprefix("node_modules/"): each for name, each in lock["packages"].items() if name}
    assert wanted.keys() <= packages.keys()
    for package in packages.values():
        assert package["integrity"].startswith("sha512-")
        assert "resolved" not in package
