"""An encoder between two: each weight on the line between them, what was frozen untouched."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.retriever.interpolate import interpolate, main


def test_a_weight_lies_at_its_share_between_both() -> None:
    mixed = interpolate({"w": torch.zeros(2)}, {"w": torch.full((2,), 4.0)}, 0.25)
    assert mixed["w"].tolist() == [1.0, 1.0]


def test_equal_tensors_stay_equal_bit_for_bit() -> None:
    frozen = torch.randn(50)
    assert interpolate({"w": frozen}, {"w": frozen.clone()}, 0.3)["w"].equal(frozen)


@pytest.mark.parametrize(
    ("before", "share", "named"),
    [({}, 0.5, "w"), ({"w": torch.zeros(3)}, 0.5, "w"), ({"w": torch.zeros(2)}, 1.5, "share")],
)
def test_what_cannot_be_mixed_is_refused_by_name(before, share, named) -> None:
    with pytest.raises(ValueError, match=named):
        interpolate(before, {"w": torch.ones(2)}, share)


def test_the_rest_of_the_checkpoint_comes_from_the_trained_one(tmp_path) -> None:
    for name, value in (("before", 0.0), ("after", 1.0)):
        (tmp_path / name).mkdir()
        save_file({"w": torch.full((2,), value)}, tmp_path / name / "model.safetensors")
        (tmp_path / name / "config.json").write_text('{"model_type": "bert", "max_position_embeddings": 8}')
        (tmp_path / name / "tokenizer.json").write_text(name)
    main(
        [
            "--before",
            str(tmp_path / "before"),
            "--after",
            str(tmp_path / "after"),
            "--share",
            "0.5",
            "--out",
            str(tmp_path / "out"),
        ]
    )
    assert load_file(tmp_path / "out" / "model.safetensors")["w"].tolist() == [0.5, 0.5]
    assert (tmp_path / "out" / "tokenizer.json").read_text() == "after"
