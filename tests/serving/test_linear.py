"""Linear layers: what int8 rounds, and which backend is trusted."""

import pytest
import torch

from serving import linear
from serving.linear import Int8Linear, PlainLinear

KINDS = [(torch.float32, "PackedLinear", "packed"), (torch.int8, "Int8Linear", "int8")]


@pytest.fixture(scope="module")
def layers() -> tuple[PlainLinear, Int8Linear]:
    torch.manual_seed(0)
    weight, bias = torch.randn(24, 64) * torch.rand(24, 1) * 3, torch.randn(24)
    return PlainLinear(weight, bias), Int8Linear(weight, bias)


def test_int8_is_near_float32_whatever_the_scale_of_a_row(layers: tuple[PlainLinear, Int8Linear]) -> None:
    plain, rounded = layers
    x = torch.randn(9, 64) * torch.logspace(-6, 6, 9)[:, None]
    wanted = plain(x)
    assert ((rounded(x) - wanted).norm(dim=1) < 0.02 * wanted.norm(dim=1)).all()
    assert torch.allclose(rounded(x[:3], activation="relu"), torch.relu(wanted[:3]), atol=0.05)
    residual = torch.randn(3, 24)
    assert torch.allclose(rounded(x[:3], residual=residual), wanted[:3] + residual, atol=0.05)


def test_int8_gives_a_row_the_same_beside_any_others(layers: tuple[PlainLinear, Int8Linear]) -> None:
    x = torch.randn(40, 64)
    beside = layers[1](torch.cat([100 * x[20:], x[:7]]))[20:]
    assert torch.equal(beside, layers[1](x[:7]))


def test_int8_is_exact_where_nothing_is_rounded() -> None:
    weight = torch.randint(-127, 128, (5, 16)).float()
    x = torch.randint(-127, 128, (6, 16)).float()
    weight[:, 0], x[:, 1] = 127, -127
    assert torch.equal(Int8Linear(weight, None)(x), x @ weight.T)
    assert torch.equal(Int8Linear(weight, None)(torch.zeros(2, 16)), torch.zeros(2, 5))


@pytest.mark.parametrize(("dtype", "kind", "backend"), KINDS)
def test_linears_are_not_trusted_when_they_are_wrong(
    dtype: torch.dtype, kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, kind, lambda weight, bias: linear.PlainLinear(weight * 1.5, bias))
    monkeypatch.setattr(linear, "_is_faster", lambda *_: True)
    assert linear.choose_backend.__wrapped__(dtype, "cpu") != backend


@pytest.mark.parametrize(("dtype", "kind", "backend"), KINDS)
def test_linears_are_not_trusted_when_torch_lacks_them(
    dtype: torch.dtype, kind: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(weight: torch.Tensor, bias: torch.Tensor) -> linear.Linear:
        raise AttributeError("qlinear_prepack")

    monkeypatch.setattr(linear, kind, missing)
    monkeypatch.setattr(linear, "_is_faster", lambda *_: True)
    assert linear.choose_backend.__wrapped__(dtype, "cpu") != backend


def test_int8_is_chosen_where_it_is_sound_and_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "_is_faster", lambda *_: True)
    assert linear.choose_backend.__wrapped__(torch.int8, "cpu") == "int8"
    monkeypatch.setattr(linear, "_is_faster", lambda *_: False)
    assert linear.choose_backend.__wrapped__(torch.int8, "cpu") != "int8"


def test_packed_linears_are_only_for_cpu() -> None:
    assert linear.choose_backend(torch.float32, "cuda") == "plain"
    assert linear.choose_backend(torch.int8, "cuda") == "plain"
