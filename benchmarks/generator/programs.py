"""Cells that are benchmark programs of their own: run as they are from the command line, read from what they write."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.generator.measuring import load
from benchmarks.machine import ROOT


def measure(module: str, *arguments: str) -> dict[str, Any]:
    """The rows that `python -m <module> ... --out FILE` writes."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "result.json"
        argv = [sys.executable, "-m", module, *arguments, f"--out={out}"]
        subprocess.run(argv, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        return {"rows": json.loads(out.read_text(encoding="utf-8"))["rows"], "load": load()}
