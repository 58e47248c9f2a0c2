"""Finished cells of a run, kept line by line, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Store:
    """Cells of one commit and machine; lines of others are ignored."""

    def __init__(self, path: Path, *, origin: str, fresh: bool = False) -> None:
        """Reads what is there.

        Args:
            path: The file; made when the first cell is kept.
            origin: What must be equal for a cell to count: commit, machine, settings.
            fresh: Forget everything.
        """
        self._path, self._origin = path, origin
        self.cells: dict[str, dict[str, Any]] = {}
        if fresh:
            path.unlink(missing_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            try:
                kept = json.loads(line)
            except json.JSONDecodeError:
                continue  # The line that an interruption cut off.
            if kept["origin"] == origin:
                self.cells[kept["name"]] = kept["cell"]

    def keep(self, name: str, cell: dict[str, Any]) -> None:
        """Writes one finished cell."""
        self.cells[name] = cell
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"origin": self._origin, "name": name, "cell": cell}) + "\n")
