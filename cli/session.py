"""The connection to the gateway that most commands share, and what its failures mean to a person."""

import argparse
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.addresses import DEFAULT_DATA_DIR, read_addresses
from cli.errors import CommandFailed
from rag_client import RagClient, RagError
from rag_client.errors import InternalError, NotReady, Overloaded

DEFAULT_COLLECTION = "default"


_TIMEOUT_SECONDS = 120.0


def add_connection_arguments(parser: argparse.ArgumentParser, *, has_timeout: bool = True) -> None:
    """Adds --address, --data-dir and, but for work that takes as long as it takes, --timeout."""
    parser.add_argument("--address", metavar="HOST:PORT", help="the gateway (default: what `rag up` says)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=DEFAULT_DATA_DIR,
        help="of `rag up`, to find its gateway (default: %(default)s)",
    )
    parser.set_defaults(timeout=_TIMEOUT_SECONDS)
    if has_timeout:
        parser.add_argument("--timeout", type=_seconds, metavar="SECONDS", help="for one call (%(default)s)")


def add_collection_argument(parser: argparse.ArgumentParser) -> None:
    """Adds --collection."""
    parser.add_argument("-c", "--collection", default=DEFAULT_COLLECTION, help="its name (default: %(default)s)")


def gateway_address(arguments: argparse.Namespace) -> str:
    """The gateway's address as the arguments give it."""
    given: str | None = arguments.address
    return given or read_addresses(arguments.data_dir)["gateway"]


@contextmanager
def connected(arguments: argparse.Namespace) -> Iterator[RagClient]:
    """A client of the gateway; what the services refuse inside the block becomes one helpful line."""
    address = gateway_address(arguments)
    with RagClient(address, timeout=arguments.timeout) as client:
        try:
            yield client
        except RagError as error:
            raise CommandFailed(_explain(error, client)) from error


def empty_collection(name: str) -> CommandFailed:
    """What to say of a collection without passages."""
    return CommandFailed(f"collection {name!r} has no passages: `rag ingest PATH{_option(name)}`")


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 seconds")
    return seconds


def _explain(error: RagError, client: RagClient) -> str:
    if isinstance(error, NotReady) and error.reason == "UNREACHABLE":
        return f"no gateway at {client.target}: start one with `rag up`"
    if error.reason == "COLLECTION_NOT_FOUND":
        return f"{error.message} (`rag ingest PATH` makes one)"
    if isinstance(error, Overloaded):
        return f"the services are overloaded, try again: {error.message}"
    if isinstance(error, InternalError):
        return f"a service failed, its log says more: {error.message}"
    return error.message


def _option(name: str) -> str:
    return "" if name == DEFAULT_COLLECTION else f" --collection {name}"
