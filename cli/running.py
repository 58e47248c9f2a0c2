"""`rag up` as a child process, for programs that need the services for a while."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.addresses import is_running, read_addresses
from cli.errors import CommandFailed

_START_SECONDS, _STOP_SECONDS = 300.0, 60.0


@contextmanager
def running_services(data_dir: Path, *, model: str | None = None) -> Iterator[str]:
    """Runs `rag up` on free ports while the context lasts; gives the gateway's address once all is ready.

    Raises:
        CommandFailed: The services did not start.
    """
    argv = [sys.executable, "-m", "cli", "up", "--port=0", "--quiet", f"--data-dir={data_dir}"]
    process = subprocess.Popen(argv + ([f"--model={model}"] if model else []), start_new_session=True)
    try:
        yield _wait_until_ready(process, data_dir)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(process: subprocess.Popen[bytes], data_dir: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CommandFailed("the services did not start")  # `rag up` has said why.
        if is_running(data_dir):
            return read_addresses(data_dir)["gateway"]
        time.sleep(0.1)
    raise CommandFailed(f"the services were not ready after {_START_SECONDS:g} seconds")
