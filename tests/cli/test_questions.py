import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from cli.addresses import read_addresses, remove_addresses, write_addresses
from protos.rag.v1 import common_pb2

Rag = Callable[..., Awaitable[Any]]


@pytest.fixture
async def filled(rag: Rag, served: Any, tmp_path: Path) -> Any:
    (tmp_path / "france.md").write_text("# France\n\n## Paris\n\nParis is the capital of France.\n")
    assert (await rag("ingest", str(tmp_path / "france.md"), "--address", served.address)).code == 0
    return served


async def test_the_last_event_is_shown_with_its_citations_and_not_the_deltas(rag: Rag, filled: Any) -> None:
    finished = await rag("ask", "Which capital?", "--address", filled.address)
    assert finished.code == 0
    assert finished.out.splitlines()[0] == "Paris"
    assert "misleading" not in finished.out
    assert "0.750  0.500  France: Paris  france.md" in finished.out
    assert "Paris is the capital of France." in finished.out
    assert "generator fake (abc)" in finished.out


async def test_an_unstreamed_answer_is_a_unary_call_with_the_options_given(rag: Rag, filled: Any) -> None:
    options = ["--no-stream", "--model", "rag-sequence", "--top-k", "3", "--mode", "lexical", "--beams", "2"]
    finished = await rag("ask", "Which capital?", *options, "--address", filled.address)
    assert finished.out.splitlines()[0] == "Paris"
    request = filled.gateway.requests[-1]
    assert type(request).__name__ == "AnswerRequest"
    assert (request.options.retrieval.top_k, request.options.retrieval.mode) == (3, 2)
    assert (request.options.decoding.model, request.options.decoding.num_beams) == (1, 2)


@pytest.mark.parametrize("method", ["question-likelihood", "answerability"])
async def test_candidates_and_reranking_are_asked_for(rag: Rag, filled: Any, method: str) -> None:
    options = ["--candidates", "4", "--rerank", method]
    await rag("ask", "Which capital?", *options, "--address", filled.address)
    request = filled.gateway.requests[-1]
    assert request.options.decoding.candidate_ranking.num_candidates == 4
    wanted = common_pb2.Rerank.Method.Value(f"METHOD_{method.upper().replace('-', '_')}")
    assert request.options.retrieval.rerank.method == wanted


async def test_neighbors_and_diversity_are_asked_for(rag: Rag, filled: Any) -> None:
    await rag("ask", "Which capital?", "--neighbors", "2", "--diversity", "0.4", "--address", filled.address)
    given = filled.gateway.requests[-1].options.retrieval
    assert (given.num_neighbors, given.diversity.relevance) == (2, 0.4)
    await rag("ask", "Which capital?", "--address", filled.address, "--diversity")
    assert filled.gateway.requests[-1].options.retrieval.diversity.relevance == 0.7
    await rag("ask", "Which capital?", "--address", filled.address)
    assert not filled.gateway.requests[-1].options.retrieval.HasField("diversity")


async def test_json_holds_the_whole_answer(rag: Rag, filled: Any) -> None:
    finished = await rag("ask", "Which capital?", "--json", "--address", filled.address)
    answer = json.loads(finished.out)
    assert answer["text"] == "Paris"
    assert answer["citations"][0]["posterior"] == 0.75
    assert answer["citations"][0]["retrieved"]["passage"]["source"] == "france.md"


async def test_an_abstention_is_told_plainly(rag: Rag, filled: Any) -> None:
    finished = await rag("ask", "Which capital?", "--min-confidence", "0.9", "--address", filled.address)
    assert finished.code == 0
    assert finished.out.startswith("No answer: the confidence of 0.50 is under the threshold.")


async def test_a_question_that_finds_nothing_is_told_plainly(rag: Rag, filled: Any) -> None:
    finished = await rag("ask", "zzz?", "--address", filled.address)
    assert finished.code == 0
    assert finished.out.startswith("No answer: no passage was found.")


