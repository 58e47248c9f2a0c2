"""The options that questions and searches share."""

import argparse
from typing import cast

from cli.session import add_collection_argument, add_connection_arguments
from rag_client import (
    AnswerOptions,
    CandidateRanking,
    DecodingModel,
    Diversity,
    RagClient,
    Rerank,
    RerankMethod,
    RetrievalMode,
    RetrievalOptions,
)
from rag_client.errors import RagError

_DEFAULT_RELEVANCE = 0.7


def add_retrieval_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what shapes retrieval, the connection's arguments and --json."""
    add_collection_argument(parser)
    parser.add_argument("-k", "--top-k", type=int, metavar="N", help="passages, 1 to 100 (default: the server's, 5)")
    parser.add_argument(
        "--mode", choices=[mode.value for mode in RetrievalMode], help="(default: the server's, hybrid)"
    )
    parser.add_argument(
        "--rerank",
        choices=[method.value.replace("_", "-") for method in RerankMethod],
        help="read the hits again before the best are taken (answerability: by the generator's odds that they hold an "
        "answer; question-likelihood: not with the default generator)",
    )
    parser.add_argument(
        "--neighbors", type=int, metavar="N", help="with each passage the N before and after it in its source, up to 5"
    )
    parser.add_argument(
        "--diversity",
        type=float,
        nargs="?",
        const=_DEFAULT_RELEVANCE,
        metavar="RELEVANCE",
        help="passages that do not say the same twice; 1 is relevance alone, 0 novelty alone (%(const)s)",
    )
    parser.add_argument(
        "--index-generation", type=int, metavar="NUMBER", help="of `rag snapshot list` (default: the one served)"
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_connection_arguments(parser)


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what shapes an answer beyond its passages."""
    parser.add_argument(
        "--model",
        choices=[model.value.replace("_", "-") for model in DecodingModel],
        help="(default: rag-sequence; streamed, rag-token; summaries, fusion-in-decoder)",
    )
    parser.add_argument("--beams", type=int, metavar="N", help="1 (greedy) to 16")
    parser.add_argument(
        "--candidates", type=int, metavar="N", help="decode N answers, 2 to 16, and let the query encoder choose"
    )
    parser.add_argument("--min-confidence", type=float, metavar="P", help="in [0, 1]; no answer below it")


def answer_options(arguments: argparse.Namespace) -> AnswerOptions:
    """What was given; the server fills in the rest."""
    options = cast(AnswerOptions, dict(retrieval_options(arguments)))  # A TypedDict cannot be widened otherwise.
    if arguments.model is not None:
        options["model"] = arguments.model.replace("-", "_")
    if arguments.beams is not None:
        options["num_beams"] = arguments.beams
    if arguments.candidates is not None:
        options["candidate_ranking"] = CandidateRanking(arguments.candidates)
    if arguments.min_confidence is not None:
        options["min_confidence"] = arguments.min_confidence
    return options


def retrieval_options(arguments: argparse.Namespace) -> RetrievalOptions:
    """What was given; the server fills in the rest."""
    options = RetrievalOptions(collection=arguments.collection)
    if arguments.top_k is not None:
        options["top_k"] = arguments.top_k
    if arguments.mode is not None:
        options["mode"] = arguments.mode
    if arguments.index_generation is not None:
        options["index_generation"] = arguments.index_generation
    if arguments.rerank is not None:
        options["rerank"] = Rerank(arguments.rerank.replace("-", "_"))
    if arguments.neighbors is not None:
        options["num_neighbors"] = arguments.neighbors
    if arguments.diversity is not None:
        options["diversity"] = Diversity(arguments.diversity)
    return options


def is_empty(client: RagClient, collection: str) -> bool:
    """Whether the collection is known to hold no passage."""
    try:
        return client.describe_collection(collection).num_passages == 0
    except RagError:
        return False
