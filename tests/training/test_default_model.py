"""What ships: small enough, whole, in the wheel, and described by its card."""

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import default_model
from serving.packed_checkpoint import PACKED_WEIGHTS, read_manifest, sha256_of
from training import model_card
from training.pack import sizes

MAX_BYTES, MAX_BYTES_WITH_FAST = 40e6, 50e6
ROOT = default_model.PACK.parent


def data_files() -> Iterator[Path]:
    return (path for path in default_model.PACK.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))


def test_encoder_and_generator_take_at_most_40_mb_and_the_fast_generator_10_more() -> None:
    total = sum(path.stat().st_size for path in data_files())
    assert total - sizes(default_model.PACK).get("fast", 0) <= MAX_BYTES
    assert total <= MAX_BYTES_WITH_FAST


def test_the_weights_are_those_that_the_manifest_names() -> None:
    manifest = read_manifest(default_model.PACK)
    assert sha256_of(default_model.PACK / PACKED_WEIGHTS) == manifest.packed_sha256
    assert {"encoder", "generator"} <= set(manifest.restored)


def test_the_wheel_holds_every_file_of_the_default_model() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    packed = {path for pattern in patterns["default_model"] for path in default_model.PACK.glob(pattern)}
    assert [path for path in data_files() if path not in packed] == []


def test_the_cards_tables_are_those_of_the_pack_and_the_reports() -> None:
    card = model_card.CARD.read_text(encoding="utf-8")
    assert model_card.render(card, pack=default_model.PACK, root=ROOT) == card


REPORT = """{"num_passages": 5203, "report": {"counts": {"answerable": 100}, "metrics": {
    "exact_match": {"value": 0.5, "low": 0.4, "high": 0.6}, "recall@1": {"value": 0.81, "low": 0.8, "high": 0.82}}}}"""


def test_a_folder_of_reports_becomes_a_table_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("02-joint-retriever", "01-frozen"):
        (tmp_path / "runs" / f"{name}.json").write_text(REPORT)
    card = "Before\n<!-- reports runs -->\nold\n<!-- /reports -->\nafter\n"
    rendered = model_card.render(card, pack=default_model.PACK, root=tmp_path)
    rows = [line for line in rendered.splitlines() if line.startswith("| ")]
    scores = "5,203 | 100 | 50.0 (40.0–60.0) | – | 81.0 (80.0–82.0) | – |"
    assert rows == [
        "|  | passages | questions | EM | F1 | recall@1 | recall@5 |",
        f"| frozen | {scores}",
        f"| joint retriever | {scores}",
    ]
    assert rendered.startswith("Before\n")
    assert rendered.endswith("<!-- /reports -->\nafter\n")


def test_a_card_that_names_a_missing_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        model_card.render("<!-- reports none.json -->\n<!-- /reports -->", pack=default_model.PACK, root=tmp_path)