@pytest.mark.parametrize("command", ["ask", "search"])
async def test_an_empty_collection_is_told_with_what_to_do(rag: Rag, served: Any, command: str) -> None:
    await rag("collections", "create", "news", "--address", served.address)
    finished = await rag(command, "anything", "--collection", "news", "--address", served.address)
    assert finished.code == 1
    assert finished.err == "rag: collection 'news' has no passages: `rag ingest PATH --collection news`\n"


@pytest.mark.parametrize("command", [["ask", "q"], ["search", "q"], ["sources"]])
async def test_an_unknown_collection_is_told_with_those_that_exist(rag: Rag, filled: Any, command: list[str]) -> None:
    await rag("collections", "create", "news", "--address", filled.address)
    finished = await rag(*command, "--collection", "nope", "--address", filled.address)
    assert finished.code == 1
    assert finished.err == "rag: no collection 'nope'; there are: default, news (`rag ingest PATH` makes one)\n"


async def test_before_any_ingest_the_missing_collection_says_how_to_make_it(rag: Rag, served: Any) -> None:
    finished = await rag("ask", "q", "--address", served.address)
    assert finished.err == "rag: no collection 'default'; there are: none yet (`rag ingest PATH` makes one)\n"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "soon"])
async def test_a_timeout_that_is_no_time_is_a_usage_error(rag: Rag, seconds: str) -> None:
    finished = await rag("ask", "q", "--timeout", seconds)
    assert finished.code == 2
    assert "--timeout" in finished.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["caf\udce9"], "utf-8"),
        (["q", "--top-k", "-1"], "top_k"),
        (["q", "--collection", "\udcff"], "utf-8"),
    ],
)
@pytest.mark.parametrize("command", ["ask", "search"])
async def test_bad_input_is_refused_in_one_line(
    rag: Rag, filled: Any, command: str, arguments: list[str], told: str
) -> None:
    finished = await rag(command, *arguments, "--address", filled.address)
    assert finished.code == 1
    assert finished.err.startswith("rag: ")
    assert finished.err.count("\n") == 1
    assert told in finished.err


async def test_search_shows_scores_and_sources(rag: Rag, filled: Any) -> None:
    finished = await rag("search", "capital", "--address", filled.address)
    assert "0.500" in finished.out
    assert "France: Paris  france.md" in finished.out
    assert (await rag("search", "zzz", "--address", filled.address)).out == "no passage found\n"


async def test_status_says_which_service_does_not_answer(rag: Rag, filled: Any) -> None:
    finished = await rag("status", "--address", filled.address)
    assert finished.code == 1
    lines = {line.split()[0]: line for line in finished.out.splitlines() if line.strip()}
    assert "not serving" not in lines["gateway"]
    assert "not serving" in lines["generator"]


async def test_collections_are_listed_and_dropped_after_a_yes(rag: Rag, filled: Any) -> None:
    address = ("--address", filled.address)
    assert "default" in (await rag("collections", "list", *address)).out
    assert (await rag("collections", "drop", "default", *address, stdin="n\n")).code == 1
    assert "default" in filled.retriever.collections
    assert "deleted 1 passages" in (await rag("collections", "drop", "default", *address, stdin="y\n")).out
    assert filled.retriever.collections == {}


async def test_sources_are_listed(rag: Rag, filled: Any) -> None:
    assert "france.md" in (await rag("sources", "--address", filled.address)).out


async def test_the_address_that_up_left_is_used(rag: Rag, filled: Any, tmp_path: Path) -> None:
    (tmp_path / "rag-data").mkdir()
    write_addresses(tmp_path / "rag-data", {"gateway": filled.address})
    assert (await rag("ask", "Which capital?")).code == 0


def test_without_services_file_the_default_ports_are_assumed(tmp_path: Path) -> None:
    assert read_addresses(tmp_path)["gateway"] == "localhost:50050"
    write_addresses(tmp_path, {"gateway": "localhost:1"})
    assert read_addresses(tmp_path) == {
        "gateway": "localhost:1",
        "retriever": "localhost:50051",
        "generator": "localhost:50052",
    }
    remove_addresses(tmp_path)
    assert read_addresses(tmp_path)["gateway"] == "localhost:50050"
