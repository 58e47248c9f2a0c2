"""Where the services are: the file that `rag up` leaves for the other commands."""

import json
from collections.abc import Mapping
from pathlib import Path

DEFAULT_DATA_DIR = Path("rag-data")
DEFAULT_PORTS = {"gateway": 50050, "retriever": 50051, "generator": 50052}
_FILE_NAME = "services.json"


def write_addresses(data_dir: Path, addresses: Mapping[str, str]) -> None:
    """Writes name → "host:port" of the running services; the file appears complete or not at all."""
    unfinished = data_dir / f"{_FILE_NAME}.tmp"
    unfinished.write_text(json.dumps(addresses, indent=2) + "\n")
    unfinished.replace(data_dir / _FILE_NAME)


def remove_addresses(data_dir: Path) -> None:
    """Says that nothing runs any more."""
    (data_dir / _FILE_NAME).unlink(missing_ok=True)


def is_running(data_dir: Path) -> bool:
    """Whether a `rag up` on this data is ready (or was killed before it could say otherwise)."""
    return (data_dir / _FILE_NAME).exists()


def read_addresses(data_dir: Path) -> dict[str, str]:
    """Addresses by service name; the default ports where `rag up` left nothing."""
    addresses = {name: f"localhost:{port}" for name, port in DEFAULT_PORTS.items()}
    try:
        written = json.loads((data_dir / _FILE_NAME).read_text())
    except (OSError, ValueError):
        return addresses
    return addresses | {name: str(written[name]) for name in addresses if name in written}
