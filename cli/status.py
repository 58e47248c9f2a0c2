"""`rag status`: which services answer, and with what."""

import argparse
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from cli.addresses import read_addresses
from cli.render import make_console, print_json
from cli.session import add_connection_arguments, connected, gateway_address
from rag_client import GatewayInfo, Limit, ModelInfo, RagClient


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    add_connection_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Shows the services; 1 when one of them is not ready."""
    with connected(arguments) as client:
        info = client.info()
        is_ready = {"gateway": client.is_ready()}
    is_ready |= {"retriever": info.retriever is not None, "generator": info.generator is not None}
    addresses = {"gateway": gateway_address(arguments)}
    if arguments.address is None:  # Else only the gateway knows where the others are.
        addresses = read_addresses(arguments.data_dir)
        for name in ("retriever", "generator"):
            with RagClient(addresses[name]) as service:
                is_ready[name] = is_ready[name] and service.is_ready()
    if arguments.json:
        print_json({"ready": is_ready, "addresses": addresses, "info": info})
    else:
        _show(info, is_ready, addresses, make_console())
    return 0 if all(is_ready.values()) else 1


def _show(info: GatewayInfo, is_ready: dict[str, bool], addresses: dict[str, str], console: Console) -> None:
    models = {
        "retriever": _model(info.retriever.encoder) if info.retriever else "",
        "generator": _model(info.generator.generator) if info.generator else "",
    }
    table = Table("service", "health", "address", "model", box=None, pad_edge=False)
    for name, ready in is_ready.items():
        health = "[green]serving[/]" if ready else "[red]not serving[/]"
        table.add_row(name, health, addresses.get(name, ""), models.get(name, ""))
    console.print(table)
    if info.retriever:
        console.print()
        collections = Table("collection", "passages", "index", "digest", box=None, pad_edge=False)
        for each in info.retriever.collections:
            index = f"{each.index_kind}, generation {each.index_generation}"
            collections.add_row(each.name, f"{each.num_passages:,}", index, each.index_digest[:12])
        console.print(collections if info.retriever.collections else "no collections yet: `rag ingest PATH`")
    console.print()
    backends = [each.service for each in (info.retriever, info.generator) if each is not None]
    for service in (info.service, *backends):
        console.print(f"{service.service} {service.build_version}: {_limits(service.limits)}")


def _model(model: ModelInfo) -> str:
    return f"{model.name} ({model.num_parameters / 1e6:.1f} M, {model.dtype}, {model.device}, {model.digest[:12]})"


def _limits(limits: Iterable[Limit]) -> str:
    return ", ".join(f"{limit.name} {limit.value:,.10g} {limit.unit}" for limit in limits)
