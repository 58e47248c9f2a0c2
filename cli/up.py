"""`rag up`: the three services as real processes, one Ctrl-C for all."""

import argparse
import asyncio
import contextlib
import fcntl
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

from rich.console import Console
from rich.text import Text

from cli.addresses import DEFAULT_DATA_DIR, DEFAULT_PORTS, remove_addresses, write_addresses
from cli.errors import CommandFailed
from cli.processes import ChildDied, Command, run_together

_HOST = "127.0.0.1"
_METRICS_PORTS = {"gateway": 9100, "retriever": 9101, "generator": 9102}
_COLORS = {"gateway": "cyan", "retriever": "green", "generator": "magenta"}
_STOP_GRACE_SECONDS = 45.0  # More than a service's own drain and grace together.
MODEL_HELP = "generator: default (shipped), fast (its smaller student), or a checkpoint's directory or hub name"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument(
        "--data-dir", type=Path, default=DEFAULT_DATA_DIR, help="where collections live (default: %(default)s)"
    )
    parser.add_argument("--model", metavar="MODEL", help=MODEL_HELP)
    parser.add_argument("--encoder", metavar="NAME_OR_PATH", help="query encoder (default: the one shipped)")
    parser.add_argument("--reranker", metavar="NAME_OR_PATH", help="cross-encoder for --rerank cross-encoder")
    parser.add_argument(
        "--port", type=_port, help=f"of the gateway (default: {DEFAULT_PORTS['gateway']}); 0: free ports for all"
    )
    for name in ("retriever", "generator"):
        parser.add_argument(f"--{name}-port", type=_port, help=f"(default: {DEFAULT_PORTS[name]})")
    parser.add_argument("-q", "--quiet", action="store_true", help="logs go to files in the data directory")
    parser.epilog = (
        "Further settings reach the services by environment: RAG_GATEWAY_*, RAG_RETRIEVER_*, RAG_GENERATOR_*."
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs until stopped."""
    data_dir: Path = arguments.data_dir.absolute()
    console = Console(stderr=True, highlight=False)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_locked(data_dir))
        commands = _commands(arguments, data_dir)
        addresses = {command.name: command.address for command in commands}
        on_line = stack.enter_context(_log_files(data_dir)) if arguments.quiet else _forwarder(console)

        def on_all_ready() -> None:
            write_addresses(data_dir, addresses)
            console.print(f"[bold]ready[/]: ask at {addresses['gateway']}; Ctrl-C stops")

        try:
            console.print(f"starting {', '.join(addresses)}; data in {data_dir}")
            asyncio.run(
                run_together(
                    commands,
                    is_ready=lambda command: asyncio.to_thread(_is_ready, command.address),
                    on_line=on_line,
                    on_ready=lambda command: console.print(f"{command.name} is serving at {command.address}"),
                    on_all_ready=on_all_ready,
                    grace_seconds=_STOP_GRACE_SECONDS,
                )
            )
        except ChildDied as error:
            more = f"\n  more in {data_dir / 'logs'}" if arguments.quiet else ""
            raise CommandFailed(f"{error}{more}") from error
        finally:
            remove_addresses(data_dir)
        console.print("stopped")
    return 0


def free_ports(count: int) -> list[int]:
    """Ports that are free now; nothing reserves them."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((_HOST, 0))
        return [int(each.getsockname()[1]) for each in sockets]


def _commands(arguments: argparse.Namespace, data_dir: Path) -> list[Command]:
    """The gateway first: it is stopped first, so that it can finish what it has accepted."""
    ports = _choose_ports(arguments)
    address = {name: f"{_HOST}:{port}" for name, port in ports.items()}
    metrics = dict.fromkeys(ports, "0") if arguments.port == 0 else {n: str(p) for n, p in _METRICS_PORTS.items()}
    flags: dict[str, dict[str, str | None]] = {
        "gateway": {
            "retriever": address["retriever"],
            "generator": address["generator"],
            "feedback-path": str(data_dir / "feedback.jsonl"),
        },
        "retriever": {
            "data-dir": str(data_dir / "retriever"),
            "encoder": arguments.encoder,
            "reranker": arguments.reranker,
        },
        "generator": {"model": arguments.model},
    }
    modules = {"gateway": "gateway", "retriever": "retriever_service", "generator": "generator_service"}
    commands = []
    for name, module in modules.items():
        # No drain: there is no other replica for callers to move to, and the gateway is stopped before its backends.
        common = {"host": _HOST, "port": str(ports[name]), "metrics-port": metrics[name], "drain-seconds": "0"}
        given = common | flags[name]
        argv = [f"--{flag}={value}" for flag, value in given.items() if value is not None]
        commands.append(Command(name, (sys.executable, "-u", "-m", module, *argv), address[name]))
    return commands


def _choose_ports(arguments: argparse.Namespace) -> dict[str, int]:
    given = {"gateway": arguments.port, "retriever": arguments.retriever_port, "generator": arguments.generator_port}
    free = dict(zip(given, free_ports(len(given)), strict=True))
    defaults: Mapping[str, int] = free if arguments.port == 0 else DEFAULT_PORTS
    ports = {name: defaults[name] if port is None else port or free[name] for name, port in given.items()}
    for name, port in ports.items():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((_HOST, port))
            except OSError as error:
                raise CommandFailed(
                    f"port {port} for the {name} is not free ({error.strerror}): is another `rag up` running? "
                    "`rag up --port 0` takes free ones"
                ) from error
    return ports


def _is_ready(address: str) -> bool:
    from rag_client import RagClient  # After the children were started: a process that forks should not run gRPC.

    with RagClient(address) as client:
        return client.is_ready()


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Keeps a second `rag up` away from the data; the kernel lets go when this process ends, however it ends."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "up.lock").open("w")
    except OSError as error:
        raise CommandFailed(f"data directory {data_dir}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise CommandFailed(f"another `rag up` runs on the data in {data_dir}") from error
        yield


def _forwarder(console: Console) -> Callable[[str, str], None]:
    def forward(name: str, line: str) -> None:
        console.print(Text.assemble((f"{name:>9} | ", _COLORS[name]), line), soft_wrap=True)

    return forward


@contextlib.contextmanager
def _log_files(data_dir: Path) -> Iterator[Callable[[str, str], None]]:
    folder = data_dir / "logs"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for name in _COLORS:
            files[name] = stack.enter_context((folder / f"{name}.log").open("a", buffering=1, encoding="utf-8"))
        yield lambda name, line: print(line, file=files[name])


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not in 0 to 65535")
    return port
