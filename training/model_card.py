"""``python -m training.model_card``: write the generated tables of the default model's card; ``--check`` only compares.

In the card, ``<!-- sizes -->`` begins what the pack takes, and ``<!-- reports PATH -->`` the scores of a JSON report of
``rag evaluate``, or of each in a folder, in the order of their names. All else is written by hand.
"""

import argparse
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import default_model
from training.pack import SHARED, sizes

ROOT = default_model.PACK.parent
CARD = default_model.PACK / "MODEL_CARD.md"
_GENERATED = re.compile(r"(<!-- (sizes|reports)(?: (\S+))? -->\n).*?(<!-- /\2 -->)", re.DOTALL)
_METRICS = {"exact_match": "EM", "f1": "F1", "recall@1": "recall@1", "recall@5": "recall@5"}


def render(card: str, *, pack: Path, root: Path) -> str:
    """The card with its tables written anew.

    Args:
        card: The text, with the tables as they were.
        pack: What the sizes are of.
        root: What the paths of reports are relative to.

    Raises:
        FileNotFoundError: There is no report where the card names one.
    """

    def table(match: re.Match[str]) -> str:
        start, kind, path, end = match.groups()
        return f"{start}{_sizes(pack) if kind == 'sizes' else _scores(root / path)}\n{end}"

    return _GENERATED.sub(table, card)


def _sizes(pack: Path) -> str:
    found = sizes(pack)
    names = {SHARED: "shared by them", "fast": "fast generator"}
    rows = [f"| {names.get(name, name)} | {size / 1e6:.2f} |" for name, size in found.items()]
    both = sum(size for name, size in found.items() if name != "fast")
    return "\n".join(
        ["| part | MB |", "|---|---|", *rows, f"| **encoder and generator together** | **{both / 1e6:.2f}** |"]
    )


def _scores(path: Path) -> str:
    files = sorted(path.glob("*.json")) if path.is_dir() else [path]
    if not files:
        raise FileNotFoundError(f"{path} holds no report")
    head = ["|  | passages | questions | " + " | ".join(_METRICS.values()) + " |", "|---" * (3 + len(_METRICS)) + "|"]
    return "\n".join([*head, *(_row(_label(file), json.loads(file.read_text())) for file in files)])


def _label(file: Path) -> str:
    """A row's name: that of `02-joint-dense.json` is joint dense."""
    return re.sub(r"^\d+-", "", file.stem).replace("-", " ")


def _row(label: str, result: Mapping[str, Any]) -> str:
    report = result.get("report", result)  # Programs in benchmarks/ put machine and command around it.
    counts, pool = report["counts"], result.get("num_passages") or report["settings"]["system"]["num_passages"]
    scores = [_percent(report["metrics"].get(metric)) for metric in _METRICS]
    return f"| {label} | {pool:,} | {counts['answerable']:,} | {' | '.join(scores)} |"


def _percent(estimate: Mapping[str, float] | None) -> str:
    if estimate is None:
        return "–"
    return f"{100 * estimate['value']:.1f} ({100 * estimate['low']:.1f}–{100 * estimate['high']:.1f})"


def main(arguments: list[str] | None = None) -> None:
    """Rewrites the card, or with ``--check`` exits with 1 when it is out of date."""
    parser = argparse.ArgumentParser(prog="python -m training.model_card", description=__doc__)
    parser.add_argument("--check", action="store_true")
    flags = parser.parse_args(arguments)
    text = CARD.read_text(encoding="utf-8")
    current = render(text, pack=default_model.PACK, root=ROOT)
    if flags.check:
        sys.exit("the card's tables are out of date: run python -m training.model_card" if text != current else 0)
    CARD.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
