"""`rag tune`: fits a collection's fusion and temperature to questions with known answers, and stores them with it."""

import argparse
from pathlib import Path

from rich.table import Table

from cli.errors import CommandFailed
from cli.progress import Counter
from cli.render import make_console, print_json
from cli.session import add_connection_arguments, connected
from evaluation.datasets import read_questions
from evaluation.estimates import Estimate
from evaluation.pools import fetch_pools
from evaluation.tuning import Scoring, Tuning, tune
from rag_client import Collection, Fusion


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("collection", metavar="COLLECTION")
    parser.add_argument(
        "--questions", type=Path, required=True, metavar="FILE",
        help=".jsonl with question and gold passage or answers; never those that you measure quality on",
    )  # fmt: skip
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N questions")
    parser.add_argument("-k", "--top-k", type=int, default=5, metavar="N", help="passages of an answer (%(default)s)")
    parser.add_argument("--only", choices=["fusion", "temperature"], help="fit this, leave the other as it is")
    parser.add_argument("--dry-run", action="store_true", help="change nothing")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_connection_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Tunes once. Interrupted, it has changed nothing."""
    try:
        questions = read_questions(arguments.questions)[: arguments.limit]
    except OSError as error:
        raise CommandFailed(f"{error.filename}: {error.strerror}") from error
    except ValueError as error:
        raise CommandFailed(str(error)) from error
    with connected(arguments) as client, Counter("searched for") as counter:
        present = _scoring(client.describe_collection(arguments.collection))
        pools = fetch_pools(
            client, arguments.collection, questions, on_progress=lambda done: counter.show(done, len(questions))
        )
        try:
            tuning = tune(
                pools,
                present,
                top_k=arguments.top_k,
                fits_fusion=arguments.only != "temperature",
                fits_temperature=arguments.only != "fusion",
            )
        except ValueError as error:
            raise CommandFailed(str(error)) from error
        is_stored = tuning.after != present and not arguments.dry_run
        if is_stored:
            after = tuning.after
            fusion = Fusion(after.method, after.dense_weight, after.lexical_weight, after.rrf_k)
            client.configure_collection(arguments.collection, temperature=after.temperature, fusion=fusion)
    print_json(tuning) if arguments.json else _show(tuning, is_stored=is_stored)
    return 0


def _scoring(collection: Collection) -> Scoring:
    fusion, temperature = collection.settings.fusion, collection.settings.temperature
    assert fusion is not None  # The server fills in every default.
    dense, lexical, rrf_k = (float(each or 0.0) for each in (fusion.dense_weight, fusion.lexical_weight, fusion.rrf_k))
    return Scoring(str(fusion.method), dense, lexical, rrf_k, float(temperature or 0.0))


def _show(tuning: Tuning, *, is_stored: bool) -> None:
    console = make_console()
    settings = Table("setting", "before", "after", box=None, pad_edge=False)
    for name in ("method", "dense_weight", "lexical_weight", "rrf_k", "temperature"):
        settings.add_row(name, *(f"{getattr(scoring, name)}" for scoring in (tuning.before, tuning.after)))
    console.print(settings, "")
    quality = Table("on held-out questions", "before", "after", "difference, 95 % interval", box=None, pad_edge=False)
    for name, change in tuning.changes.items():
        difference = f"{change.difference.value:+.4f} {_interval(change.difference)}"
        quality.add_row(name, f"{change.before.value:.4f}", f"{change.after.value:.4f}", difference)
    console.print(quality, "")
    outcome = "stored with the collection" if is_stored else "nothing was changed"
    console.print(f"fitted on {tuning.num_fitted:,} questions, {tuning.num_held_out:,} held out; {outcome}")


def _interval(estimate: Estimate) -> str:
    return f"[{estimate.low:+.4f}, {estimate.high:+.4f}]"
