"""`rag collections`: what there is, and what it is made with."""

import argparse

from rich.table import Table

from cli.render import make_console, print_json
from cli.session import add_connection_arguments, connected
from rag_client import Collection, CollectionOptions, Fusion, FusionMethod, LexicalScoring, RagClient

_TYPES = ("string", "int", "double", "bool")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's actions and their arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add_connection_arguments(_json(actions.add_parser("list", help="list all collections")))
    describe = _json(_named(actions.add_parser("describe", help="show one collection")))
    add_connection_arguments(describe)
    create = _json(_named(actions.add_parser("create", help="create a collection")))
    create.add_argument("--metric", choices=["cosine", "inner_product"], help="(default: the encoder's own)")
    create.add_argument("--encoder", metavar="NAME_OR_PATH", help="(default: the server's)")
    create.add_argument(
        "--field", action="append", default=[], type=_field, metavar="NAME:TYPE", help="metadata that filters may name"
    )
    create.add_argument(
        "--lexical-scoring", choices=[scoring.value for scoring in LexicalScoring], help="(default: bm25)"
    )
    create.add_argument("--language", help="of stemming: english (default), german, ..., none")
    create.add_argument("--index-factory", metavar="STRING", help="of FAISS, as HNSW32 (default: chosen by size)")
    create.add_argument(
        "--sentence-vectors", action=argparse.BooleanOptionalAction,
        help="find passages by their best sentence, too (default: with FAISS and cosine scores)",
    )  # fmt: skip
    configure = _json(_named(actions.add_parser("configure", help="change temperature and fusion")))
    configure.add_argument("--fusion", choices=[method.value for method in FusionMethod])
    configure.add_argument("--dense-weight", type=float, metavar="W")
    configure.add_argument("--lexical-weight", type=float, metavar="W")
    configure.add_argument("--rrf-k", type=float, metavar="K")
    for parser_ in (create, configure):
        parser_.add_argument("--temperature", type=float, metavar="TAU", help="of log p(d|x)")
        add_connection_arguments(parser_)
    drop = _named(actions.add_parser("drop", help="delete a collection with all its passages"))
    drop.add_argument("--yes", action="store_true", help="do not ask")
    add_connection_arguments(drop)


def run(arguments: argparse.Namespace) -> int:
    """Runs one action."""
    with connected(arguments) as client:
        if arguments.action == "list":
            _list(client.list_collections(), as_json=arguments.json)
        elif arguments.action == "drop":
            return _drop(client, arguments)
        else:
            collection = _ACTIONS[arguments.action](client, arguments)
            print_json(collection) if arguments.json else _show(collection)
    return 0


def _list(collections: list[Collection], *, as_json: bool) -> None:
    if as_json:
        print_json(collections)
        return
    table = Table("collection", "passages", "sources", "index", "encoder", box=None, pad_edge=False)
    for each in collections:
        counts = (f"{each.num_passages:,}", f"{each.num_sources:,}")
        table.add_row(each.name, *counts, f"{each.index_kind} {each.index_generation}", each.encoder.name)
    make_console().print(table)


def _create(client: RagClient, arguments: argparse.Namespace) -> Collection:
    options = CollectionOptions(filterable_fields=dict(arguments.field))
    for name in (
        "metric",
        "encoder",
        "lexical_scoring",
        "language",
        "index_factory",
        "sentence_vectors",
        "temperature",
    ):
        if (value := getattr(arguments, name)) is not None:
            options[name] = value
    return client.create_collection(arguments.name, **options)


def _configure(client: RagClient, arguments: argparse.Namespace) -> Collection:
    fusion = Fusion(arguments.fusion, arguments.dense_weight, arguments.lexical_weight, arguments.rrf_k)
    return client.configure_collection(
        arguments.name, temperature=arguments.temperature, fusion=None if fusion == Fusion() else fusion
    )


def _describe(client: RagClient, arguments: argparse.Namespace) -> Collection:
    return client.describe_collection(arguments.name)


_ACTIONS = {"create": _create, "configure": _configure, "describe": _describe}


def _drop(client: RagClient, arguments: argparse.Namespace) -> int:
    if not arguments.yes:
        count = client.describe_collection(arguments.name).num_passages
        try:
            reply = input(f"delete collection {arguments.name!r} with its {count:,} passages? [y/N] ")
        except EOFError:
            reply = ""
        if reply.strip().lower() not in ("y", "yes"):
            print("kept")
            return 1
    print(f"deleted {client.drop_collection(arguments.name):,} passages")
    return 0


def _show(collection: Collection) -> None:
    settings, fusion = collection.settings, collection.settings.fusion or Fusion()
    table = Table(show_header=False, box=None, pad_edge=False)
    fields = ", ".join(f"{name} ({type_})" for name, type_ in settings.filterable_fields.items())
    rows = {
        "collection": collection.name,
        "passages": f"{collection.num_passages:,} from {collection.num_sources:,} sources",
        "encoder": f"{collection.encoder.name} ({collection.encoder.dim} dimensions), {settings.metric}",
        "index": f"{collection.index_kind}, generation {collection.index_generation}, at {collection.sequence}",
        "temperature": str(settings.temperature),
        "fusion": f"{fusion.method}: dense {fusion.dense_weight}, lexical {fusion.lexical_weight}, k {fusion.rrf_k}",
        "sentence vectors": "yes" if settings.sentence_vectors else "no",
        "lexical": f"{settings.lexical_scoring}, {settings.language}",
        "filterable": fields or "source and id only",
    }
    for name, value in rows.items():
        table.add_row(name, value)
    make_console().print(table)


def _field(text: str) -> tuple[str, str]:
    name, _, type_ = text.partition(":")
    if not name or type_ not in _TYPES:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME:TYPE with TYPE one of {', '.join(_TYPES)}")
    return name, type_


def _named(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("name", metavar="NAME")
    return parser


def _json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser
